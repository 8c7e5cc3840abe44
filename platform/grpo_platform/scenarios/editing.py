"""A suite with one thing more: a start state in a scenario, or a scenario."""

import dataclasses
import re
from collections.abc import Sequence

from grpo.scenarios.assertions import Assertion
from grpo.scenarios.suite import Scenario, Start, Suite
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.scenarios.grammar import parse_suite

__all__ = ["add_start_state"]


def add_start_state(
    suite: Suite | None, scenario: str, start: Start, assertions: Sequence[str] = ()
) -> Suite:
    """The suite with a start state more, from which as many episodes are played as from others.

    Args:
        suite: what there is; None where a model has no suite yet.
        scenario: name of the scenario that gets it; made where there is none.
        start: where the episode begins.
        assertions: of a scenario that is made, such as `return >= 450`; what there is keeps its
            own.

    Raises:
        InvalidRequestError: the scenario is there and begins at resets; it is to be made without
            an assertion; or what comes out is no suite.
    """
    scenarios = [] if suite is None else list(suite.scenarios)
    for i, each in enumerate(scenarios):
        if each.name == scenario:
            scenarios[i] = _with_start(each, start)
            break
    else:
        if not assertions:
            raise InvalidRequestError(
                f"There is no scenario {scenario!r} yet: say what must hold in it, such as "
                "'return >= 450'.",
                field="assert",
            )
        made = {"name": scenario, "start": [start.to_dict()], "assert": list(assertions)}
        (one,) = parse_suite({"scenarios": [made]}).scenarios
        scenarios.append(one)
    description = "" if suite is None else suite.description
    return parse_suite(Suite(scenarios=tuple(scenarios), description=description).to_dict())


def _with_start(scenario: Scenario, start: Start) -> Scenario:
    if not scenario.starts:
        raise InvalidRequestError(
            f"The scenario {scenario.name!r} begins at resets; choose another one for start "
            "states.",
            field="scenario",
        )
    if start in scenario.starts:
        return scenario
    each_start = max(1, scenario.episodes // len(scenario.starts))
    return dataclasses.replace(
        scenario,
        starts=(*scenario.starts, start),
        episodes=scenario.episodes + each_start,
        # which say how many episodes there were
        assertions=tuple(
            Assertion.parse(re.sub(r"of \d+ episodes", "of episodes", assertion.text))
            for assertion in scenario.assertions
        ),
    )
