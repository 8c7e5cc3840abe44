"""The process that workers are forked from: everything imported and warm, nothing running.

Why not multiprocessing's own: that one imports the server's `__main__` again in every child,
loses the exit status of living children when it dies, and needs pickle. This one speaks JSON.

It runs as `python -m grpo_platform.jobs.forkserver CONTROL LIFELINE`, with two inherited file
descriptors. CONTROL is a sequenced-packet socket. The server sends `{"job_id", "attempt",
"request", "store", "memory_bytes"}`; back come `{"event": "ready"}` once all is imported,
`{"event": "started", "job_id", "attempt", "worker"}` with a pidfd, and
`{"event": "ended", "job_id", "attempt", "status", "said"}` with the status of waitpid(2) and the
error of a worker that could not write it into its job's log. LIFELINE is the read end of a pipe
whose other end only the server holds: workers see there that it died.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NamedTuple, NoReturn

from grpo_platform.core.messages import escape_unprintable
from grpo_platform.core.process import importing, leave, worker_name

__all__ = ["main"]

_MAX_SAID = 500


class _Child(NamedTuple):
    pid: int
    job_id: str
    attempt: int
    last_words_fd: int


def main(control_fd: int, lifeline_fd: int) -> None:
    """Import, warm up, and fork until the server is gone and the last child has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    escape_unprintable()  # plug-ins that are preloaded print what they like
    control = socket.socket(fileno=control_fd)
    preload()
    _send(control, {"event": "ready"}, [])
    _serve(control, lifeline_fd)


def preload() -> None:
    """Import all that a worker needs, and do once what is slow the first time."""
    with importing():
        from grpo_platform.jobs import preload

        preload.warm_up()
    # what is here stays: no collection needs to visit it, so forks go on sharing its pages
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket, lifeline_fd: int) -> None:
    from grpo_platform.core.process import MAX_MESSAGE

    children: dict[int, _Child] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    connected = True
    while connected or children:
        for descriptor, _ in poller.poll():
            if descriptor in children:
                child = children.pop(descriptor)
                poller.unregister(descriptor)
                os.close(descriptor)
                _report_end(control, child)
                continue
            message = control.recv(MAX_MESSAGE)
            if message:
                pidfd, child = _spawn(control, lifeline_fd, json.loads(message))
                children[pidfd] = child
                poller.register(pidfd, select.POLLIN)
            else:
                poller.unregister(control)
                connected = False


def _spawn(control: socket.socket, lifeline_fd: int, task: dict[str, Any]) -> tuple[int, _Child]:
    last_words_read, last_words_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(last_words_read)
        _run_child(control, lifeline_fd, last_words_write, task)
    os.close(last_words_write)
    os.set_blocking(last_words_read, False)
    pidfd = os.pidfd_open(pid)
    child = _Child(pid, task["job_id"], task["attempt"], last_words_read)
    started = {"event": "started", "worker": worker_name(pid)}
    _send(control, started | {"job_id": child.job_id, "attempt": child.attempt}, [pidfd])
    return pidfd, child


def _report_end(control: socket.socket, child: _Child) -> None:
    _, status = os.waitpid(child.pid, 0)
    said = ""
    with contextlib.suppress(BlockingIOError):  # a child of its own lives still
        said = os.read(child.last_words_fd, _MAX_SAID).decode("utf-8", "replace")
    os.close(child.last_words_fd)
    ended = {"event": "ended", "job_id": child.job_id, "attempt": child.attempt}
    _send(control, ended | {"status": status, "said": said}, [])


def _send(control: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    # where the server has died, children see that themselves
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)


def _run_child(
    control: socket.socket, lifeline_fd: int, last_words_fd: int, task: dict[str, Any]
) -> NoReturn:
    """Be a worker, and never return into the forkserver's own loop."""
    code = 1
    try:
        # Ctrl-C at the server's terminal is for the server: it will ask us
        os.setsid()
        control.close()
        from grpo_platform.jobs.worker import run_forked

        code = run_forked(task, lifeline_fd)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        os.write(last_words_fd, said.encode("utf-8", "replace")[:_MAX_SAID])
    finally:
        leave(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
