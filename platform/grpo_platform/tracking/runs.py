"""One run of ours: its tags, metrics and artifacts, read and written; who claimed what of it."""

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from mlflow.entities import LifecycleStage, Param, Run, RunTag
from mlflow.entities import Metric as MlflowMetric
from mlflow.tracking import MlflowClient

from grpo.errors import UnknownNameError
from grpo_platform.core.access import Signer
from grpo_platform.core.errors import (
    AmbiguousIdError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.core.names import (
    CLAIM_PARAM,
    CLAIM_TAG,
    CLAIMS_EXPERIMENT,
    JOB_METRICS,
    LATEST,
    SYSTEM_METRICS_PREFIX,
    Tag,
)
from grpo_platform.core.request import JobRequest
from grpo_platform.tracking.exceptions import is_missing, retrying, store_errors, when_granted
from grpo_platform.tracking.experiments import ensure_experiment
from grpo_platform.tracking.files import RunFiles
from grpo_platform.tracking.histories import History, HistoryCache, read_histories
from grpo_platform.tracking.locations import require_database
from grpo_platform.tracking.provenance import dataset_of
from grpo_platform.tracking.reader import HttpReader, RunQuery, RunReader, SqlReader
from grpo_platform.tracking.records import Held, JobRecord, finite, record_of
from grpo_platform.tracking.reporter import HistoryPoint, Point, thin

__all__ = ["Ledger", "RunStore", "now_ms", "require_job_id"]

_JOB_ID: Final = re.compile(r"[0-9a-f]{32}")
_BEGINNING: Final = re.compile(r"[0-9a-f]{4,31}")
_CANDIDATES: Final = 9
"""Ids that a message names."""

_CLAIMED_RUNS: Final = 500
"""Runs whose claims go to one ledger: MLflow reads all params of a run where two claims meet."""

_LEDGER_NOTE: Final = (
    "Kept by grpo-platform: which worker claimed which attempt of a job, so that two servers on "
    "one store never run the same one. There is nothing to look at; please leave it."
)

_METRICS_A_CALL: Final = 900
"""Metrics in one call; MLflow allows 1,000 metrics, tags and params together."""


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
            ensure_experiment(self._client, CLAIMS_EXPERIMENT, note=_LEDGER_NOTE)
            retrying(lambda: self._client.restore_run(ledger))
        params: dict[str, str] = run.data.params
        return params

    def _open(self, opened: str | None) -> tuple[str, int]:
        """A ledger with room, and for how many runs: the store's newest, or else a new one."""
        experiment = ensure_experiment(self._client, CLAIMS_EXPERIMENT, note=_LEDGER_NOTE)
        newest = experiment.tags.get(Tag.LEDGER)
        if newest is not None and newest != opened:
            params = self._restored(newest)
            if params is not None and len(params) < _CLAIMED_RUNS:
                return newest, _CLAIMED_RUNS - len(params)
        made = experiment.experiment_id
        run = when_granted(lambda: self._client.create_run(made, run_name="claims"))
        run_id: str = run.info.run_id
        retrying(lambda: self._client.set_terminated(run_id))
        when_granted(lambda: self._client.set_experiment_tag(made, Tag.LEDGER, run_id))
        return run_id, _CLAIMED_RUNS


def require_job_id(text: str) -> None:
    """Refuse what has not the form of a run id; nothing else is ever handed to MLflow.

    Raises:
        UnknownJobError: it is not an id.
    """
    if not _JOB_ID.fullmatch(text):
        raise UnknownJobError(text)


class RunStore:
    """Reads and writes single runs; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `UnknownJobError` for ids that are not a job of ours.

    Args:
        tracking_uri: of the store, absolute.
        signer: of the server that queues; others need none.
    """

    def __init__(self, tracking_uri: str, signer: Signer | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.signer = Signer() if signer is None else signer
        require_database(tracking_uri)
        with store_errors():
            self._client = MlflowClient(tracking_uri=tracking_uri)
            self._reader = _reader(tracking_uri, self._client)
        self._histories = HistoryCache()
        self._files = RunFiles(tracking_uri)
        self._ledger = Ledger(self._client)

    def get(self, job_id: str, *, include_deleted: bool = False) -> JobRecord:
        """The job as it stands in the store.

        Args:
            job_id: anything; only ids of our jobs are found.
            include_deleted: also return a job whose run was deleted in MLflow.
        """
        require_job_id(job_id)
        run = self._reader.get(job_id)
        if Tag.JOB not in run.tags or (run.deleted and not include_deleted):
            raise UnknownJobError(job_id)
        return record_of(run)

    def id_of(self, text: str) -> str:
        """The id of the job that a text means: see `_id_of`."""
        return self._id_of(text, Tag.JOB, UnknownJobError)

    def _id_of(self, text: str, mark: str, unknown: type[NotFoundError]) -> str:
        """The id that a text means: itself, the one that begins so, or that of the `latest`.

        Args:
            text: anything; what has the form of an id is not looked up.
            mark: tag of the runs that are meant.
            unknown: the error where there is none.

        Raises:
            AmbiguousIdError: several begin so.
        """
        if _JOB_ID.fullmatch(text):
            return text
        if text == LATEST:
            query = RunQuery(tag_keys=(mark,), limit=1)
        elif _BEGINNING.fullmatch(text):
            query = RunQuery(tag_keys=(mark,), prefix=text, limit=_CANDIDATES)
        else:
            raise unknown(text)
        found = [row.run_id for row in self._reader.find(query)]
        if not found:
            raise unknown(text)
        if len(found) > 1:
            raise AmbiguousIdError(text, found)
        return found[0]

    def vouches_for(self, record: Held) -> bool:
        """Whether this server may go on with a job or sweep: always, where there is no token."""
        return self.signer.vouches_for(record.run_id, record.stored_request, record.signature)

    def set_tags(self, job_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of the job's run, in one call."""
        if len(tags) != 1:
            self._log(job_id, tags=tags)
            return
        ((key, value),) = tags.items()  # which takes MLflow one transaction, and many tags three
        self._write(job_id, lambda: self._client.set_tag(job_id, key, value))

    def log_points(
        self, job_id: str, points: Sequence[Point], tags: Mapping[str, str] | None = None
    ) -> None:
        """Write metric points, and tags with them, in as few calls as possible."""
        metrics = [MlflowMetric(p.key, p.value, p.timestamp_ms, p.step) for p in points]
        self._log(job_id, metrics=metrics[:_METRICS_A_CALL], tags=tags or {})
        for begin in range(_METRICS_A_CALL, len(metrics), _METRICS_A_CALL):
            self._log(job_id, metrics=metrics[begin : begin + _METRICS_A_CALL])

    def log_environment(self, job_id: str, request: JobRequest) -> None:
        """Name the environment as the run's dataset; again is fine."""
        dataset = dataset_of(request)
        if dataset is not None:
            self._write(job_id, lambda: self._client.log_inputs(job_id, datasets=[dataset]))

    def last_steps(self, job_id: str, keys: Iterable[str]) -> dict[str, int]:
        """Step of the newest point of each key; keys without points are absent."""
        wanted = set(keys)
        latest = self._run(job_id).data.to_proto().metrics
        return {metric.key: metric.step for metric in latest if metric.key in wanted}

    def history(self, job_id: str, key: str, max_points: int) -> list[HistoryPoint]:
        """Points of a metric in order of their steps, thinned.

        Raises:
            UnknownNameError: no job has such a metric, and neither has this one.
        """
        record = self.get(job_id)
        found = retrying(lambda: self._client.get_metric_history(job_id, key), job_id)
        if not found and not (key in JOB_METRICS or key.startswith(SYSTEM_METRICS_PREFIX)):
            raise UnknownNameError("key", key, {*JOB_METRICS, *record.metrics})
        points = [HistoryPoint(m.step, m.value, m.timestamp) for m in found if finite(m.value)]
        return thin(sorted(points, key=lambda p: (p.step, p.timestamp_ms)), max_points)

    def histories(self, job_id: str) -> dict[str, list[tuple[int, float]]]:
        """Every point of every metric as (step, value), in order of steps, nothing left out."""
        return {
            key: sorted(
                (point.step, point.value)
                for point in retrying(partial(self._client.get_metric_history, job_id, key), job_id)
            )
            for key in self._run(job_id).data.metrics
        }

    def histories_of(
        self, job_ids: Sequence[str], key: str, settled: Collection[str] = ()
    ) -> dict[str, History]:
        """The history of one metric of each of many runs; runs without points are absent.

        Args:
            job_ids: of the runs.
            key: of the metric.
            settled: those of completed jobs, whose histories change no more and are remembered.

        Raises:
            UnknownNameError: there is no such metric, and none of the runs has it.
        """
        for job_id in job_ids:
            require_job_id(job_id)
        read = partial(read_histories, self.tracking_uri, self._client, key=key)
        found = self._histories.read(job_ids, key, settled, read)
        if not found and not (key in JOB_METRICS or key.startswith(SYSTEM_METRICS_PREFIX)):
            raise UnknownNameError("key", key, JOB_METRICS)
        return found

    def tags(self, job_id: str) -> dict[str, str]:
        """All tags of the job's run."""
        self.get(job_id)
        return dict(self._run(job_id).data.tags)

    def upload(self, job_id: str, source: Path, folder: str = "", *, verify: bool = False) -> str:
        """Store a file as an artifact; returns its artifact path.

        Args:
            job_id: the job.
            source: the file.
            folder: artifact folder that receives it.
            verify: read it back and compare.
        """
        return self._files.upload(self._artifacts(job_id), source, folder, verify=verify)

    def upload_folder(self, job_id: str, source: Path) -> None:
        """Store all files below a folder as artifacts, at the top."""
        self._files.upload_folder(self._artifacts(job_id), source)

    def download(self, job_id: str, artifact_path: str, destination: Path) -> Path:
        """Fetch an artifact below `destination`, an existing directory."""
        return self._files.download(self._artifacts(job_id), artifact_path, destination)

    def list_artifacts(self, job_id: str, folder: str = "") -> list[str]:
        """Artifact paths directly in a folder, sorted."""
        return self._files.names(self._artifacts(job_id), folder)

    def delete_artifact(self, job_id: str, artifact_path: str) -> None:
        """Delete one artifact; one that does not exist is fine."""
        self._files.delete(self._artifacts(job_id), artifact_path)

    def _artifacts(self, job_id: str) -> str:
        return self.get(job_id).artifact_uri

    def _run(self, job_id: str) -> Run:
        """The run with its params, whoever's it is; deleted ones are unknown."""
        require_job_id(job_id)
        run = retrying(lambda: self._client.get_run(job_id), job_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise UnknownJobError(job_id)
        return run

    def _log(
        self,
        job_id: str,
        *,
        metrics: Sequence[MlflowMetric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        own_params = [Param(key, value) for key, value in (params or {}).items()]
        own_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        self._write(job_id, lambda: self._client.log_batch(job_id, metrics, own_params, own_tags))

    def _claim(self, run_id: str, claim: str, holder: str) -> bool:
        """Claim something of a run; True for exactly one of the holders that try.

        Whoever finds it claimed shows it on the run too: the one who won may have died before.
        """
        require_job_id(run_id)
        row = self._reader.get(run_id)
        held, ledger = row.claims.get(claim), row.tags.get(Tag.LEDGER)
        if held is None and ledger:
            held = self._ledger.claim(ledger, f"{run_id}.{claim}", holder)
            if held is not None:
                self.set_tags(run_id, {f"{CLAIM_TAG}{claim}": held})
        if held is None:
            held = self._claim_by_param(run_id, f"{CLAIM_PARAM}{claim}", holder)
        return held == holder

    def _claim_by_param(self, run_id: str, key: str, holder: str) -> str:
        """As releases before 0.2 did, for their runs; returns who holds it."""
        try:
            retrying(lambda: self._client.log_param(run_id, key, holder), run_id)
        except StoreUnavailableError:
            raise
        except StoreError:
            params: dict[str, str] = self._run(run_id).data.params
            if key not in params:
                raise
            return params[key]
        return holder

    def _signature(self, run_id: str, request: str) -> dict[str, str]:
        """The tag that lets servers with this token train a run."""
        return {Tag.SIGNATURE: self.signer.sign(run_id, request)} if self.signer.signs else {}

    def _write(self, job_id: str, call: Callable[[], object]) -> None:
        """Write to a run; a refusal is checked for its commonest cause, that the job is gone."""
        require_job_id(job_id)
        try:
            retrying(call, job_id)
        except StoreUnavailableError:
            raise
        except StoreError:
            self._run(job_id)
            raise


def _reader(tracking_uri: str, client: MlflowClient) -> RunReader:
    return HttpReader(client) if tracking_uri.startswith("http") else SqlReader(tracking_uri)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
