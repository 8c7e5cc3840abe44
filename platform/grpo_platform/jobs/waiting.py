"""The jobs known to wait, in order; the store holds the truth, this only avoids asking it."""

from grpo_platform.tracking.records import JobRecord

__all__ = ["WaitingJobs"]


class WaitingJobs:
    """First in, first out, by the time of submission."""

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._records)

    def put(self, record: JobRecord) -> None:
        """Add a job, or replace what is known of it."""
        self._records[record.job_id] = record

    def remove(self, job_id: str) -> None:
        """Forget a job, if it is known."""
        self._records.pop(job_id, None)

    def take(self) -> JobRecord:
        """Remove and return the job that waits longest.

        Raises:
            IndexError: none waits.
        """
        if not self._records:
            raise IndexError("no job waits")
        oldest = min(self._records.values(), key=lambda r: (r.start_time, r.job_id))
        return self._records.pop(oldest.job_id)

    def snapshot(self) -> dict[str, JobRecord]:
        """The jobs that are known now."""
        return dict(self._records)

    def reconcile(
        self,
        known: dict[str, JobRecord],
        queued: list[JobRecord],
        free: list[JobRecord],
        *,
        complete: bool,
    ) -> None:
        """Take what the store says.

        Args:
            known: `snapshot` before the store was read.
            queued: the oldest queued jobs in the store, oldest first.
            free: those of them that can be started.
            complete: whether `queued` are all that there are.
        """
        fresh = {record.job_id: record for record in free}
        for job_id, record in known.items():
            # beyond the last one that was read, nothing is known to have changed
            read = complete or record.start_time < queued[-1].start_time
            if read and job_id not in fresh:
                self.remove(job_id)
        self._records |= fresh
