"""Work that is done once: who asks again gets the same, but for what may come out otherwise."""

import threading

import pytest

from grpo_platform.core.errors import BusyError, StoreUnavailableError, UnknownModelError
from grpo_platform.services.once import Once


@pytest.fixture
def once():
    found: Once[str] = Once("tests", kept=3, waiting=2)
    yield found
    found.close()


def test_what_was_made_is_kept_for_all_who_ask(once):
    calls = []

    def make():
        calls.append(1)
        return "made"

    asked = [once.ask("key", make) for _ in range(5)]
    assert {future.result(10) for future in asked} == {"made"}
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "times"), [(StoreUnavailableError("away"), 2), (UnknownModelError("m/1"), 1)]
)
def test_a_failure_is_kept_unless_the_store_was_away(once, error, times):
    calls = []

    def fail():
        calls.append(1)
        raise error

    for _ in range(2):
        with pytest.raises(type(error)):
            once.ask("key", fail).result(10)
    assert len(calls) == times
    if times == 2:
        assert once.ask("key", lambda: "back").result(10) == "back"


def test_what_would_wait_behind_too_many_is_refused_and_nobody_waits_for_it(once):
    go_on = threading.Event()
    waiting = [once.ask(str(n), lambda: go_on.wait(10) and "made") for n in range(2)]
    with pytest.raises(BusyError):
        once.ask("one more", lambda: "made")
    go_on.set()
    assert [future.result(10) for future in waiting] == ["made", "made"]
    assert once.ask("one more", lambda: "now").result(10) == "now"


def test_what_was_not_asked_for_longest_is_forgotten(once):
    for n in range(3):
        once.ask(str(n), lambda: "first").result(10)
    once.ask("0", lambda: "never")
    once.ask("3", lambda: "first").result(10)  # in the place of 1
    assert once.ask("0", lambda: "again").result(10) == "first"
    assert once.ask("1", lambda: "again").result(10) == "again"
