"""Lets a Python process believe that the machine's clock was set, without touching the clock.

Python imports a module of this name before anything else, so with this folder in PYTHONPATH a
server and all its children are off by as many seconds as the file CHAOS_CLOCK_FILE says, from the
moment that it says so. `datetime.now()` is not changed: nothing that is decided depends on it.
"""

import os
import time

_FILE = os.environ.get("CHAOS_CLOCK_FILE")
_time, _time_ns = time.time, time.time_ns


def _offset_seconds() -> float:
    try:
        with open(_FILE or "") as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


if _FILE:
    time.time = lambda: _time() + _offset_seconds()
    time.time_ns = lambda: _time_ns() + int(_offset_seconds() * 1e9)
