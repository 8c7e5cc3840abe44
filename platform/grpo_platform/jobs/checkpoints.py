"""A job's checkpoints in the artifact store: verified before they count, older ones pruned."""

import logging
import re
from pathlib import Path, PurePosixPath
from typing import Final

from grpo_platform.core.errors import StoreError, StoreUnavailableError
from grpo_platform.core.names import Tag
from grpo_platform.tracking.files import file_sha256
from grpo_platform.tracking.jobs import JobStore

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

_FOLDER: Final = "checkpoints"
_KEPT_BEFORE: Final = 1  # beside the newest, in case that one is damaged
_NAME: Final = re.compile(r"\d{12}-(?P<attempt>\d+)-(?P<sha256>[0-9a-f]{64})\.npz")


class Checkpoints:
    """Reads and writes the checkpoints of one job.

    A file's name is `<timesteps>-<attempt>-<SHA-256>.npz`: unique, in order, and its own proof.

    Args:
        jobs: the store.
        job_id: the job.
        attempt: number of the attempt that writes.
    """

    def __init__(self, jobs: JobStore, job_id: str, attempt: int) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._attempt = attempt

    def save(self, path: Path, timesteps: int) -> None:
        """Store a local checkpoint, verify it, point to it, and prune; the local file is removed.

        The run's metric points up to the checkpoint must be stored already: a resumed training
        never repeats what came before.

        Raises:
            StoreError: it cannot be stored; the earlier one still counts.
        """
        digest = file_sha256(path)
        named = path.with_name(f"{timesteps:012d}-{self._attempt}-{digest}.npz")
        path.rename(named)
        try:
            artifact = self._jobs.upload(self._job_id, named, _FOLDER, verify=True)
            self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: artifact})
        except StoreError:
            named.rename(path)  # so that the caller can try again
            raise
        named.unlink()
        self._prune([path for path in self._stored() if path != artifact][:-_KEPT_BEFORE])

    def fetch(self, pointed: str | None, folder: Path) -> Path | None:
        """Download the newest checkpoint that is whole, starting with the one pointed to.

        Args:
            pointed: artifact path from the run's tag.
            folder: existing local directory that receives the file.

        Raises:
            StoreUnavailableError: the store is away.
        """
        if pointed is None:
            return None
        stored = self._stored()
        for artifact in sorted(stored, key=lambda path: (path == pointed, path), reverse=True):
            try:
                path = self._jobs.download(self._job_id, artifact, folder)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                _log.warning("Checkpoint %s cannot be read: %s", artifact, error)
                continue
            match = _NAME.fullmatch(PurePosixPath(artifact).name)
            if match and file_sha256(path) == match["sha256"]:
                return path
            _log.warning("Checkpoint %s is damaged; an earlier one is used.", artifact)
            self._prune([artifact])
        return None

    def remove_all(self) -> None:
        """Delete every checkpoint: the job is completed and has no use for them."""
        self._jobs.set_tags(self._job_id, {Tag.CHECKPOINT: ""})
        self._prune(self._stored())

    def _stored(self) -> list[str]:
        found = self._jobs.list_artifacts(self._job_id, _FOLDER)
        return sorted(path for path in found if _NAME.fullmatch(PurePosixPath(path).name))

    def _prune(self, artifacts: list[str]) -> None:
        for artifact in artifacts:
            try:
                self._jobs.delete_artifact(self._job_id, artifact)
            except StoreError as error:
                _log.warning("Checkpoint %s cannot be deleted: %s", artifact, error)
