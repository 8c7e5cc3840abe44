"""What all tests share: patience, one thread each, rotation, and which come first."""

import os
import signal

import pytest
from hypothesis import settings

# before numpy is imported: threads of two processes that wait for each other on two cores take
# many times as long as one thread each does
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# a loaded machine is slow at any moment
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# a shell's background job ignores Ctrl-C, and so would every process that tests send one to
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# what a job is filmed for costs more than all else that most tests want of it
os.environ.setdefault("GRPO_VIDEO_FRAMES", "20")

PARTS = range(1, 15)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", type=int, choices=PARTS, help="of the tests marked `rotated`, run this part only"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    part = config.getoption("part")
    return part and f"rotated tests: part {part} of {len(PARTS)}; `make test-all` runs all"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the parts of the rotated tests that are not asked for.

    Modules with slow tests come first: whoever has nothing left to do waits for a short one.
    """
    _rotate(config, items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _rotate(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rotated tests of the other parts, where one was asked for."""
    asked = config.getoption("part")
    left_out: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("rotated")
        if mark is None:
            continue
        if len(mark.args) != 1 or mark.args[0] not in PARTS:
            raise pytest.UsageError(f"{item.nodeid}: say rotated(PART), one of 1 to {PARTS[-1]}.")
        if asked not in (None, mark.args[0]):
            left_out.append(item)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
