"""Leads sweeps: makes the next trial while there is room, prunes, and sees to the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, Final

from grpo.errors import ConfigError
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.leader import Leader
from grpo_platform.jobs.runner import Runner
from grpo_platform.registry.promotion import Promoter
from grpo_platform.sweeps.finalize import complete
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, TrialSeed, best_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.jobs import JobStore

__all__ = ["SweepRunner"]

_TWENTIETHS: Final = 20


class SweepRunner(Leader[SweepRecord, TrialSeed]):
    """The sweeps of one server. `submit`, `stop` and `resume` are for any thread.

    Args:
        sweeps: in MLflow.
        jobs: of the same store.
        runner: takes the trials.
        promoter: decides about the best one.
        max_timesteps: ceiling of one trial.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        sweeps: SweepStore,
        jobs: JobStore,
        runner: Runner,
        promoter: Promoter,
        max_timesteps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sweeps, runner, clock)
        self._sweeps = sweeps
        self._jobs = jobs
        self._promoter = promoter
        self._ceiling = max_timesteps

    def submit(self, request: SweepRequest) -> SweepRecord:
        """Accept a sweep that was checked."""
        sweep = self._sweeps.create(request)
        self._wake.set()
        return sweep

    def resume(self, sweep_id: str) -> None:
        """Take a stopped or failed sweep up again.

        Raises:
            UnknownSweepError: no such sweep.
            ConflictError: it is completed, or not finished.
        """
        self._sweeps.resume(sweep_id)
        self._wake.set()

    def _advance(self, sweep: SweepRecord) -> None:
        trials = self._sweeps.trials(sweep)
        seeds = [seed for trial in trials for seed in trial.seeds]
        if sweep.request_error is not None:
            self._fail(sweep, seeds, sweep.request_error)
            return
        if self._publish_drafts(seeds) or self._stopped(sweep, seeds):
            return
        waiting = [trial for trial in trials if trial.waiting_in(sweep)]
        lacking = [trial for trial in trials if trial.lacks_seeds and not trial.is_over]
        ended = not waiting and not lacking and all(trial.ended for trial in trials)
        if len(trials) >= sweep.request.n_trials and ended:
            self._end(sweep, partial(complete, self._sweeps, self._promoter, sweep, trials))
            return
        self._log_best(sweep, trials)
        self._stop_in_vain(sweep, trials)
        self._prune(sweep, trials)
        room = sweep.request.max_concurrent_trials - sum(not trial.ended for trial in trials)
        self._resume_waiting(sweep, waiting, room)
        try:
            for trial in lacking:  # its server died while it made them
                self._make_seeds(sweep, trial.number, trial.params, len(trial.seeds))
            if not waiting and room > 0 and len(trials) < sweep.request.n_trials:
                self._make_next(sweep, trials)
        except (ConfigError, InvalidRequestError) as error:
            self._fail(sweep, seeds, str(error))

    def _resume_waiting(
        self, sweep: SweepRecord, waiting: Sequence[TrialRecord], room: int
    ) -> None:
        for trial in waiting:
            if trial.ended:  # else it has its place already
                if room <= 0:
                    continue
                room -= 1
            for seed in trial.waiting_in(sweep):
                self._runner.resume(seed.job_id)

    def _make_next(self, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> None:
        from grpo_platform.sweeps.sampling import propose  # Optuna: only where there are sweeps

        request = sweep.request
        params = propose(
            request.space,
            [trial.seen() for trial in trials if trial.params],
            seed=request.seed,
            number=len(trials),
            sampler=request.sampler,
            maximize=request.direction == "maximize",
        )
        self._make_seeds(sweep, len(trials), params, 0)
        self._wake.set()  # perhaps there is room for another

    def _make_seeds(
        self, sweep: SweepRecord, number: int, params: Mapping[str, Any], first: int
    ) -> None:
        """Queue the jobs of a trial, from one of its seeds on.

        The claim of the first seed decides what the trial tries: where another server makes the
        trial at the same moment, who comes later makes no job before it has read that.
        """
        request = sweep.request
        seeds = request.trial_seeds[first:]
        name = request.model_name_for(sweep.sweep_id)
        with self._runner.room(len(seeds)):
            for place, seed in enumerate(seeds, first):
                called = f"trial {number}" + (f", seed {seed}" if request.seeds else "")
                job = self._sweeps.claim_job(
                    sweep.sweep_id,
                    number * len(request.trial_seeds) + place,
                    request.trial(params, name, self._ceiling, seed),
                    called,
                )
                if job is not None:
                    self._jobs.publish(job)
                    self._runner.enqueue(job)
                elif place == 0:
                    return

    def _stop_in_vain(self, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> None:
        """Stop what still trains of a trial that failed or was pruned."""
        for trial in trials:
            if trial.is_over and not trial.ended and not trial.waiting_in(sweep):
                self._stop_trial(trial, pruned=trial.state == "pruned")

    def _stop_trial(self, trial: TrialRecord, *, pruned: bool) -> None:
        going = [seed for seed in trial.seeds if not seed.ended]
        for seed in going if pruned else ():
            self._sweeps.mark_pruned(seed.job_id)
        self._stop_members(going)

    def _log_best(self, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
        best = best_of(trials, sweep.request)
        if best is not None and best.value is not None and best.value != sweep.best_value:
            completed = sum(trial.value is not None for trial in trials)
            self._sweeps.log_best(sweep.sweep_id, sweep.request.metric, best.value, completed)

    def _prune(self, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
        from grpo_platform.sweeps.sampling import should_prune

        request = sweep.request
        running = [trial for trial in trials if trial.state == "running" and not trial.lacks_seeds]
        done = [trial for trial in trials if trial.state == "completed"]
        if request.pruner == "none" or len(done) < 5 or not running:
            return
        past = [trial.seen(self._course(request, trial)) for trial in done]
        for trial in running:
            now = trial.seen(self._course(request, trial))
            maximize = request.direction == "maximize"
            if now.intermediate and should_prune(request.space, past, now, maximize=maximize):
                self._stop_trial(trial, pruned=True)

    def _course(self, request: SweepRequest, trial: TrialRecord) -> dict[int, float]:
        """The metric while the trial trained, by twentieths of its budget.

        The mean over the seeds, where all of them are: some alone may be the good or the bad ones.
        """
        jobs = [seed.job for seed in trial.seeds if seed.job is not None]
        config = jobs[0].request.config
        key = request.metric
        if key.startswith("eval/") and config.eval_freq == 0:
            key = "rollout/ep_len_mean" if "len" in key else "rollout/ep_rew_mean"
        settled = [job.job_id for job in jobs if job.status is JobStatus.COMPLETED]
        histories = self._jobs.histories_of([job.job_id for job in jobs], key, settled)
        courses = []
        for found in histories.values():
            at = found.steps * _TWENTIETHS // config.total_timesteps
            courses.append(dict(zip(at.tolist(), found.values.tolist(), strict=True)))
        if len(courses) < trial.n_seeds:
            return {}
        common = set(courses[0]).intersection(*courses)
        return {at: fmean(course[at] for course in courses) for at in common}
