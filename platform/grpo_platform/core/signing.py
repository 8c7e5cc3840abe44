"""Signatures on what is queued: where a token is set, a server trains only what it vouches for.

The queue is in the store, and others may be able to write there: through an MLflow UI of theirs, or
as users of the same MLflow server. A run with our tags would be trained with the server's rights.
So whoever queues a job or a sweep writes a keyed hash (HMAC-SHA256) of its run id and its request
beside it. The key is made of the token, which is never in the store: servers that share a store
and the token train each other's jobs, and nobody else can queue any.
"""

import hmac
from typing import Final

__all__ = ["Signer", "not_vouched_for"]

_PURPOSE: Final = b"grpo-platform: signature of a queued run, version 1"


class Signer:
    """Signs what this server queues, and tells what servers with the same token have queued.

    Args:
        token: the server's; None signs nothing and vouches for everything.
    """

    def __init__(self, token: str | None = None) -> None:
        # a key of its own: a signature must not help to guess what opens the API
        self._key = None if token is None else hmac.digest(token.encode(), _PURPOSE, "sha256")

    @property
    def signs(self) -> bool:
        """Whether there is a token to sign with."""
        return self._key is not None

    def sign(self, run_id: str, request: str) -> str:
        """The signature of a run; empty where there is no token.

        Args:
            run_id: of the job or sweep, which no other run ever has.
            request: as it is stored, to the letter.
        """
        if self._key is None:
            return ""
        return hmac.digest(self._key, f"{run_id}\n{request}".encode(), "sha256").hex()

    def vouches_for(self, run_id: str, request: str, signature: str) -> bool:
        """Whether a run was queued with this token, and its request was not changed since."""
        if not self.signs:
            return True
        return hmac.compare_digest(self.sign(run_id, request).encode(), signature.encode())


def not_vouched_for(run_id: str) -> str:
    """What a user is told of a run that is not trained."""
    return (
        "It is not trained: it was not queued with this server's GRPO_API_TOKEN, or was changed "
        f"since. If it is yours, say so where the server runs: `grpo-platform store sign {run_id}`."
    )
