"""What jobs wait for that a backend has no place for yet, written where every server reads it."""

import contextlib
from collections.abc import Mapping

from grpo_platform.errors import UnknownJobError
from grpo_platform.jobs.backend import Wait
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.names import Tag

__all__ = ["WaitMessages", "hopeless"]


def hopeless(waits: Mapping[str, Wait]) -> frozenset[str]:
    """Jobs that no machine there is can run."""
    return frozenset(job_id for job_id, wait in waits.items() if wait.hopeless)


class WaitMessages:
    """Remembers what was written last.

    Args:
        store: jobs in MLflow.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._told: dict[str, str] = {}

    def tell(self, waits: Mapping[str, Wait]) -> None:
        """Write what has changed.

        Raises:
            StoreError: the store refused, or is away; call it again.
        """
        for job_id in waits.keys() | self._told.keys():
            text = waits[job_id].message if job_id in waits else ""
            if text == self._told.get(job_id, ""):
                continue
            with contextlib.suppress(UnknownJobError):
                self._store.set_tags(job_id, {Tag.STATUS_MESSAGE: text})
            self._told[job_id] = text
        self._told = {job_id: text for job_id, text in self._told.items() if text}
