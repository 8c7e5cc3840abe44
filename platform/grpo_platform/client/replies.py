"""What the API answers, typed; docs/api.md says what each field means.

Written by `scripts/reply_types.py` from the server's schema.
"""

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "ActionOutcome",
    "AssertionResult",
    "Attribution",
    "Baseline",
    "BatchReply",
    "ComparedCurve",
    "ComparedEstimate",
    "ComparedNotice",
    "ComparedPair",
    "ComparedProfile",
    "ComparedSide",
    "Comparison",
    "ComparisonList",
    "ComparisonResult",
    "ComparisonSummary",
    "CurvePoint",
    "Decision",
    "DeletedComparison",
    "DeletedExperiment",
    "DeletedJob",
    "DeletedModel",
    "DeletedSuite",
    "EndedSession",
    "Environment",
    "EnvironmentList",
    "Estimate",
    "Evaluation",
    "Experiment",
    "ExperimentAnswer",
    "ExperimentHistory",
    "ExperimentList",
    "ExperimentReply",
    "ExperimentResults",
    "ExperimentSelection",
    "ExperimentSummary",
    "ExperimentVerdict",
    "Explanation",
    "FailedAssertion",
    "FailedEpisode",
    "FailureList",
    "FailureScenario",
    "FeatureAttribution",
    "Health",
    "Histogram",
    "InferenceReply",
    "Job",
    "JobConfig",
    "JobList",
    "JobLogs",
    "JobStatus",
    "JsonValue",
    "KeptState",
    "MetricHistory",
    "MetricPoint",
    "Model",
    "ModelItem",
    "ModelList",
    "ModelVersion",
    "Obeyed",
    "OutcomeEstimate",
    "Pair",
    "Probe",
    "ResumedJob",
    "Reward",
    "RewardList",
    "ScenarioResult",
    "Seed",
    "SeedJob",
    "SeedsEstimate",
    "ServedList",
    "ServedModel",
    "Serving",
    "Session",
    "StoppedJob",
    "Suite",
    "SuiteResult",
    "SuiteResultSummary",
    "Sweep",
    "SweepAnswer",
    "SweepList",
    "SweepSummary",
    "TrainBody",
    "TrainReply",
    "TrainRequest",
    "Trial",
    "TrialSeed",
    "ValueCollapse",
    "Verdict",
    "VersionResults",
    "Welcome",
]

JsonValue = Any


class OutcomeEstimate(TypedDict):
    """A mean with its 95 % interval."""

    estimate: float
    low: float
    high: float


class FailedAssertion(TypedDict):
    """An episode in which an assertion does not hold, with all that plays it again."""

    scenario: str
    episode: int
    start: int | None
    seed: int
    step: int
    value: float
    steps: int
    actions: list[Any]
    trace_sha256: str


class FeatureAttribution(TypedDict):
    """What one number of the observation counts for."""

    name: str
    value: float
    baseline: float
    attribution: float


class Baseline(TypedDict):
    """A policy that the trained one is compared with, on the first episodes of its evaluation."""

    episodes: int
    mean: float
    difference: float
    ci_low: float
    ci_high: float


class ComparedCurve(TypedDict):
    """Returns over timesteps."""

    steps: list[float]
    iqm: list[float]
    low: list[float]
    high: list[float]
    count: list[int]


class ComparedEstimate(TypedDict):
    """A figure with its interval."""

    estimate: float
    low: float
    high: float


class ComparedProfile(TypedDict):
    """Shares of a side's returns above each threshold."""

    thresholds: list[float]
    shares: list[float]
    low: list[float]
    high: list[float]


class Comparison(TypedDict):
    """Two versions on the same evaluation seeds; difference = candidate - champion."""

    champion: int
    episodes: int
    seed: int
    candidate_mean: float
    champion_mean: float
    difference: float
    ci_low: float
    ci_high: float
    equal: bool
    ended: Literal["evidence", "episodes", "seconds"] | None


class CurvePoint(TypedDict):
    """A metric over the seeds at one step."""

    step: float
    iqm: float
    ci_low: float
    ci_high: float
    seeds: int


class DeletedComparison(TypedDict):
    """The comparison is gone."""

    comparison_id: str
    message: str


class DeletedExperiment(TypedDict):
    """The experiment is gone."""

    experiment_id: str
    message: str


class DeletedJob(TypedDict):
    """The job is gone."""

    message: str
    job_id: str


class DeletedModel(TypedDict):
    """The model is gone."""

    message: str


class DeletedSuite(TypedDict):
    """The suite is gone."""

    message: str


class EndedSession(TypedDict):
    """It has ended."""

    message: str


class Estimate(TypedDict):
    """A figure with its interval."""

    estimate: float
    low: float
    high: float


class Evaluation(TypedDict):
    """Greedy evaluation on the environment's own reward and fixed seeds."""

    episodes: int
    mean: float
    std: float
    iqm: float
    ci_low: float
    ci_high: float
    interval_of: Literal["mean", "iqm"]


JobStatus = Literal["queued", "running", "completed", "failed", "stopped"]


class Seed(TypedDict):
    """One seed of an experiment."""

    seed: int
    job_id: str
    state: Literal["queued", "running", "completed", "failed", "stopped"]
    progress: float
    current_timesteps: int
    evaluation: float | None
    model_version: int | None
    area_under_curve: float | None
    steps_to_threshold: int | None
    error_message: str | None


class ExperimentAnswer(TypedDict):
    """What was asked for is under way."""

    experiment_id: str
    message: str


class SeedJob(TypedDict):
    """The job that trains a seed."""

    seed: int
    job_id: str


class SeedsEstimate(TypedDict):
    """An estimate over seeds with its 95 % interval."""

    estimate: float
    low: float
    high: float


class ValueCollapse(TypedDict):
    """Where an episode's value estimate fell most."""

    step: int
    before: float
    after: float
    window: int


class FailureScenario(TypedDict):
    """The failure is a scenario of the model now."""

    model_name: str
    scenario: str
    suite: dict[str, Any]


class Health(TypedDict):
    """How the server is doing."""

    status: Literal["healthy"]
    timestamp: str
    active_jobs: int
    loaded_models: int


class Histogram(TypedDict):
    """One number of the observations or actions: how often it was where."""

    name: str
    low: float
    high: float
    served: list[float]
    evaluation: list[float] | None
    distance: float | None


class JobLogs(TypedDict):
    """The last lines of a job's log."""

    job_id: str
    lines: list[str]


class KeptState(TypedDict):
    """The state is a start of the model's suite."""

    model_name: str
    scenario: str
    suite: dict[str, Any]


class MetricPoint(TypedDict):
    """One point of a metric's history."""

    step: int
    value: float
    timestamp: str


class ModelItem(TypedDict):
    """One model in the list."""

    name: str
    env_name: str
    champion: int | None
    latest_version: int | None
    eval_return_mean: float | None
    status: Literal["loaded", "saved"]


class SuiteResultSummary(TypedDict):
    """What a version came to."""

    number: int
    version: int
    digest: str
    passed: bool
    failed: list[str]
    reason: str
    seconds: float
    actor: str
    run_at: str


class Probe(TypedDict):
    """Answer to a probe."""

    status: Literal["live", "ready"]


class ResumedJob(TypedDict):
    """The job goes on from its checkpoint."""

    message: str
    job_id: str


class Reward(TypedDict):
    """One reward function that can be trained on."""

    name: str
    description: str
    environments: str


class ServedModel(TypedDict):
    """One version's figures."""

    name: str
    version: int
    since: str
    latest: str
    requests: int
    observations: int
    requests_per_second: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float


class StoppedJob(TypedDict):
    """The job was asked to stop."""

    message: str
    job_id: str


class Suite(TypedDict):
    """A model's suite."""

    number: int
    digest: str
    scenarios: int
    actor: str
    put_at: str
    suite: dict[str, Any]
    source: str


class SweepAnswer(TypedDict):
    """What was asked for is under way."""

    sweep_id: str
    message: str


class TrialSeed(TypedDict):
    """One seed of a trial, which is a job."""

    seed: int
    job_id: str
    state: Literal["queued", "running", "completed", "pruned", "failed", "stopped"]
    value: float | None
    model_version: int | None
    error_message: str | None


class Welcome(TypedDict):
    """What this server is."""

    message: str
    version: str
    endpoints: dict[str, str]
    mlflow_ui: str | None
    mlflow_links: dict[str, str] | None


class BatchReply(TypedDict):
    """What the policy does with each observation, in their order."""

    actions: list[int] | list[float] | list[JsonValue]
    action_probs: list[list[float]] | list[list[list[float]]] | None
    values: list[float] | None
    model_version: int
    states: NotRequired[list[str] | None]


class ComparedNotice(TypedDict):
    """What a reader must know before believing a comparison."""

    kind: str
    values: dict[str, JsonValue]


class Environment(TypedDict):
    """One registered environment."""

    env_name: str
    trainable: bool | None
    reason: str | None
    observation_space: str | None
    action_space: str | None
    policy: str | None
    preset: dict[str, JsonValue]
    reward_presets: dict[str, dict[str, JsonValue]]


class InferenceReply(TypedDict):
    """What the policy does with the observation."""

    action: int | float | list[JsonValue] | dict[str, JsonValue]
    action_probs: list[float] | list[list[float]] | None
    value: float | None
    model_version: int
    state: NotRequired[str | None]


class Obeyed(TypedDict):
    """What a command came to."""

    step: int
    frame: dict[str, JsonValue]


class Session(TypedDict):
    """A session: one environment, one policy, in a process of its own."""

    session_id: str
    model: str | None
    job_id: str | None
    shared: bool
    viewers: int
    env_name: str
    action: dict[str, JsonValue]
    features: list[str]
    state_variables: dict[str, float | list[float]]
    can_branch: bool
    branching_reason: str
    fps: int
    max_episode_steps: int | None


class TrainRequest(TypedDict):
    """What to train, and how. Every field may be left out; the environment's preset fills it in."""

    env_name: NotRequired[str]
    env_kwargs: NotRequired[dict[str, JsonValue]]
    reward_function_type: NotRequired[str]
    total_timesteps: NotRequired[int]
    learning_rate: NotRequired[float]
    learning_rate_schedule: NotRequired[Literal["constant", "cooldown", "linear"]]
    log_std_rate: NotRequired[float]
    n_steps: NotRequired[int]
    batch_size: NotRequired[int]
    n_epochs: NotRequired[int]
    seed: NotRequired[int | None]
    gamma: NotRequired[float]
    num_groups: NotRequired[int]
    group_size: NotRequired[int]
    clip_range: NotRequired[float]
    clip_range_high: NotRequired[float | None]
    ent_coef: NotRequired[float]
    kl_coef: NotRequired[float]
    reference_iterations: NotRequired[int]
    max_grad_norm: NotRequired[float]
    advantage: NotRequired[str]
    baseline: NotRequired[Literal["group", "critic", "both", "shrinkage"]]
    gae_lambda: NotRequired[float]
    normalize_advantage: NotRequired[bool]
    policy: NotRequired[str]
    policy_kwargs: NotRequired[dict[str, JsonValue]]
    start_states: NotRequired[Literal["branch", "branch_worst", "reset", "continue", "mixed"]]
    branch_probability: NotRequired[float]
    bootstrap: NotRequired[bool]
    normalize_observations: NotRequired[bool]
    normalize_rewards: NotRequired[bool]
    net_arch: NotRequired[list[int]]
    eval_freq: NotRequired[int]
    n_eval_episodes: NotRequired[int]
    target_return: NotRequired[float | None]
    env_workers: NotRequired[int | Literal["auto"]]
    device: NotRequired[Literal["auto", "cpu", "cuda"]]
    model_name: NotRequired[str | None]
    promote: NotRequired[Literal["always", "if_better", "never"]]
    init_from: NotRequired[str | None]
    max_seconds: NotRequired[float | None]
    checkpoint_seconds: NotRequired[float]
    max_attempts: NotRequired[int]
    max_metric_points: NotRequired[int]
    failure_gallery: NotRequired[int]
    num_cpus: NotRequired[float]
    num_gpus: NotRequired[float | None]
    wrappers: NotRequired[list[JsonValue] | None]


class ActionOutcome(TypedDict):
    """What one action leads to."""

    action: JsonValue
    returns: list[float]
    mean_length: float
    mean: OutcomeEstimate
    difference: OutcomeEstimate | None
    parts_at: int | None
    typical: list[JsonValue]
    worst: list[JsonValue]


class AssertionResult(TypedDict):
    """What an assertion came to."""

    text: str
    passed: bool
    figures: dict[str, JsonValue]
    failures: list[FailedAssertion]


class Attribution(TypedDict):
    """Integrated gradients of the preferred action."""

    target: str
    at_observation: float | None
    at_baseline: float | None
    features: list[FeatureAttribution]


class Verdict(TypedDict):
    """What a training's policy does better than two that it has to beat."""

    random: Baseline
    start: Baseline
    better: bool
    sentence: str


class ComparedPair(TypedDict):
    """Two sides, and what they differ by: the first minus the second."""

    first: int
    second: int
    paired: bool
    units: list[Any]
    confidence: float
    mean: ComparedEstimate
    iqm: ComparedEstimate | None
    probability: ComparedEstimate | None
    p_value: float
    adjusted_p_value: float
    verdict: Literal["first", "second", "none"]
    sentence: str


class ComparedSide(TypedDict):
    """One of those that are compared."""

    reference: dict[str, str]
    label: str
    env_name: str
    env_kwargs: dict[str, JsonValue]
    reward_function_type: str
    total_timesteps: int
    unit: Literal["seed", "episode"]
    seeds: list[int]
    returns: list[float]
    mean: ComparedEstimate
    iqm: ComparedEstimate
    chosen: str | None
    left_out: int
    profile: ComparedProfile
    curve: ComparedCurve | None
    area: float | None


class Decision(TypedDict):
    """One promotion, refusal or rollback."""

    number: int
    action: str
    version: int
    rule: str
    verdict: str
    reason: str
    champion_before: int | None
    champion_after: int | None
    forced: bool
    actor: str
    decided_at: str
    note: str | None
    comparison: Comparison | None
    suite_digest: str | None
    suite_passed: bool | None
    promoted: bool


class ExperimentHistory(TypedDict):
    """A metric over the seeds of an experiment, at common steps."""

    experiment_id: str
    key: str
    points: list[CurvePoint]


class Pair(TypedDict):
    """Two sides, and what they differ by: the first minus the second."""

    first: int
    second: int
    paired: bool
    units: list[Any]
    confidence: float
    mean: Estimate
    iqm: Estimate | None
    probability: Estimate | None
    p_value: float
    adjusted_p_value: float
    verdict: Literal["first", "second", "none"]
    sentence: str


class ExperimentSummary(TypedDict):
    """An experiment, without its seeds."""

    experiment_id: str
    status: JobStatus
    env_name: str
    model_name: str
    register: Literal["each", "best", "median"]
    promote: Literal["always", "if_better", "never"]
    total_timesteps: int
    n_seeds: int
    counts: dict[str, int]
    progress: float
    eta_seconds: float | None
    start_time: str
    end_time: str | None
    error_message: str | None
    iqm: float | None
    ci_low: float | None
    ci_high: float | None


class ExperimentVerdict(TypedDict):
    """Whether a configuration learns: its seeds beside random actions and beside their starts."""

    better: bool
    sentence: str
    random: SeedsEstimate
    start: SeedsEstimate


FailedEpisode = TypedDict(
    "FailedEpisode",
    {
        "number": "int",
        "seed": "int",
        "return": "float",
        "length": "int",
        "ended": "Literal['terminated', 'truncated', 'cut']",
        "collapse": "ValueCollapse",
        "cluster": "int",
        "trace": "str",
        "snapshot": "str | None",
        "clip": "str | None",
    },
)


class MetricHistory(TypedDict):
    """A metric's history, downsampled."""

    job_id: str
    key: str
    points: list[MetricPoint]


class ModelList(TypedDict):
    """A page of models, by name."""

    models: list[ModelItem]
    next_page_token: str | None


class RewardList(TypedDict):
    """Reward functions by name."""

    rewards: list[Reward]


class ServedList(TypedDict):
    """What this server was asked, the latest first."""

    models: list[ServedModel]


class Serving(ServedModel):
    """One version's figures, and what it was asked beside what its evaluation saw."""

    steps: int
    evaluation_steps: int | None
    note: str | None
    features: list[Histogram]
    actions: list[Histogram]


class EnvironmentList(TypedDict):
    """A page of environments, by name."""

    environments: list[Environment]
    next_page_token: str | None


class JobConfig(TypedDict):
    """What a job trains with."""

    job_id: str
    config: TrainRequest
    preset: dict[str, JsonValue]
    threshold: float | None


class TrainBody(TrainRequest):
    """What to train, and how. Every field may be left out; the environment's preset fills it in."""

    seeds: NotRequired[int | list[int] | None]
    register: NotRequired[Literal["each", "best", "median"]]


class TrainReply(TypedDict):
    """A job was accepted."""

    job_id: str
    message: str
    config: TrainRequest


class ScenarioResult(TypedDict):
    """What a scenario came to."""

    name: str
    episodes: int
    mean_return: float
    mean_length: float
    seconds: float
    assertions: list[AssertionResult]
    passed: bool


class Explanation(TypedDict):
    """Every action from one state, and what in the observation counts."""

    at: str
    step: int
    preferred: JsonValue
    value: float
    continuations: int
    horizon: int
    cut: int
    seconds: float
    actions: list[ActionOutcome]
    attribution: Attribution | None
    why_no_attribution: str


class ModelVersion(TypedDict):
    """One version with its card."""

    version: int
    job_id: str
    created_at: str
    aliases: list[str]
    weights_sha256: str
    verdict: str | None
    env_name: str
    env_kwargs: dict[str, JsonValue]
    observation_shape: list[int]
    action: dict[str, JsonValue]
    config: dict[str, JsonValue]
    seed: int
    timesteps: int
    git_commit: str | None
    evaluation: Evaluation | None
    baselines: Verdict | None
    selection: str | None
    scenarios: SuiteResultSummary | None


class Trial(TypedDict):
    """One trial of a sweep."""

    number: int
    job_id: str
    state: Literal["queued", "running", "completed", "pruned", "failed", "stopped"]
    params: dict[str, Any]
    value: float | None
    ci_low: float | None
    ci_high: float | None
    model_version: int | None
    verdict: Verdict | None
    seeds: list[TrialSeed]


class ComparisonResult(TypedDict):
    """A comparison with all its figures."""

    comparison_id: str
    created_at: str
    normalized: bool
    seed: int
    curve_metric: str
    sides: list[ComparedSide]
    pairs: list[ComparedPair]
    correction: str | None
    warnings: list[str]
    notices: list[ComparedNotice]


class ExperimentSelection(TypedDict):
    """The version that was chosen among those of the seeds."""

    rule: Literal["best", "median"]
    seed: int
    job_id: str
    chosen_by: float
    evaluation: Evaluation | None
    model_version: int | None
    promoted: bool
    reason: str
    decision: Decision | None


class Job(TypedDict):
    """One training job at this moment."""

    job_id: str
    status: JobStatus
    progress: float
    current_timesteps: int
    total_timesteps: int
    start_time: str
    end_time: str | None
    error_message: str | None
    metrics: dict[str, float]
    model_name: str
    model_version: int | None
    promoted: bool | None
    promotion_reason: str | None
    decision: Decision | None
    verdict: Verdict | None
    hints: dict[str, str]
    eta_seconds: float | None
    attempt: int
    env_name: str
    status_message: str | None
    branching: Literal["exact", "replay", "none"] | None
    branching_reason: str | None
    stopped_by: Literal["max_seconds", "target_return"] | None
    experiment_id: str | None


class ComparisonSummary(TypedDict):
    """A comparison, without its figures."""

    references: list[dict[str, str]]
    labels: list[str]
    env_names: list[str]
    sentence: str
    pairs: int
    warnings: int
    first_pair: Pair | None
    comparison_id: str
    created_at: str


class ExperimentList(TypedDict):
    """A page of experiments, newest first."""

    experiments: list[ExperimentSummary]
    next_page_token: str | None


class ExperimentResults(TypedDict):
    """What the seeds that completed came to together."""

    completed: int
    iqm: SeedsEstimate | None
    mean: SeedsEstimate | None
    verdict: ExperimentVerdict | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    curve_key: str
    area_under_curve: SeedsEstimate | None
    threshold: float | None
    reached: int
    steps_to_threshold: float | None


class FailureList(TypedDict):
    """The worst episodes of a job's evaluation, each below its median return."""

    job_id: str
    env_name: str
    env_kwargs: dict[str, Any]
    episodes: int
    median: float | None
    failures: list[FailedEpisode]
    page: str | None
    notes: list[str]


class ExperimentReply(TypedDict):
    """An experiment was accepted, and all its jobs are queued."""

    experiment_id: str
    message: str
    jobs: list[SeedJob]
    config: TrainBody


class SuiteResult(SuiteResultSummary):
    """What a version came to, with all figures."""

    scenarios: list[ScenarioResult]


class Model(TypedDict):
    """One model with its versions, newest first, and its decisions, oldest first."""

    name: str
    champion: int | None
    latest_version: int | None
    versions: list[ModelVersion]
    decisions: list[Decision]
    env_name: str
    env_kwargs: dict[str, JsonValue]
    status: Literal["loaded", "saved"]


class SweepSummary(TypedDict):
    """A sweep, without its trials."""

    sweep_id: str
    status: JobStatus
    env_name: str
    model_name: str
    metric: str
    n_trials: int
    n_seeds: int
    started_trials: int
    best_value: float | None
    start_time: str
    end_time: str | None
    error_message: str | None
    progress: float
    eta_seconds: float | None
    counts: dict[str, int]
    best: Trial | None


class JobList(TypedDict):
    """A page of jobs, newest first."""

    jobs: list[Job]
    next_page_token: str | None


class ComparisonList(TypedDict):
    """A page of comparisons, newest first."""

    comparisons: list[ComparisonSummary]
    next_page_token: str | None


class Experiment(ExperimentSummary):
    """An experiment with its seeds."""

    config: TrainBody
    results: ExperimentResults
    selection: ExperimentSelection | None
    seeds: list[Seed]


class VersionResults(TypedDict):
    """What a version came to, each time that it was put through a suite."""

    results: list[SuiteResultSummary]
    latest: SuiteResult | None


class Sweep(SweepSummary):
    """A sweep with its trials."""

    trials: list[Trial]


class SweepList(TypedDict):
    """A page of sweeps, newest first."""

    sweeps: list[SweepSummary]
    next_page_token: str | None
