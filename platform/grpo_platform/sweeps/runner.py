"""Leads sweeps: makes the next trial while there is room, prunes, and sees to the end.

Nothing is remembered here that the store does not hold. Two servers may lead one sweep for a
moment; the claim of each trial's number makes that harmless.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from grpo.errors import ConfigError
from grpo_platform.core.errors import (
    ConflictError,
    InvalidRequestError,
    PlatformError,
    QueueFullError,
    StoreUnavailableError,
    UnknownJobError,
    UnknownSweepError,
)
from grpo_platform.core.process import liveness, worker_name
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.recovery import Observer
from grpo_platform.jobs.runner import Runner
from grpo_platform.registry.promotion import Promoter
from grpo_platform.sweeps.finalize import complete
from grpo_platform.sweeps.records import SweepRecord, TrialRecord, best_of
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import HistoryPoint

__all__ = ["SweepRunner"]

_log = logging.getLogger(__name__)

_BUSY_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 3.0
_TWENTIETHS: Final = 20


class SweepRunner:
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
        self._sweeps = sweeps
        self._jobs = jobs
        self._runner = runner
        self._promoter = promoter
        self._ceiling = max_timesteps
        self._clock = clock
        self._owner = worker_name(os.getpid())
        self._observer = Observer(liveness, sweeps.takes_beats, clock)
        self._own_beats: dict[str, float] = {}
        self._courses: dict[str, dict[int, float]] = {}
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeps", daemon=True)

    def start(self) -> None:
        """Start this object's thread."""
        self._thread.start()

    def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Lead no more; the next start goes on."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def submit(self, request: SweepRequest) -> SweepRecord:
        """Accept a sweep that was checked."""
        sweep = self._sweeps.create(request)
        self._wake.set()
        return sweep

    def stop(self, sweep_id: str) -> None:
        """Stop a sweep and its running trials; it can be resumed.

        Raises:
            UnknownSweepError: no such sweep.
            ConflictError: it is finished.
        """
        sweep = self._sweeps.request_stop(sweep_id)
        self._stop_trials(self._sweeps.trials(sweep))
        self._wake.set()

    def resume(self, sweep_id: str) -> None:
        """Take a stopped or failed sweep up again.

        Raises:
            UnknownSweepError: no such sweep.
            ConflictError: it is completed, or not finished.
        """
        self._sweeps.resume(sweep_id)
        self._wake.set()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_BUSY_SECONDS if self.look() else _IDLE_SECONDS)
            self._wake.clear()

    def look(self) -> bool:
        """Do what is due for each sweep; returns whether there is one. The thread calls this."""
        try:
            return self._step()
        except StoreUnavailableError as error:
            _log.warning("Sweeps wait for the store: %s", error)
            self._observer.store_was_away()
        except Exception:  # noqa: BLE001 - sweeps must go on being led
            _log.exception("The sweep runner goes on after an error.")
        return False

    def _step(self) -> bool:
        unfinished = [s for s in self._sweeps.unfinished() if self._sweeps.may_lead(s)]
        trials = {job_id for sweep in unfinished for job_id in sweep.trial_jobs.values()}
        self._courses = {job: self._courses[job] for job in self._courses.keys() & trials}
        others = [s for s in unfinished if s.owner not in (None, self._owner)]
        lost = {sweep.sweep_id for sweep in self._observer.lost(others)}
        for sweep in unfinished:
            if self._closing:
                break
            try:
                if self._lead(sweep, lost):
                    self._advance(sweep)
            except StoreUnavailableError:
                raise
            except (ConflictError, QueueFullError, UnknownJobError, UnknownSweepError) as error:
                _log.info("Sweep %s waits: %s", sweep.sweep_id, error)
            except Exception as error:  # noqa: BLE001 - the other sweeps must be led
                _log.exception("Sweep %s cannot go on.", sweep.sweep_id)
                self._give_up(sweep, error)
        for job_id in self._sweeps.orphans():
            self._stop_job(job_id)
        return bool(unfinished)

    def _give_up(self, sweep: SweepRecord, error: Exception) -> None:
        """End a sweep that would fail again at each look; it can be resumed."""
        with contextlib.suppress(PlatformError):
            self._stop_trials(self._sweeps.trials(sweep))
        with contextlib.suppress(PlatformError):
            said = f"The sweep cannot go on ({type(error).__name__}: {str(error)[:500]})."
            said += " The server's log says more; resume it once that is mended."
            self._sweeps.finish(sweep.sweep_id, JobStatus.FAILED, said)

    def _lead(self, sweep: SweepRecord, lost: set[str]) -> bool:
        """Whether this server leads the sweep; takes over from one that is lost."""
        if sweep.owner not in (None, self._owner) and sweep.sweep_id not in lost:
            return False
        if sweep.owner != self._owner or sweep.status is JobStatus.QUEUED:
            self._sweeps.start(sweep.sweep_id, self._owner)
            return True
        now = self._clock()
        if now - self._own_beats.get(sweep.sweep_id, -_BEAT_SECONDS) >= _BEAT_SECONDS:
            self._own_beats[sweep.sweep_id] = now
            self._sweeps.beat(sweep.sweep_id)
        return True

    def _advance(self, sweep: SweepRecord) -> None:
        trials = self._sweeps.trials(sweep)
        if sweep.request_error is not None:
            self._fail(sweep, trials, sweep.request_error)
            return
        for trial in trials:
            if trial.job is None and (job := self._sweeps.publish(trial.job_id)) is not None:
                self._runner.enqueue(job)
                return  # the next look sees it
        if sweep.stop_requested:
            self._stop_trials(trials)
            if all(trial.ended for trial in trials):
                self._sweeps.finish(sweep.sweep_id, JobStatus.STOPPED)
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
                job = self._sweeps.claim_trial(sweep, number, job_request)
                if job is not None:
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

    def _fail(self, sweep: SweepRecord, trials: list[TrialRecord], said: str) -> None:
        self._stop_trials(trials)
        self._sweeps.finish(sweep.sweep_id, JobStatus.FAILED, said)

    def _stop_trials(self, trials: list[TrialRecord]) -> None:
        for trial in trials:
            if not trial.ended:
                self._stop_job(trial.job_id)

    def _stop_job(self, job_id: str) -> None:
        # it may end, or be deleted, in this moment
        with contextlib.suppress(ConflictError, UnknownJobError):
            self._runner.stop(job_id)
