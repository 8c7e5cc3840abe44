"""Calls about models: ask them for actions, list, compare, promote, download, delete."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from grpo_platform.client.operations import Calls, Iteration, Operation, part
from grpo_platform.client.replies import (
    BatchReply,
    Decision,
    DeletedModel,
    InferenceReply,
    Model,
    ModelItem,
    ServedList,
    ServedModel,
    Serving,
)
from grpo_platform.client.scenarios import SUITE_SECONDS

if TYPE_CHECKING:
    import pandas

__all__ = ["ModelCalls"]


class ModelCalls(Calls):
    """Ask models for actions, and decide which version serves."""

    @Operation
    async def predict(
        self,
        model_name: str,
        observation: object,
        *,
        deterministic: bool = True,
        action_mask: object = None,
        state: str | None = None,
        episode_id: str | None = None,
        episode_start: bool = False,
    ) -> InferenceReply:
        """Ask a model for the action in one observation.

        Args:
            model_name: `name` (its champion), `name@alias` or `name/version`.
            observation: as the environment gives it, arrays included; or flat, finite numbers.
            deterministic: the likeliest action; False samples.
            action_mask: which actions may be taken, of a model that was trained with masks; None
                for all.
            state: of a model with memory, the `state` of the answer before; None at the start of
                an episode.
            episode_id: instead of it, a name of yours under which the server remembers the
                episode. A call with it is not sent again when its connection breaks.
            episode_start: whether the episode begins with this observation.

        Raises:
            ApiError: no such model, or the observation does not fit it.
        """
        body = {
            "model_name": model_name,
            "observation": _as_json(observation),
            "deterministic": deterministic,
        }
        if action_mask is not None:
            body["action_mask"] = _as_json(action_mask)
        given = {"state": state, "episode_id": episode_id, "episode_start": episode_start or None}
        body |= {name: value for name, value in given.items() if value is not None}
        return await self._transport.call(
            InferenceReply, "POST", "/inference", json=body, repeatable=episode_id is None
        )

    @Operation
    async def predict_batch(
        self,
        model_name: str,
        observations: Sequence[Any],
        *,
        deterministic: bool = True,
        action_masks: Sequence[Any] | None = None,
        states: Sequence[str | None] | None = None,
    ) -> BatchReply:
        """Ask a model for the actions in many observations at once; see `predict`.

        Returns:
            `actions`, `action_probs`, `values`, `model_version`; `states` of a model with memory.
        """
        body = {
            "model_name": model_name,
            "observations": [_as_json(observation) for observation in observations],
            "deterministic": deterministic,
        }
        if action_masks is not None:
            body["action_masks"] = _as_json(action_masks)
        if states is not None:
            body["states"] = list(states)
        return await self._transport.call(
            BatchReply, "POST", "/inference/batch", json=body, repeatable=True
        )

    @Iteration
    async def iter_models(self) -> AsyncGenerator[ModelItem, None]:
        """All models, by name."""
        async for model in self._transport.pages(ModelItem, "/models", "models", {}):
            yield model

    @Operation
    async def models(self) -> "pandas.DataFrame":
        """All models as a table."""
        import pandas

        return pandas.DataFrame([cast(dict[str, Any], m) async for m in self.iter_models()])

    @Operation
    async def model(self, name: str) -> Model:
        """A model's versions, each with its card, and what was decided about them."""
        return await self._transport.call(Model, "GET", f"/models/{part(name)}")

    @Operation
    async def promote(
        self, name: str, version: int, *, force: bool = False, note: str = ""
    ) -> Decision:
        """Compare a version with the champion, and promote it if it is better, or if forced.

        Where the name has a suite of scenarios, the version is put through it first, which is
        waited for. `note` says why; it is kept with the decision.
        """
        body = {"version": version, "force": force, "note": note}
        path = f"/models/{part(name)}/promote"
        return await self._transport.call(
            Decision, "POST", path, json=body, timeout_seconds=SUITE_SECONDS
        )

    @Operation
    async def rollback(self, name: str, *, note: str = "") -> Decision:
        """Give the name back to the champion before the present one; `note` says why."""
        path = f"/models/{part(name)}/rollback"
        return await self._transport.call(
            Decision, "POST", path, params={"note": note} if note else None
        )

    @Operation
    async def download(
        self, name: str, version: int, format: Literal["mlflow", "pt2", "onnx"] = "mlflow"
    ) -> bytes:
        """A version as one file: an MLflow model as ZIP, a graph that torch loads, or ONNX.

        Raises:
            ApiError: there is no such version, or it cannot be exported.
        """
        path = f"/models/{part(name)}/versions/{version}/download"
        return await self._transport.content("GET", path, params={"format": format})

    @Operation
    async def delete_model(self, name: str) -> DeletedModel:
        """Delete a model from memory, registry and disk."""
        return await self._transport.call(DeletedModel, "DELETE", f"/models/{part(name)}")

    @Operation
    async def served(self) -> list[ServedModel]:
        """How much, and how fast, the server answered for each version since it started."""
        return (await self._transport.call(ServedList, "GET", "/serving"))["models"]

    @Operation
    async def served_version(self, name: str, version: int) -> Serving:
        """One version's figures, with histograms of what it was asked beside its evaluation's."""
        path = f"/serving/{part(name)}/versions/{version}"
        return await self._transport.call(Serving, "GET", path)


def _as_json(observation: object) -> object:
    # numpy's arrays and scalars are not JSON
    if hasattr(observation, "tolist"):
        return observation.tolist()
    if isinstance(observation, Mapping):
        return {key: _as_json(part) for key, part in observation.items()}
    if isinstance(observation, str) or not isinstance(observation, Iterable):
        return observation
    return [_as_json(part) for part in observation]
