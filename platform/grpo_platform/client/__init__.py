"""The Python client of the API, typed, with helpful errors.

client = GRPOClient()
job = client.train_model("my_model", timesteps=10_000)
client.predict("my_model", [0.0, 0.0, 0.1, 0.0])["action"]
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self, Unpack, cast

from grpo_platform.client.calls import part, until_ended
from grpo_platform.client.comparisons import Comparison, ComparisonCalls
from grpo_platform.client.experiments import ExperimentCalls
from grpo_platform.client.failures import FailureCalls
from grpo_platform.client.fields import (
    TrainFields,
    TrainSettings,
    UnknownFieldError,
    check_fields,
)
from grpo_platform.client.play import PlayCalls
from grpo_platform.client.replies import Job, JobFilters, Prediction, StatusWord
from grpo_platform.client.scenarios import SUITE_SECONDS, ScenarioCalls
from grpo_platform.client.sweeps import SweepCalls
from grpo_platform.client.transport import (
    ApiError,
    ConnectionBrokenError,
    NotFiniteError,
    ServerNotFoundError,
    ServerTimeoutError,
    Transport,
)

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ApiError",
    "Comparison",
    "ConnectionBrokenError",
    "GRPOClient",
    "Job",
    "NotFiniteError",
    "Prediction",
    "ServerNotFoundError",
    "ServerTimeoutError",
    "StatusWord",
    "TrainFields",
    "UnknownFieldError",
]

DEFAULT_URL: Final = "http://localhost:8000"
_DEFAULT_TIMESTEPS: Final = 5000


class GRPOClient(
    SweepCalls, ExperimentCalls, ComparisonCalls, ScenarioCalls, FailureCalls, PlayCalls
):
    """Calls a server.

    A call that may be made twice is sent again by itself, once, when its connection breaks; these
    are all that only read, predictions, and the start of a training.

    Args:
        base_url: where it is.
        token: its `GRPO_API_TOKEN`, if it has one.
        timeout_seconds: longest wait for an answer to one call.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._transport = Transport(base_url, token, timeout_seconds)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._transport.base_url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # --- training ------------------------------------------------------------------------

    def start_training(
        self, *, idempotency_key: str | None = None, **fields: Unpack[TrainFields]
    ) -> dict[str, Any]:
        """Queue a job.

        Args:
            idempotency_key: a second call with the same key gives the same job; drawn when left
                out.
            **fields: of POST /train; what is left out has the environment's defaults.

        Returns:
            `job_id`, `message`, and `config` with all values in force.

        Raises:
            UnknownFieldError: POST /train has no such field.
            ApiError: it cannot be trained.
        """
        check_fields(fields, TrainFields)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._transport.call("POST", "/train", json=fields, headers=headers, repeatable=True)

    def train_model(
        self,
        model_name: str,
        env_name: str = "CartPole-v1",
        timesteps: int | None = None,
        *,
        on_progress: Callable[[Job], None] | None = None,
        **fields: Unpack[TrainSettings],
    ) -> Job:
        """Train to the end.

        Args:
            model_name: receives the version.
            env_name: Gymnasium id of the environment.
            timesteps: budget in environment steps, 5,000 when left out; or say
                `total_timesteps`, as the API does.
            on_progress: called with the status, twice a second.
            **fields: further fields of POST /train.

        Returns:
            The job's last status; look at its `status`.

        Raises:
            TypeError: the budget is given under both names.
            UnknownFieldError: POST /train has no such field.
            ApiError: it cannot be trained.
        """
        if timesteps is not None and "total_timesteps" in fields:
            raise TypeError("Give the budget as timesteps or as total_timesteps, not as both.")
        budget = _DEFAULT_TIMESTEPS if timesteps is None else timesteps
        settings: TrainSettings = {"total_timesteps": budget, **fields}
        accepted = self.start_training(model_name=model_name, env_name=env_name, **settings)
        return self.wait(accepted["job_id"], on_progress=on_progress)

    def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[Job], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> Job:
        """Wait until a job is completed, failed or stopped.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such job.
            ConnectionError: no server answers; a restart of it, up to a minute, is waited for.
        """
        return until_ended(lambda: self.job(job_id), f"Job {job_id}", on_progress, timeout_seconds)

    def job(self, job_id: str) -> Job:
        """A job's status."""
        return cast(Job, self._transport.call("GET", f"/training/{part(job_id)}/status"))

    def config(self, job_id: str) -> dict[str, Any]:
        """What a job trains with.

        Returns:
            `config` with all values in force; `preset`, what the environment's preset gives, where
            that differs; and `threshold`, the return that counts as solved.
        """
        return self._transport.call("GET", f"/training/{part(job_id)}/config")

    def iter_jobs(self, **filters: Unpack[JobFilters]) -> Iterator[Job]:
        """All jobs, newest first.

        Args:
            **filters: `status`, `env_name`, `model_name`.

        Raises:
            UnknownFieldError: there is no such filter.
        """
        check_fields(filters, JobFilters)
        query = cast(dict[str, str | None], filters)
        return cast(Iterator[Job], self._transport.pages("/training/jobs", "jobs", query))

    def jobs(self, **filters: Unpack[JobFilters]) -> "pandas.DataFrame":
        """All jobs as a table, newest first; one column `metrics.<key>` for each metric.

        Args:
            **filters: as `iter_jobs`.
        """
        import pandas

        rows = list(self.iter_jobs(**filters))
        return pandas.json_normalize(cast(list[dict[str, Any]], rows), max_level=1)

    def stop(self, job_id: str) -> dict[str, Any]:
        """Stop a job; its checkpoint is kept."""
        return self._transport.call("POST", f"/training/{part(job_id)}/stop")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Take a stopped or failed job up again."""
        return self._transport.call("POST", f"/training/{part(job_id)}/resume")

    def delete_job(self, job_id: str) -> dict[str, Any]:
        """Delete a finished job; its model stays."""
        return self._transport.call("DELETE", f"/training/{part(job_id)}")

    def history(
        self, job_id: str, key: str = "rollout/ep_rew_mean", max_points: int = 1000
    ) -> "pandas.DataFrame":
        """History of a metric: columns `value` and `timestamp`, index `step`."""
        import pandas

        query: dict[str, str | int | None] = {"key": key, "max_points": max_points}
        points = self._transport.call("GET", f"/training/{part(job_id)}/metrics", params=query)[
            "points"
        ]
        table = pandas.DataFrame(points, columns=["step", "value", "timestamp"]).set_index("step")
        table["timestamp"] = pandas.to_datetime(table["timestamp"], utc=True, format="ISO8601")
        return table

    def logs(self, job_id: str, tail: int = 200) -> list[str]:
        """The last lines of a job's log."""
        reply = self._transport.call("GET", f"/training/{part(job_id)}/logs", params={"tail": tail})
        return cast(list[str], reply["lines"])

    # --- inference -----------------------------------------------------------------------

    def predict(
        self,
        model_name: str,
        observation: object,
        *,
        deterministic: bool = True,
        action_mask: object = None,
        state: str | None = None,
        episode_id: str | None = None,
        episode_start: bool = False,
    ) -> Prediction:
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
        repeatable = episode_id is None
        reply = self._transport.call("POST", "/inference", json=body, repeatable=repeatable)
        return cast(Prediction, reply)

    def predict_batch(
        self,
        model_name: str,
        observations: Sequence[Any],
        *,
        deterministic: bool = True,
        action_masks: Sequence[Any] | None = None,
        states: Sequence[str | None] | None = None,
    ) -> dict[str, Any]:
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
        return self._transport.call("POST", "/inference/batch", json=body, repeatable=True)

    # --- models --------------------------------------------------------------------------

    def iter_models(self) -> Iterator[dict[str, Any]]:
        """All models, by name."""
        return self._transport.pages("/models", "models", {})

    def models(self) -> "pandas.DataFrame":
        """All models as a table."""
        import pandas

        return pandas.DataFrame(list(self.iter_models()))

    def model(self, name: str) -> dict[str, Any]:
        """A model's versions, each with its card, and what was decided about them."""
        return self._transport.call("GET", f"/models/{part(name)}")

    def promote(
        self, name: str, version: int, *, force: bool = False, note: str = ""
    ) -> dict[str, Any]:
        """Compare a version with the champion, and promote it if it is better, or if forced.

        Where the name has a suite of scenarios, the version is put through it first, which is
        waited for. `note` says why; it is kept with the decision.
        """
        body = {"version": version, "force": force, "note": note}
        path = f"/models/{part(name)}/promote"
        return self._transport.call("POST", path, json=body, timeout_seconds=SUITE_SECONDS)

    def rollback(self, name: str, *, note: str = "") -> dict[str, Any]:
        """Give the name back to the champion before the present one; `note` says why."""
        path = f"/models/{part(name)}/rollback"
        return self._transport.call("POST", path, params={"note": note} if note else None)

    def download(
        self, name: str, version: int, format: Literal["mlflow", "pt2", "onnx"] = "mlflow"
    ) -> bytes:
        """A version as one file: an MLflow model as ZIP, a graph that torch loads, or ONNX.

        Raises:
            ApiError: there is no such version, or it cannot be exported.
        """
        path = f"/models/{part(name)}/versions/{version}/download"
        return self._transport.content(path, {"format": format})

    def delete_model(self, name: str) -> dict[str, Any]:
        """Delete a model from memory, registry and disk."""
        return self._transport.call("DELETE", f"/models/{part(name)}")

    # --- the server ----------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """The server's version, its calls, and where the MLflow UI is."""
        return self._transport.call("GET", "/")

    def health(self) -> dict[str, Any]:
        """How the server is doing."""
        return self._transport.call("GET", "/health")

    def iter_environments(
        self, name: str = "", *, trainable: bool = True
    ) -> Iterator[dict[str, Any]]:
        """What can be trained, or with `trainable=False` what cannot, and why; by name.

        Args:
            name: only ids that contain it.
            trainable: which of them.
        """
        wanted = {"name": name, "trainable": str(trainable).lower()}
        return self._transport.pages("/environments", "environments", wanted)

    def environments(self, name: str = "", *, trainable: bool = True) -> list[dict[str, Any]]:
        """All that `iter_environments` gives."""
        return list(self.iter_environments(name, trainable=trainable))

    def environment_picture(self, env_name: str) -> bytes:
        """A drawn frame of an environment (WebP); empty while it is being drawn, or cannot be."""
        return self._transport.content("/environments/picture", {"env_name": env_name})

    def served(self) -> list[dict[str, Any]]:
        """How much, and how fast, the server answered for each version since it started."""
        return cast(list[dict[str, Any]], self._transport.call("GET", "/serving")["models"])

    def served_version(self, name: str, version: int) -> dict[str, Any]:
        """One version's figures, with histograms of what it was asked beside its evaluation's."""
        return self._transport.call("GET", f"/serving/{part(name)}/versions/{version}")

    def rewards(self) -> list[dict[str, Any]]:
        """What can be trained on."""
        return cast(list[dict[str, Any]], self._transport.call("GET", "/rewards")["rewards"])


def _as_json(observation: object) -> object:
    # numpy's arrays and scalars are not JSON
    if hasattr(observation, "tolist"):
        return observation.tolist()
    if isinstance(observation, Mapping):
        return {key: _as_json(part) for key, part in observation.items()}
    if isinstance(observation, str) or not isinstance(observation, Iterable):
        return observation
    return [_as_json(part) for part in observation]
