"""`mlflow run . -P seeds=…`: a run that MLflow created becomes an experiment, trained here."""

from collections import Counter
from collections.abc import Mapping

from grpo_platform.api.schemas.experiments import TrainBody
from grpo_platform.core.settings import Settings
from grpo_platform.experiments.records import ExperimentRecord
from grpo_platform.mlproject.parameters import validated, with_seeds
from grpo_platform.services.container import build_services
from grpo_platform.services.experiments import check_experiment
from grpo_platform.services.foreground import lead

__all__ = ["experiment"]


def experiment(run_id: str, given: Mapping[str, str]) -> int:
    """Train every seed, as POST /train does, in as many processes as there are CPUs.

    Ctrl-C stops the experiment with its seeds; a server's resume takes it up again.

    Returns:
        Exit code: 0 when the experiment completed, 1 when it failed or was stopped.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.ConfigError: they cannot be trained.
        PlatformError: they do not fit what is in the store, or it is away.
    """
    body = validated(TrainBody, with_seeds(given))
    services = build_services(Settings())
    request = check_experiment(services, body.model_dump(exclude_unset=True, by_alias=True))
    services.experiments.adopt(run_id, request)

    def tell(found: ExperimentRecord) -> str:
        states = Counter(seed.state for seed in services.experiments.seeds(found))
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        chosen = "" if found.selection is None else f"\n{found.selection.reason}"
        return f"{len(request.seeds)} seeds: {counts or 'none yet'}{chosen}"

    return lead(
        services,
        services.experiment_runner,
        lambda: services.experiments.experiment(run_id),
        "Experiment",
        tell,
    )
