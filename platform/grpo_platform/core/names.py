"""Every tag, param and metric key that a job's run carries, in one place."""

from typing import Final

__all__ = [
    "BASELINE_METRICS",
    "CLAIMS_EXPERIMENT",
    "CLAIM_PARAM",
    "CLAIM_TAG",
    "CLOCK_METRICS",
    "EXPERIMENT",
    "JOB_METRICS",
    "JOB_READY",
    "LATEST",
    "SYSTEM_METRICS_PREFIX",
    "ExperimentMetric",
    "Metric",
    "Tag",
    "attempt_claim",
    "env_tag",
    "idempotency_tag",
    "model_tag",
    "seed_claim",
    "seeds_tag",
    "trial_claim",
    "trials_tag",
]

EXPERIMENT: Final = "grpo"
"""Experiment that holds the jobs made over the API."""

CLAIMS_EXPERIMENT: Final = "grpo-claims"
"""Experiment of the ledgers, see `ledger`."""

JOB_READY: Final = "1"
"""Value of the tags whose presence is what counts."""

LATEST: Final = "latest"
"""What stands for the id of the newest job, experiment, sweep or comparison."""


class Tag:
    """Tags of a run."""

    JOB: Final = "grpo.job"
    """Marks the runs that are jobs; set in the last call that makes one."""
    CREATING: Final = "grpo.creating"
    """Marks, without `JOB`, a run that is being made a job."""
    ARTIFACTS: Final = "grpo.artifacts"
    """Of the jobs' experiment: text of the marker in its folder."""
    LEDGER: Final = "grpo.ledger"
    """Of a job or a parent of jobs: run that holds its claims. Of the ledgers' experiment: the
    newest one."""
    PROBED: Final = "grpo.probed"
    """Of a ledger: when a server last tried whether the store takes writes, unix milliseconds."""
    REQUEST: Final = "grpo.request"
    """`JobRequest` as JSON."""
    SIGNATURE: Final = "grpo.signature"
    """Of a job, sweep or experiment that a server with a token queued; see `Signer`."""
    ATTEMPT: Final = "grpo.attempt"
    """Number of the attempt that a worker may claim next or holds now."""
    CRASHES: Final = "grpo.crashes"
    """Workers lost so far."""
    WORKER: Final = "grpo.worker"
    """`host:pid:start_time` of the worker that holds the job."""
    HEARTBEAT: Final = "grpo.heartbeat"
    """When the worker last said it lives, unix milliseconds."""
    TIMESTEPS: Final = "grpo.timesteps"
    """Environment timesteps done, fresher than the thinned metric."""
    SECONDS: Final = "grpo.seconds"
    """Seconds trained so far, over all attempts, with what was lost of them."""
    STOPPED_BY: Final = "grpo.stopped_by"
    """What completed the job before its budget was used: `max_seconds` or `target_return`."""
    SUSPECTED: Final = "grpo.suspected"
    """When a server last suspected that the worker is lost, unix milliseconds."""
    STOP_REQUESTED: Final = "grpo.stop_requested"
    ERROR: Final = "grpo.error"
    """Why the job failed, for the user."""
    STATUS_MESSAGE: Final = "grpo.status_message"
    """What a queued job waits for, for the user; empty where there is nothing to say."""
    CHECKPOINT: Final = "grpo.checkpoint"
    """Artifact path of the newest verified checkpoint."""
    CHECKPOINT_WANTED: Final = "grpo.checkpoint_wanted"
    """When one was last asked for beside those that the job makes, unix milliseconds."""
    RESUME_EXACT: Final = "resume_exact"
    """`true` if a resumed run equals one that was never interrupted, bit for bit, else `false`."""
    BRANCHING: Final = "grpo.branching"
    """How visited states are reached again: `exact`, `replay` or `none`."""
    BRANCHING_REASON: Final = "grpo.branching_reason"
    """Why so, in a sentence."""
    VERDICT: Final = "grpo.verdict"
    """Whether the policy is better than random actions and than its start: `Verdict` as JSON."""
    HINTS: Final = "grpo.hints"
    """What goes wrong in the training, and what to try: JSON, by what it is."""
    MODEL_VERSION: Final = "grpo.model_version"
    PROMOTED: Final = "grpo.promoted"
    PROMOTION_REASON: Final = "grpo.promotion_reason"
    """Why the version became champion or not, and who stays it, in sentences."""
    DECISION: Final = "grpo.decision"
    """The same with its figures: `registry.records.Decision` as JSON."""
    SWEEP: Final = "grpo.sweep"
    """Marks the runs that are sweeps; set in the last call that makes one."""
    SWEEP_REQUEST: Final = "grpo.sweep.request"
    """`SweepRequest` as JSON."""
    SWEEP_RESUMING: Final = "grpo.sweep.resuming"
    """Trials of a resumed sweep that are to go on: JSON, their attempts then by their numbers."""
    TRIAL: Final = "grpo.trial"
    """Marks the jobs that are trials of a sweep."""
    TRIAL_PRUNED: Final = "grpo.trial.pruned"
    """`true` where the sweep gave the trial up."""
    EXPERIMENT: Final = "grpo.experiment"
    """Marks the runs that are experiments; set in the last call that makes one."""
    EXPERIMENT_REQUEST: Final = "grpo.experiment.request"
    """`ExperimentRequest` as JSON."""
    EXPERIMENT_RESUMING: Final = "grpo.experiment.resuming"
    """Seeds of a resumed experiment that are to go on: JSON, their jobs' attempts then by seed."""
    EXPERIMENT_SELECTION: Final = "grpo.experiment.selection"
    """Which seed's version was chosen, how, and how it does on fresh episodes, as JSON."""
    EXPERIMENT_SEED: Final = "grpo.experiment.seed"
    """Marks the jobs that train a seed of an experiment."""
    COMPARISON: Final = "grpo.comparison"
    """Marks the runs that keep a comparison; set in the last call that makes one."""
    COMPARISON_SUMMARY: Final = "grpo.comparison.summary"
    """What lists show of a comparison, JSON."""
    PARENT_RUN: Final = "mlflow.parentRunId"
    """Run that the MLflow UI nests this one under."""
    SEED: Final = "grpo.seed"
    ENVIRONMENT_SPEC: Final = "grpo.environment.spec"
    ENVIRONMENT_HASH: Final = "grpo.environment.sha256"
    PACKAGES: Final = "grpo.packages"
    PYTHON: Final = "grpo.python"
    PLATFORM: Final = "grpo.platform"
    REPRODUCE: Final = "grpo.reproduce"
    """Command that trains the same again."""
    REPRODUCES: Final = "grpo.reproduces"
    """Of a reproduction: the run that it repeats."""
    REPRODUCED_BY: Final = "grpo.reproduced_by"
    """Of a run: its newest reproduction."""
    REPRODUCTION_VERDICT: Final = "grpo.reproduction_verdict"
    """Of a reproduction: `identical`, `equivalent` or `different`."""
    REPLAYS: Final = "grpo.replays"
    """Of a run that is no job: the version whose environment of before and now it compares."""
    EVALUATES: Final = "grpo.evaluates"
    """Of a run that is no job: the model version that it evaluates, `name/version`."""
    GIT_DIRTY: Final = "grpo.git.dirty"
    GIT_COMMIT: Final = "mlflow.source.git.commit"
    GIT_BRANCH: Final = "mlflow.source.git.branch"
    GIT_REPOSITORY: Final = "mlflow.source.git.repoURL"
    SOURCE_NAME: Final = "mlflow.source.name"
    SOURCE_TYPE: Final = "mlflow.source.type"
    USER: Final = "mlflow.user"
    NOTE: Final = "mlflow.note.content"
    """Description of the run that the MLflow UI shows, Markdown."""


class Metric:
    """Metric keys; Stable-Baselines3's namespaces, step = environment timesteps."""

    REWARD: Final = "rollout/reward"
    """Reward trained on, mean over the members, per time index."""
    EPISODE_RETURN: Final = "rollout/ep_rew_mean"
    EPISODE_LENGTH: Final = "rollout/ep_len_mean"
    DEGENERATE_FRACTION: Final = "rollout/degenerate_fraction"
    SIBLING_FRACTION: Final = "rollout/sibling_fraction"
    SHARED_VARIANCE: Final = "rollout/shared_variance"
    POLICY_LOSS: Final = "train/policy_loss"
    VALUE_LOSS: Final = "train/value_loss"
    ENTROPY: Final = "train/entropy"
    APPROX_KL: Final = "train/approx_kl"
    CLIP_FRACTION: Final = "train/clip_fraction"
    GRAD_NORM: Final = "train/grad_norm"
    EXPLAINED_VARIANCE: Final = "train/explained_variance"
    RETURN_STD: Final = "train/return_std"
    N_UPDATES: Final = "train/n_updates"
    TIMESTEPS: Final = "time/total_timesteps"
    FPS: Final = "time/fps"
    """Environment timesteps per second of this attempt so far."""
    TIME_ELAPSED: Final = "time/time_elapsed"
    """Seconds trained, over all attempts."""
    EVAL_MEAN: Final = "eval/mean_reward"
    EVAL_STD: Final = "eval/std_reward"
    EVAL_IQM: Final = "eval/iqm"
    EVAL_CI_LOW: Final = "eval/ci_low"
    EVAL_CI_HIGH: Final = "eval/ci_high"
    EVAL_LENGTH: Final = "eval/mean_ep_length"
    OVER_RANDOM: Final = "eval/over_random"
    """By how much the policy's mean return exceeds that of random actions on the same episodes."""
    OVER_RANDOM_CI_LOW: Final = "eval/over_random_ci_low"
    OVER_RANDOM_CI_HIGH: Final = "eval/over_random_ci_high"
    OVER_START: Final = "eval/over_start"
    """The same of the policy that training started from."""
    OVER_START_CI_LOW: Final = "eval/over_start_ci_low"
    OVER_START_CI_HIGH: Final = "eval/over_start_ci_high"


class ExperimentMetric:
    """Metric keys of an experiment's parent run, over the seeds that completed."""

    COMPLETED: Final = "experiment/completed"
    """Number of them."""
    IQM: Final = "experiment/iqm"
    """Interquartile mean of the evaluations."""
    CI_LOW: Final = "experiment/ci_low"
    CI_HIGH: Final = "experiment/ci_high"
    MEAN: Final = "experiment/mean"
    OVER_RANDOM: Final = "experiment/over_random"
    """Mean difference of the evaluations from random actions."""
    OVER_RANDOM_CI_LOW: Final = "experiment/over_random_ci_low"
    OVER_RANDOM_CI_HIGH: Final = "experiment/over_random_ci_high"
    OVER_START: Final = "experiment/over_start"
    """The same from what the trainings started from."""
    OVER_START_CI_LOW: Final = "experiment/over_start_ci_low"
    OVER_START_CI_HIGH: Final = "experiment/over_start_ci_high"
    AREA: Final = "experiment/area_under_curve"
    """Interquartile mean of the learning curves' mean heights."""
    REACHED: Final = "experiment/reached"
    """Number of them that reached the threshold."""
    STEPS: Final = "experiment/steps_to_threshold"
    """Median of the timesteps that they took to it."""


JOB_METRICS: Final = frozenset(value for key, value in vars(Metric).items() if key.isupper())
"""Every key in `Metric`."""

BASELINE_METRICS: Final = frozenset(key for key in JOB_METRICS if key.startswith("eval/over_"))
"""Those that compare a policy with its baselines; runs of releases before 0.2 have none."""

SYSTEM_METRICS_PREFIX: Final = "system/"

CLAIM_PARAM: Final = "claim."
"""Prefix of the params in which releases before 0.2 kept claims; their runs go on with them."""

CLAIM_TAG: Final = "grpo.claim."
"""Prefix of the tags that show the claims on a run; what decides is its ledger."""

CLOCK_METRICS: Final = frozenset({Metric.FPS, Metric.TIME_ELAPSED})
"""Metrics that differ between two equal runs, beside those under `SYSTEM_METRICS_PREFIX`."""


def attempt_claim(attempt: int) -> str:
    """What the worker of an attempt claims of its job."""
    return str(attempt)


def env_tag(env_name: str) -> str:
    """Key of the tag that marks the jobs of an environment.

    The name is in the key, since MLflow's tables have an index for keys and none for values.
    """
    return f"grpo.env/{env_name}"


def model_tag(model_name: str) -> str:
    """Key of the tag that marks the jobs that write a registered model."""
    return f"grpo.model/{model_name}"


def idempotency_tag(digest: str) -> str:
    """Key of the tag that marks the job created under an idempotency key."""
    return f"grpo.idempotency/{digest}"


def trial_claim(number: int) -> str:
    """What the job of a trial claims of its sweep; a number is given away once."""
    return f"trial.{number}"


def trials_tag(sweep_id: str) -> str:
    """Key of the tag that marks the trials of a sweep."""
    return f"grpo.trials/{sweep_id}"


def seed_claim(seed: int) -> str:
    """What the job of a seed claims of its experiment; a seed is given away once."""
    return f"seed.{seed}"


def seeds_tag(experiment_id: str) -> str:
    """Key of the tag that marks the jobs of an experiment."""
    return f"grpo.seeds/{experiment_id}"
