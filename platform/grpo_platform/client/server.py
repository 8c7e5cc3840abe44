"""Calls about the server: what it is, how it is doing, and what can be trained on it."""

from collections.abc import AsyncGenerator

from grpo_platform.client.operations import Calls, Iteration, Operation
from grpo_platform.client.replies import Environment, Health, Reward, RewardList, Welcome

__all__ = ["ServerCalls"]


class ServerCalls(Calls):
    """Look at the server, its environments and its rewards."""

    @Operation
    async def about(self) -> Welcome:
        """The server's version, its calls, and where the MLflow UI is."""
        return await self._transport.call(Welcome, "GET", "/")

    @Operation
    async def health(self) -> Health:
        """How the server is doing."""
        return await self._transport.call(Health, "GET", "/health")

    @Iteration
    async def iter_environments(
        self, name: str = "", *, trainable: bool = True
    ) -> AsyncGenerator[Environment, None]:
        """What can be trained, or with `trainable=False` what cannot, and why; by name.

        Args:
            name: only ids that contain it.
            trainable: which of them.
        """
        wanted = {"name": name, "trainable": str(trainable).lower()}
        async for found in self._transport.pages(
            Environment, "/environments", "environments", wanted
        ):
            yield found

    @Operation
    async def environments(self, name: str = "", *, trainable: bool = True) -> list[Environment]:
        """All that `iter_environments` gives."""
        return [each async for each in self.iter_environments(name, trainable=trainable)]

    @Operation
    async def environment_picture(self, env_name: str) -> bytes:
        """A drawn frame of an environment (WebP); empty while it is being drawn, or cannot be."""
        return await self._transport.content(
            "GET", "/environments/picture", params={"env_name": env_name}
        )

    @Operation
    async def rewards(self) -> list[Reward]:
        """What can be trained on."""
        return (await self._transport.call(RewardList, "GET", "/rewards"))["rewards"]
