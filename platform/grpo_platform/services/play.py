"""What is done with a policy at play beyond the session itself."""

from collections.abc import Sequence
from typing import NamedTuple

from grpo.scenarios.suite import Start
from grpo_platform.core.errors import ConflictError, NotFoundError, UnknownModelError
from grpo_platform.play.play_session import PlaySession
from grpo_platform.scenarios.editing import add_start_state
from grpo_platform.scenarios.keeping import KeptSuite
from grpo_platform.services.container import Services

__all__ = ["StateKept", "keep_state"]


class StateKept(NamedTuple):
    """A state as a start of a model's suite."""

    model_name: str
    kept: KeptSuite


def keep_state(
    services: Services,
    session: PlaySession,
    scenario: str,
    actor: str,
    assertions: Sequence[str] = (),
) -> StateKept:
    """Let the model be tested from the state that a session is in.

    Args:
        services: everything behind the faces.
        session: plays a model, or a job that has made one.
        scenario: that gets the start state; made where there is none.
        actor: who does it.
        assertions: what must hold, if the scenario is made.

    Raises:
        ConflictError: the job has no model yet, or viewers share the session.
        InvalidRequestError: what comes out is no suite.
        grpo.ConfigError: the environment cannot begin there.
        NotFoundError: the session has ended.
    """
    if session.source.model is not None:
        name = session.source.model.rpartition("/")[0]
    else:
        job = services.store.get(session.source.job_id or "")
        if job.model_version is None:
            raise ConflictError(
                "A state is kept in the suite of a model, and this job has made none yet; try "
                "again once it is completed."
            )
        name = job.model_name
    start = Start(snapshot=session.do({"command": "keep"})["snapshot"])
    try:
        suite = services.scenarios.show(name).suite
    except UnknownModelError:
        raise
    except NotFoundError:
        suite = None
    longer = add_start_state(suite, scenario, start, assertions)
    return StateKept(name, services.scenarios.put(name, longer.to_dict(), actor))
