"""The append-only history of a name's promotions, kept as the params of one MLflow run.

`decision.<n>` is won by exactly one decider, and nothing can rewrite what was decided.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Final

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter, ValidationError

from grpo_platform.core.errors import StoreError
from grpo_platform.registry.card import canonical_json
from grpo_platform.registry.ledger import RunLedger
from grpo_platform.registry.names import DECISIONS_EXPERIMENT, MODEL_KIND, Tag
from grpo_platform.registry.records import Comparison, Decision
from grpo_platform.tracking.exceptions import error_code, retrying, when_granted
from grpo_platform.tracking.experiments import ensure_experiment
from grpo_platform.tracking.files import RunFiles

__all__ = ["DecisionLog", "champions", "decision_from_json", "decision_to_json"]

_PREFIX: Final = "decision."
_NOTE: Final = "mlflow.note.content"
_EXPLAINED: Final = (
    "Kept by grpo-platform: one run for each model name, whose parameters are the decisions about "
    "its versions. A run's description shows the latest: which version became champion, when, and "
    "why; its artifacts hold the returns that were compared. Nothing is trained here."
)
_NOTED: Final = 20  # decisions in the description of the run
_STORED: Final = TypeAdapter(Decision)


class DecisionLog(RunLedger):
    """The decisions about one name."""

    @classmethod
    def create(
        cls, client: MlflowClient, files: RunFiles, name: str, job_experiment: Experiment
    ) -> "DecisionLog":
        """Make the run for a new name.

        Args:
            client: of the store.
            files: of its runs.
            name: of the model.
            job_experiment: whose artifacts lie where this run's may lie too.
        """
        experiment_id = _experiment(client, job_experiment)
        tags = {Tag.KIND: MODEL_KIND, Tag.MODEL_NAME: name}
        run = when_granted(
            lambda: client.create_run(experiment_id, run_name=f"promotions of {name}", tags=tags)
        )
        log = cls(client, files, run.info.run_id)
        retrying(lambda: client.set_terminated(log.run_id))
        return log

    def read(self) -> tuple[Decision, ...]:
        """All decisions, oldest first; none if the run was purged."""
        params = self.params()
        keys = sorted(key for key in params if key.startswith(_PREFIX))
        return tuple(_decision(params[key]) for key in keys)

    def append(self, decision: Decision) -> bool:
        """Write the decision under its number, unless another decider was first.

        Returns:
            Whether it was written.
        """
        return self.write(f"{_PREFIX}{decision.number:06d}", decision_to_json(decision))

    def attach(self, number: int, evidence: dict[str, object]) -> None:
        """Keep every episode's return beside a decision, as an artifact."""
        self.store(f"decision-{number:06d}.json", evidence, "decisions")

    def describe(self, decisions: Iterable[Decision]) -> None:
        """Show the latest decisions in the MLflow UI."""
        rows = [
            f"| {d.number} | {d.decided_at} | {d.version} | {d.verdict} | {d.actor} | {d.reason} |"
            for d in reversed(tuple(decisions)[-_NOTED:])
        ]
        head = ["| # | when | version | verdict | who | why |", "|---|---|---|---|---|---|"]
        retrying(lambda: self._client.set_tag(self.run_id, _NOTE, "\n".join(head + rows)))

    def delete(self) -> None:
        """Delete the run and its artifacts; what is gone already is fine."""
        try:
            run = retrying(lambda: self._client.get_run(self.run_id))
            self._files.delete(run.info.artifact_uri)
            retrying(lambda: self._client.delete_run(self.run_id))
        except StoreError as error:
            if error_code(error) not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                raise


def champions(decisions: Iterable[Decision]) -> list[int]:
    """The versions that were champion, oldest first, without those that were rolled back."""
    line: list[int] = []
    for decision in decisions:
        after = decision.champion_after
        if after is None or (line and line[-1] == after):
            continue
        if decision.action == "rollback" and after in line:
            while line[-1] != after:
                line.pop()
        else:
            line.append(after)
    return line


def decision_to_json(decision: Decision) -> str:
    """Compact JSON of it."""
    return canonical_json(dataclasses.asdict(decision))


def decision_from_json(text: str) -> Decision | None:
    """Inverse of `decision_to_json`; None where the text is nothing that it writes."""
    try:
        return _STORED.validate_json(text)
    except ValidationError:
        return None


def _decision(text: str) -> Decision:
    values = json.loads(text)
    comparison = values.pop("comparison")
    return Decision(**values, comparison=Comparison(**comparison) if comparison else None)


def _experiment(client: MlflowClient, job_experiment: Experiment) -> str:
    """Id of the experiment for decisions, made beside the jobs' one if it is missing."""
    location = job_experiment.artifact_location.rstrip("/")
    served = location.startswith("mlflow-artifacts:")  # then the server knows where
    found = ensure_experiment(
        client,
        DECISIONS_EXPERIMENT,
        location=None if served else f"{location}/promotions",
        note=_EXPLAINED,
    )
    return str(found.experiment_id)
