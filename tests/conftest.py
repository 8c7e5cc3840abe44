"""What all tests share: hypothesis without deadlines, and what is built once for a module."""

import signal

import pytest
from hypothesis import settings

# a loaded machine is slow at any moment
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# a shell's background job ignores Ctrl-C, and so would every process that tests send one to
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module on one worker where they share a fixture: servers take seconds.

    Modules with slow tests come first: whoever has nothing left to do waits for a short one.
    """
    for item in items:
        fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - not public
        shared = any(found[-1].scope == "module" for found in fixtures)
        if shared and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
