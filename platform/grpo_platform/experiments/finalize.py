"""The end of an experiment: what its seeds came to together, and which version serves."""

from collections.abc import Sequence

from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.records import ExperimentRecord, SeedRecord
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.registry.promotion import Promoter
from grpo_platform.tracking.jobs import JobStore

__all__ = ["complete", "outcome"]


def complete(
    experiments: ExperimentStore,
    jobs: JobStore,
    promoter: Promoter,
    experiment: ExperimentRecord,
    seeds: Sequence[SeedRecord],
) -> None:
    """Describe an experiment whose seeds have all ended, and make it terminal; again is fine.

    It is called again where a server dies in it, and after a retry: what it writes replaces what
    was there. Once it has called `experiments.finish`, it is not called any more.

    Args:
        experiments: where the parent run is: `upload_file`, `log_points`, `describe`, `finish`.
        jobs: of the same store, with the histories of the seeds.
        promoter: decides about the version that is to serve, and has the registry.
        experiment: that has ended.
        seeds: all of them, in order; a state is `completed`, `failed` or `stopped`.

    Raises:
        StoreError: the store refused, or is away; it is called again.
    """
    status, message = outcome(seeds)
    experiments.finish(experiment.experiment_id, status, message)


def outcome(seeds: Sequence[SeedRecord]) -> tuple[JobStatus, str | None]:
    """What an experiment comes to whose seeds have ended: its status, and why it is no other."""
    failed = [seed for seed in seeds if seed.state == "failed"]
    stopped = [seed for seed in seeds if seed.state == "stopped"]
    if failed:
        said = next((s.job.error_message for s in failed if s.job and s.job.error_message), None)
        reason = f"seed {failed[0].seed}: {said}" if said else "their runs were deleted"
        return JobStatus.FAILED, (
            f"{len(failed)} of {len(seeds)} seeds failed ({reason}). Retry the experiment to train "
            "them again."
        )
    if stopped:
        return JobStatus.STOPPED, (
            f"{len(stopped)} of {len(seeds)} seeds were stopped. Resume the experiment to go on "
            "with them."
        )
    return JobStatus.COMPLETED, None
