"""Who holds what, written once: which worker an attempt, which job a trial.

An MLflow param can be written once, on every kind of store, and it is the only thing on a run of
which that holds. As a param of the job's own run it would lead every comparison in the MLflow UI,
so claims are params of runs that are kept for nothing else, in an experiment of their own.
"""

import threading
from typing import Final

from mlflow.entities import LifecycleStage
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.names import CLAIMS_EXPERIMENT, Tag
from grpo_platform.tracking.exceptions import is_missing, retrying, when_granted
from grpo_platform.tracking.experiments import ensure_experiment

__all__ = ["Ledger"]

_MOST: Final = 500
"""Runs whose claims go to one ledger: MLflow reads all params of a run where two claims meet."""

_NOTE: Final = (
    "Kept by grpo-platform: which worker claimed which attempt of a job, so that two servers on "
    "one store never run the same one. There is nothing to look at; please leave it."
)


class Ledger:
    """The ledgers of one store; safe to use from several threads.

    Args:
        client: of the store.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._current: str | None = None
        self._room = 0

    def current(self) -> str:
        """Run that the claims on a new run are written to; its id belongs into the new run's tags.

        Raises:
            StoreUnavailableError: the store is away.
            StoreError: it refused.
        """
        with self._lock:
            if self._current is None or self._room <= 0:
                self._current, self._room = self._open(opened=self._current)
            self._room -= 1
            return self._current

    def claim(self, ledger: str, key: str, holder: str) -> str | None:
        """Write a claim unless there is one.

        Args:
            ledger: run id, from `current`.
            key: what is claimed.
            holder: who claims it.

        Returns:
            Who holds it; None where the ledger was deleted for good, with all that was in it.

        Raises:
            StoreUnavailableError: the store is away; perhaps it was written.
            StoreError: it refused.
        """
        try:
            retrying(lambda: self._client.log_param(ledger, key, holder))
        except StoreUnavailableError:
            raise
        except StoreError:
            params = self._restored(ledger)
            if params is None:
                return None
            if key in params:
                return params[key]
            # it was deleted in MLflow, and is no more
            retrying(lambda: self._client.log_param(ledger, key, holder))
        return holder

    def touch(self, text: str) -> None:
        """Write to the store, to see that it takes writes; somewhere where nobody looks.

        Raises:
            StoreUnavailableError: it is away, or takes none.
            StoreError: it refused.
        """
        with self._lock:
            if self._current is None:
                self._current, self._room = self._open(opened=None)
            current = self._current
        try:
            retrying(lambda: self._client.set_tag(current, Tag.PROBED, text))
        except StoreUnavailableError:
            raise
        except StoreError:
            with self._lock:
                self._current = None  # deleted in MLflow, perhaps for good
            raise

    def _restored(self, ledger: str) -> dict[str, str] | None:
        """Params of a ledger, restored where somebody deleted it; None where it is gone."""
        try:
            run = retrying(lambda: self._client.get_run(ledger))
        except StoreError as error:
            if is_missing(error):
                return None
            raise
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            ensure_experiment(self._client, CLAIMS_EXPERIMENT, note=_NOTE)
            retrying(lambda: self._client.restore_run(ledger))
        params: dict[str, str] = run.data.params
        return params

    def _open(self, opened: str | None) -> tuple[str, int]:
        """A ledger with room, and for how many runs: the store's newest, or else a new one."""
        experiment = ensure_experiment(self._client, CLAIMS_EXPERIMENT, note=_NOTE)
        newest = experiment.tags.get(Tag.LEDGER)
        if newest is not None and newest != opened:
            params = self._restored(newest)
            if params is not None and len(params) < _MOST:
                return newest, _MOST - len(params)
        made = experiment.experiment_id
        run = when_granted(lambda: self._client.create_run(made, run_name="claims"))
        run_id: str = run.info.run_id
        retrying(lambda: self._client.set_terminated(run_id))
        when_granted(lambda: self._client.set_experiment_tag(made, Tag.LEDGER, run_id))
        return run_id, _MOST
