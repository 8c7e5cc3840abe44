"""The Python client of the API, typed, with helpful errors.

client = GRPOClient()
job = client.train_model("my_model", timesteps=10_000)
client.predict("my_model", [0.0, 0.0, 0.1, 0.0])["action"]
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, cast
from urllib.parse import quote

from grpo_platform.client_sweeps import SweepCalls
from grpo_platform.transport import ApiError, ServerNotFoundError, Transport
from grpo_platform.waiting import until_ended

if TYPE_CHECKING:
    import pandas

__all__ = ["ApiError", "GRPOClient", "Job", "Prediction", "ServerNotFoundError"]

DEFAULT_URL: Final = "http://localhost:8000"


class Job(TypedDict):
    """A job's status, as the API gives it."""

    job_id: str
    status: Literal["queued", "running", "completed", "failed", "stopped"]
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
    eta_seconds: float | None
    attempt: int
    env_name: str
    status_message: str | None


class Prediction(TypedDict):
    """A model's answer to one observation."""

    action: int | list[float]
    action_probs: list[float] | None
    value: float | None
    model_version: int


class GRPOClient(SweepCalls):
    """Calls a server.

    Args:
        base_url: where it is.
        token: its `GRPO_API_TOKEN`, if it has one.
    """

    def __init__(self, base_url: str = DEFAULT_URL, *, token: str | None = None) -> None:
        self._transport = Transport(base_url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # --- training ------------------------------------------------------------------------

    def start_training(
        self, *, idempotency_key: str | None = None, **fields: object
    ) -> dict[str, Any]:
        """Queue a job.

        Args:
            idempotency_key: a second call with the same key gives the same job.
            **fields: of POST /train; what is left out has the environment's defaults.

        Returns:
            `job_id`, `message`, and `config` with all values in force.

        Raises:
            ApiError: it cannot be trained.
        """
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._transport.call("POST", "/train", json=fields, headers=headers)

    def train_model(
        self,
        model_name: str,
        env_name: str = "CartPole-v1",
        timesteps: int = 5000,
        *,
        on_progress: Callable[[Job], None] | None = None,
        **fields: object,
    ) -> Job:
        """Train to the end.

        Args:
            model_name: receives the version.
            env_name: Gymnasium id of the environment.
            timesteps: budget in environment steps.
            on_progress: called with the status, twice a second.
            **fields: further fields of POST /train.

        Returns:
            The job's last status; look at its `status`.

        Raises:
            ApiError: it cannot be trained.
        """
        body: dict[str, Any] = {
            **fields,
            "model_name": model_name,
            "env_name": env_name,
            "total_timesteps": timesteps,
        }
        accepted = self.start_training(**body)
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
        """
        return until_ended(lambda: self.job(job_id), f"Job {job_id}", on_progress, timeout_seconds)

    def job(self, job_id: str) -> Job:
        """A job's status."""
        return cast(Job, self._transport.call("GET", f"/training/{_part(job_id)}/status"))

    def iter_jobs(
        self,
        *,
        status: str | None = None,
        env_name: str | None = None,
        model_name: str | None = None,
    ) -> Iterator[Job]:
        """All jobs, newest first."""
        filters = {"status": status, "env_name": env_name, "model_name": model_name}
        return cast(Iterator[Job], self._transport.pages("/training/jobs", "jobs", filters))

    def jobs(self, **filters: str | None) -> "pandas.DataFrame":
        """All jobs as a table, newest first; one column `metrics.<key>` for each metric.

        Args:
            **filters: as `iter_jobs`.
        """
        import pandas

        rows = list(self.iter_jobs(**filters))
        return pandas.json_normalize(cast(list[dict[str, Any]], rows), max_level=1)

    def stop(self, job_id: str) -> dict[str, Any]:
        """Stop a job; its checkpoint is kept."""
        return self._transport.call("POST", f"/training/{_part(job_id)}/stop")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Take a stopped or failed job up again."""
        return self._transport.call("POST", f"/training/{_part(job_id)}/resume")

    def delete_job(self, job_id: str) -> dict[str, Any]:
        """Delete a finished job; its model stays."""
        return self._transport.call("DELETE", f"/training/{_part(job_id)}")

    def history(
        self, job_id: str, key: str = "rollout/ep_rew_mean", max_points: int = 1000
    ) -> "pandas.DataFrame":
        """History of a metric: columns `value` and `timestamp`, index `step`."""
        import pandas

        query: dict[str, str | int | None] = {"key": key, "max_points": max_points}
        points = self._transport.call("GET", f"/training/{_part(job_id)}/metrics", params=query)[
            "points"
        ]
        table = pandas.DataFrame(points, columns=["step", "value", "timestamp"]).set_index("step")
        table["timestamp"] = pandas.to_datetime(table["timestamp"], utc=True, format="ISO8601")
        return table

    def logs(self, job_id: str, tail: int = 200) -> list[str]:
        """The last lines of a job's log."""
        reply = self._transport.call(
            "GET", f"/training/{_part(job_id)}/logs", params={"tail": tail}
        )
        return cast(list[str], reply["lines"])

    # --- inference -----------------------------------------------------------------------

    def predict(
        self, model_name: str, observation: Sequence[float], *, deterministic: bool = True
    ) -> Prediction:
        """Ask a model for the action in one observation.

        Args:
            model_name: `name` (its champion), `name@alias` or `name/version`.
            observation: flat, finite numbers.
            deterministic: the likeliest action; False samples.

        Raises:
            ApiError: no such model, or the observation does not fit it.
        """
        body = {
            "model_name": model_name,
            "observation": _numbers(observation),
            "deterministic": deterministic,
        }
        return cast(Prediction, self._transport.call("POST", "/inference", json=body))

    def predict_batch(
        self,
        model_name: str,
        observations: Sequence[Sequence[float]],
        *,
        deterministic: bool = True,
    ) -> dict[str, Any]:
        """Ask a model for the actions in many observations at once.

        Returns:
            `actions`, `action_probs`, `values`, `model_version`.
        """
        body = {
            "model_name": model_name,
            "observations": [_numbers(observation) for observation in observations],
            "deterministic": deterministic,
        }
        return self._transport.call("POST", "/inference/batch", json=body)

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
        return self._transport.call("GET", f"/models/{_part(name)}")

    def promote(self, name: str, version: int, *, force: bool = False) -> dict[str, Any]:
        """Compare a version with the champion, and promote it if it is better, or if forced."""
        body = {"version": version, "force": force}
        return self._transport.call("POST", f"/models/{_part(name)}/promote", json=body)

    def rollback(self, name: str) -> dict[str, Any]:
        """Give the name back to the champion before the present one."""
        return self._transport.call("POST", f"/models/{_part(name)}/rollback")

    def delete_model(self, name: str) -> dict[str, Any]:
        """Delete a model from memory, registry and disk."""
        return self._transport.call("DELETE", f"/models/{_part(name)}")

    # --- the server ----------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """How the server is doing."""
        return self._transport.call("GET", "/health")

    def environments(self) -> list[dict[str, Any]]:
        """What can be trained."""
        return cast(
            list[dict[str, Any]], self._transport.call("GET", "/environments")["environments"]
        )

    def rewards(self) -> list[dict[str, Any]]:
        """What can be trained on."""
        return cast(list[dict[str, Any]], self._transport.call("GET", "/rewards")["rewards"])


def _numbers(observation: Sequence[float]) -> list[float]:
    # numpy's scalars are not JSON
    return [float(number) for number in observation]


def _part(name: str) -> str:
    return quote(name, safe="")
