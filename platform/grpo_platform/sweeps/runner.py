"""Leads sweeps: makes the next trial while there is room, prunes, and sees to the end."""

import time
from collections.abc import Callable
from typing import Final

from grpo.errors import ConfigError
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.jobs.leader import Leader
from grpo_platform.jobs.runner import Runner
from grpo_platform.registry.promotion import Promoter
from grpo_platform.sweeps.finalize import complete
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, best_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import HistoryPoint

__all__ = ["SweepRunner"]

_TWENTIETHS: Final = 20


class SweepRunner(Leader[SweepRecord, TrialRecord]):
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
        self._courses: dict[str, dict[int, float]] = {}

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

    def _forget_others(self, unfinished: list[SweepRecord]) -> None:
        super()._forget_others(unfinished)
        trials = {job_id for sweep in unfinished for job_id in sweep.trial_jobs.values()}
        self._courses = {job: self._courses[job] for job in self._courses.keys() & trials}

    def _advance(self, sweep: SweepRecord) -> None:
        trials = self._sweeps.trials(sweep)
        if sweep.request_error is not None:
            self._fail(sweep, trials, sweep.request_error)
            return
        if self._publish_drafts(trials) or self._stopped(sweep, trials):
            return
        waiting = [trial for trial in trials if trial.waits_in(sweep)]
        ended = not waiting and all(trial.ended for trial in trials)
        if len(trials) >= sweep.request.n_trials and ended:
            complete(self._sweeps, self._promoter, sweep, trials)
            return
        self._log_best(sweep, trials)
        self._prune(sweep, trials)
        room = sweep.request.max_concurrent_trials - sum(not trial.ended for trial in trials)
        for trial in waiting[: max(0, room)]:
            self._runner.resume(trial.job_id)
        if not waiting and room > 0 and len(trials) < sweep.request.n_trials:
            self._make_next(sweep, trials)

    def _make_next(self, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
        from grpo_platform.sweeps.sampling import propose  # Optuna: only where there are sweeps

        request, number = sweep.request, len(trials)
        try:
            params = propose(
                request.space,
                [trial.seen() for trial in trials if trial.job is not None],
                seed=request.seed,
                number=number,
                sampler=request.sampler,
                maximize=request.direction == "maximize",
            )
            name = request.model_name_for(sweep.sweep_id)
            job_request = request.trial(params, name, self._ceiling)
            with self._runner.room():
                job = self._sweeps.claim_job(sweep.sweep_id, number, job_request, f"trial {number}")
                if job is not None:
                    self._jobs.publish(job)
                    self._runner.enqueue(job)
        except (ConfigError, InvalidRequestError) as error:
            self._fail(sweep, trials, str(error))
            return
        self._wake.set()  # perhaps there is room for another

    def _log_best(self, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
        best = best_of(trials, sweep.request)
        if best is not None and best.value is not None and best.value != sweep.best_value:
            completed = sum(trial.value is not None for trial in trials)
            self._sweeps.log_best(sweep.sweep_id, sweep.request.metric, best.value, completed)

    def _prune(self, sweep: SweepRecord, trials: list[TrialRecord]) -> None:
        from grpo_platform.sweeps.sampling import should_prune

        request = sweep.request
        running = [trial for trial in trials if trial.state == "running" and trial.job is not None]
        done = [trial for trial in trials if trial.state == "completed"]
        if request.pruner == "none" or len(done) < 5 or not running:
            return
        for trial in done:  # which change no more
            if trial.job_id not in self._courses:
                self._courses[trial.job_id] = self._course(request, trial)
        past = [trial.seen(self._courses[trial.job_id]) for trial in done]
        for trial in running:
            now = trial.seen(self._course(request, trial))
            maximize = request.direction == "maximize"
            if now.intermediate and should_prune(request.space, past, now, maximize=maximize):
                self._sweeps.mark_pruned(trial.job_id)
                self._stop_job(trial.job_id)

    def _course(self, request: SweepRequest, trial: TrialRecord) -> dict[int, float]:
        """The metric while the trial trained, by twentieths of its budget."""
        assert trial.job is not None
        config = trial.job.request.config
        evaluated = request.metric.startswith("eval/")
        key = request.metric
        if evaluated and config.eval_freq == 0:
            key = "rollout/ep_len_mean" if "len" in key else "rollout/ep_rew_mean"
        points: list[HistoryPoint] = self._jobs.history(trial.job_id, key, 1000)
        return {p.step * _TWENTIETHS // config.total_timesteps: p.value for p in points}
