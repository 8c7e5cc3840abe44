"""What the MLflow UI opens with: its machine-learning pages, and the columns that tell runs apart.

MLflow's pages take a stored view of an experiment by its key: columns by their own names, and the
filter and order that their address would hold. Without it, they open on those for language models,
and a table of runs shows none of their results.
"""

import json
from typing import Final

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from grpo_platform.core.names import ExperimentMetric, Metric, Tag
from grpo_platform.tracking.exceptions import when_granted
from grpo_platform.tracking.ui import VIEW_KEY

__all__ = ["COLUMNS", "KIND_TAG", "VIEW_TAG", "keep_view"]

KIND_TAG: Final = "mlflow.experimentKind"
VIEW_TAG: Final = f"mlflow.sharedViewState.{VIEW_KEY}"

COLUMNS: Final = (
    "attributes.`Models`",
    f"metrics.`{Metric.EVAL_MEAN}`",
    f"metrics.`{Metric.EVAL_CI_LOW}`",
    f"metrics.`{Metric.EVAL_CI_HIGH}`",
    f"metrics.`{ExperimentMetric.IQM}`",
    f"metrics.`{Metric.TIMESTEPS}`",
    "params.`env_name`",
    "params.`seed`",
    f"tags.`{Tag.PROMOTED}`",
)
"""Of the table of runs: the model, its return with the interval, the steps, and what it is of."""

_WIDTH: Final = 116


def keep_view(client: MlflowClient, experiment: Experiment) -> None:
    """Put the view into the jobs' experiment; one that is there, somebody's own perhaps, stays.

    Raises:
        StoreUnavailableError: the store is away.
        StoreError: it refused.
    """
    made = experiment.creation_time or 0
    state = json.dumps(
        {
            "selectedColumns": COLUMNS,
            "columnOrder": COLUMNS,
            "columnWidths": dict.fromkeys(COLUMNS, _WIDTH),
        }
    )
    view = {"name": "Policies", "createdAt": made, "updatedAt": made, "state": state}
    wanted = {KIND_TAG: "custom_model_development", VIEW_TAG: json.dumps(view)}
    for key, value in wanted.items():
        if key not in experiment.tags:
            _set(client, experiment.experiment_id, key, value)


def _set(client: MlflowClient, experiment_id: str, key: str, value: str) -> None:
    when_granted(lambda: client.set_experiment_tag(experiment_id, key, value))
