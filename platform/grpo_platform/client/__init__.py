"""The Python clients of the API, typed, with helpful errors.

Example:
    >>> client = GRPOClient()
    >>> job = client.train_model("my_model", timesteps=10_000, progress_bar=True)
    >>> client.predict("my_model", [0.0, 0.0, 0.1, 0.0])["action"]

    >>> async with AsyncGRPOClient() as client:
    ...     await client.predict("my_model", [0.0, 0.0, 0.1, 0.0])
"""

from typing import Self

from grpo_platform.client.comparisons import Comparison, ComparisonCalls
from grpo_platform.client.events import Event
from grpo_platform.client.experiments import ExperimentCalls
from grpo_platform.client.failures import FailureCalls
from grpo_platform.client.fields import TrainFields, UnknownFieldError
from grpo_platform.client.models import ModelCalls
from grpo_platform.client.operations import Blocking, finished
from grpo_platform.client.play import PlayCalls
from grpo_platform.client.replies import InferenceReply, Job, JobStatus
from grpo_platform.client.scenarios import ScenarioCalls
from grpo_platform.client.server import ServerCalls
from grpo_platform.client.sweeps import SweepCalls
from grpo_platform.client.training import TrainingCalls
from grpo_platform.client.transport import (
    ApiError,
    AsyncSender,
    BlockingSender,
    ConnectionBrokenError,
    NotFiniteError,
    ServerNotFoundError,
    ServerTimeoutError,
    Transport,
    server_address,
    server_token,
)

__all__ = [
    "ApiError",
    "AsyncGRPOClient",
    "Comparison",
    "ConnectionBrokenError",
    "Event",
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

Prediction = InferenceReply
StatusWord = JobStatus


class _AllCalls(
    TrainingCalls,
    ModelCalls,
    SweepCalls,
    ExperimentCalls,
    ComparisonCalls,
    ScenarioCalls,
    FailureCalls,
    PlayCalls,
    ServerCalls,
):
    """Every call."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._transport.base_url


class AsyncGRPOClient(_AllCalls):
    """Calls a server; every call is awaited, and any number of them may be under way at once.

    A call that may be made twice is sent again by itself, once, when its connection breaks; these
    are all that only read, predictions, and the start of a training.

    Args:
        base_url: where it is; by default what `GRPO_URL` says, else this machine's, at `GRPO_PORT`
            or 8000.
        token: its token, if it has one; by default what `GRPO_API_TOKEN` says.
        timeout_seconds: longest wait for an answer to one call.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        super().__init__(
            Transport(server_address(base_url), server_token(token), timeout_seconds, AsyncSender)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


class GRPOClient(Blocking, _AllCalls):
    """Calls a server; every call returns when it is done. Otherwise as `AsyncGRPOClient`."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        super().__init__(
            Transport(
                server_address(base_url), server_token(token), timeout_seconds, BlockingSender
            )
        )
        self._calls = _AllCalls(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        finished(self._transport.close())
