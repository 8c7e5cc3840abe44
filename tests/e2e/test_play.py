"""Policies at play on a real server: viewers who leave, jobs that end, limits, and kill -9."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from click.testing import Result
from mlflow.tracking import MlflowClient
from PIL import Image
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from grpo_platform.cli import app
from grpo_platform.play.frames import split
from tests import odd_environment
from tests.e2e.processes import Server, environment, server
from tests.odd_environment import ODD
from tests.waiting import until

TOKEN = "at-play-" + "t" * 24
KEY = {"X-API-Key": TOKEN}
IDLE_SECONDS = 15.0
MOST, MOST_OF_ONE = 4, 3
LONG = {"total_timesteps": 100_000_000, "checkpoint_seconds": 10_000.0}

pytestmark = [pytest.mark.slow, pytest.mark.rotated(7)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("play")
    (folder / "tmp").mkdir()
    shutil.copy(odd_environment.__file__, folder)
    with server(
        folder,
        TMPDIR=str(folder / "tmp"),
        GRPO_API_TOKEN=TOKEN,
        GRPO_ENV_MODULES=odd_environment.__name__.rpartition(".")[2],
        GRPO_MAX_PLAY_SESSIONS=str(MOST),
        GRPO_MAX_PLAY_SESSIONS_PER_CLIENT=str(MOST_OF_ONE),
        GRPO_PLAY_IDLE_SECONDS=str(IDLE_SECONDS),
        GRPO_VIEWER_CHECKPOINT_SECONDS="1",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def job(running: Server) -> str:
    """A job that trains all the while, and makes no checkpoint of its own."""
    return train(running, **LONG)


def call(running: Server, method: str, path: str, body: object = None) -> requests.Response:
    return requests.request(method, running.url + path, json=body, headers=KEY, timeout=120)


def train(running: Server, **body: object) -> str:
    job_id = str(call(running, "POST", "/train", body).json()["job_id"])
    until(lambda: status(running, job_id)["current_timesteps"] > 0)
    return job_id


def status(running: Server, job_id: str) -> dict[str, Any]:
    return dict(call(running, "GET", f"/training/{job_id}/status").json())


def tags(running: Server, job_id: str) -> dict[str, str]:
    client = MlflowClient(f"sqlite:///{running.folder / 'mlflow.db'}")
    return dict(client.get_run(job_id).data.tags)


def play(running: Server, **body: object) -> str:
    reply = call(running, "POST", "/play", body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["session_id"])


def do(running: Server, session: str, command: str, **arguments: object) -> requests.Response:
    body = {"command": command, **arguments}
    return call(running, "POST", f"/play/{session}/commands", body)


def watch(running: Server, session: str, headers: dict[str, str] | None = None) -> ClientConnection:
    url = running.url.replace("http", "ws", 1)
    return connect(
        f"{url}/play/{session}/ws", additional_headers=KEY if headers is None else headers,
        open_timeout=60, max_size=None, max_queue=None,
    )  # fmt: skip


def helpers(running: Server) -> list[psutil.Process]:
    """Processes of sessions, and those that branch for them."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(running.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if parent and "grpo_platform.play.process" in parent.cmdline():
                    found.append(process)
    return found


def next_frame(
    viewer: ClientConnection, holds: Callable[[dict[str, Any]], object] = lambda header: True
) -> dict[str, Any]:
    """The header of the next frame of a kind."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        message = viewer.recv(120)
        if isinstance(message, bytes):
            ((header, _),) = split(bytearray(message))
            if holds(header):
                return header
    raise AssertionError("there was no such frame")


def next_text(viewer: ClientConnection, **wanted: object) -> dict[str, Any]:
    """The next message that says all this."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        message = viewer.recv(120)
        if isinstance(message, str) and wanted.items() <= (said := json.loads(message)).items():
            return dict(said)
    raise AssertionError("there was no such message")


def test_checkpoints_are_made_while_ten_watch_and_no_more_once_all_have_left(
    running: Server, job: str
) -> None:
    assert not tags(running, job).keys() & {"grpo.checkpoint", "grpo.checkpoint_wanted"}
    begun = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        opened = list(pool.map(lambda _: play(running, job_id=job, watch=True), range(10)))
    (session,) = set(opened)
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(watch(running, session)) for _ in range(10)]
        seen = next_frame(viewers[0], lambda header: len(header["checkpoints"]) > 1)
        assert len(seen["checkpoints"]) <= 1 + time.monotonic() - begun  # one a second at most
        made = [int(name) for name in seen["checkpoints"]]
        assert made == sorted(set(made))
        assert len(helpers(running)) == 1
        for viewer in viewers[:5]:
            viewer.socket.shutdown(socket.SHUT_RDWR)  # in the middle of a message, perhaps
        next_frame(viewers[5], lambda header: header["step"] > 0)
    until(lambda: call(running, "GET", f"/play/{session}").status_code == 404)
    until(lambda: not helpers(running))
    asked = tags(running, job)["grpo.checkpoint_wanted"]
    time.sleep(2.5)  # two more would have been made
    assert tags(running, job)["grpo.checkpoint_wanted"] == asked


def test_a_viewer_sees_a_killed_worker_s_job_go_on(running: Server, job: str) -> None:
    session = play(running, job_id=job, watch=True)
    with watch(running, session) as viewer:
        before = next_frame(viewer, lambda header: header["checkpoint"])["checkpoint"]
        os.kill(int(tags(running, job)["grpo.worker"].split(":")[1]), signal.SIGKILL)
        until(lambda: status(running, job)["attempt"] == 2)
        later = next_frame(
            viewer,
            lambda header: (
                int(header["checkpoint"]) > int(before)
                and status(running, job)["status"] == "running"
            ),
        )
        assert later["episode"] >= 1
        assert len(helpers(running)) == 1


def test_only_who_has_the_token_watches_and_only_from_our_own_pages(
    running: Server, job: str
) -> None:
    session = play(running, job_id=job)
    signed_in = requests.Session()
    signed_in.post(f"{running.url}/app/sign-in", data={"token": TOKEN}, timeout=60)
    cookie = "; ".join(f"{name}={value}" for name, value in signed_in.cookies.items())
    refused: list[dict[str, str]] = [
        {},
        {"X-API-Key": "x" * 32},
        KEY | {"Origin": "http://evil.example"},
        {"Cookie": cookie},  # a browser says from where
        {"Cookie": cookie, "Origin": "http://evil.example"},
        {"Cookie": cookie, "Origin": running.url.replace("http", "https")[:-1]},
    ]
    for headers in refused:
        with pytest.raises(InvalidStatus) as error:
            watch(running, session, headers)
        assert error.value.response.status_code == 403
    for headers in (KEY, KEY | {"Origin": running.url}, {"Cookie": cookie, "Origin": running.url}):
        with watch(running, session, headers) as viewer:
            assert next_text(viewer, type="session")["session_id"] == session
    call(running, "DELETE", f"/play/{session}")


def test_keys_at_a_kilohertz_disturb_nobody(running: Server, job: str) -> None:
    session, other = (play(running, job_id=job) for _ in range(2))
    until(lambda: do(running, session, "pause").json()["frame"]["checkpoint"])
    with watch(running, session) as viewer:
        begun, answers = time.monotonic(), []
        for number in range(2000):
            key = {"command": "control", "by": "human", "action": number % 2}
            viewer.send(json.dumps(key if number % 4 else {"command": "step"}))
            if number % 500 == 0:
                asked = time.monotonic()
                assert do(running, other, "reset", seed=number).status_code == 200
                answers.append(time.monotonic() - asked)
            time.sleep(max(0.0, begun + number / 1000 - time.monotonic()))
        assert max(answers) < 30.0
        until(lambda: do(running, session, "reset", seed=77).status_code == 200)
        assert next_frame(viewer, lambda header: header["seed"] == 77)["step"] == 0
    for each in (session, other):
        call(running, "DELETE", f"/play/{each}")


def test_there_are_as_many_sessions_as_may_be_and_idle_ones_end(running: Server, job: str) -> None:
    until(lambda: not helpers(running))  # those of the test before may be ending still
    body = {"job_id": job}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: call(running, "POST", "/play", body), range(8)))
    opened = [reply.json()["session_id"] for reply in replies if reply.ok]
    refused = [reply for reply in replies if not reply.ok]
    assert len(opened) == MOST_OF_ONE
    assert {reply.status_code for reply in refused} == {429}
    assert all("GRPO_MAX_PLAY_SESSIONS_PER_CLIENT" in reply.text for reply in refused)
    other = train(running, **LONG)
    with (
        watch(running, opened[0]) as idle,
        watch(running, play(running, job_id=job, watch=True)) as shared,
    ):
        full = call(running, "POST", "/play", {"job_id": other, "watch": True})
        assert full.status_code == 429
        assert "(GRPO_MAX_PLAY_SESSIONS)" in full.json()["detail"]
        assert "GRPO_PLAY_IDLE_SECONDS" in next_text(idle, type="end")["reason"]
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4404
        next_frame(shared)  # what is watched is not idle
        until(lambda: len(helpers(running)) == 1)
        call(running, "POST", f"/training/{other}/stop")
    until(lambda: not helpers(running))


def test_what_cannot_be_drawn_or_branched_shows_a_table_and_says_why(running: Server) -> None:
    done = train(running, env_name=ODD, total_timesteps=64, n_eval_episodes=2, model_name="odd")
    until(lambda: status(running, done)["status"] == "completed")
    assert tags(running, done)["resume_exact"] == "false"
    session = play(running, model="odd")
    with watch(running, session) as viewer:
        frame = next_frame(viewer, lambda header: header["value"] is not None)
        assert frame["image"] is None
        assert "cannot be drawn here" in frame["why_no_image"]
        assert len(frame["observation"]) == 2
        assert not frame["can_branch"]
        viewer.send(json.dumps({"command": "fork", "action": 0}))
        said = next_text(viewer, type="error", command="fork")["detail"]
        assert "cannot be put into a visited state exactly. No way was exact" in said
    explained = call(running, "POST", f"/play/{session}/explain", {})
    assert explained.status_code == 400
    assert "No way was exact" in explained.json()["detail"]
    film = call(running, "POST", f"/play/{session}/film", {"steps": 5})
    assert film.status_code == 400
    assert "cannot be drawn here" in film.json()["detail"]
    assert do(running, session, "step", n=3).json()["step"] == 3  # it is played all the same
    call(running, "DELETE", f"/play/{session}")


def cli(running: Server, *arguments: str) -> Result:
    env = {"GRPO_URL": running.url, "GRPO_API_TOKEN": TOKEN, "COLUMNS": "200"}
    return CliRunner().invoke(app, list(arguments), env=env)


def test_without_a_display_the_command_line_writes_a_film(
    running: Server, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, kind in (("film.gif", "GIF"), (None, "WEBP")):
        told = cli(running, "play", job, "--steps", "12", *(["--out", out] if out else []))
        assert told.exit_code == 0, told.output
        film = tmp_path / (out or f"{job}.webp")
        assert f"{film.name}: {film.stat().st_size} bytes." in told.output
        with Image.open(film) as image:
            assert image.format == kind
            assert image.n_frames > 1
        assert "theta_dot" in told.output  # the state that it ends with
    wrong = cli(running, "play", job, "--out", "film.mp4")
    assert wrong.exit_code == 1
    assert "is written as .webp or .gif" in wrong.output
    nowhere = cli(running, "play", job, "--steps", "2", "--out", "no/folder/film.gif")
    assert nowhere.exit_code == 1
    assert "cannot be written" in nowhere.output
    assert "has the id" in cli(running, "play", "0" * 32).output
    until(lambda: not helpers(running))


def test_what_cannot_be_drawn_is_told_as_a_table_in_the_terminal(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = cli(running, "play", "odd", "--steps", "7")
    assert told.exit_code == 0, told.output
    assert "cannot be drawn here" in told.output
    assert "observation[1]" in told.output
    rows = re.findall(r"^\W*(\d+)\s", told.output, re.MULTILINE)
    assert rows == [str(step) for step in range(8)]
    assert not list(tmp_path.iterdir())
    refused = cli(running, "play", "odd", "--out", "film.webp")
    assert refused.exit_code == 1
    assert "cannot be drawn here" in refused.output


@pytest.mark.parametrize(
    ("command", "path"),
    [(["open"], "/app"), (["play", "odd", "--seed", "3"], "/app/play?model=odd&seed=3")],
)
def test_with_a_display_the_command_line_opens_the_page(
    running: Server, tmp_path: Path, command: list[str], path: str
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/address\n')
    browser.chmod(0o700)
    settings = {
        "GRPO_URL": running.url, "GRPO_API_TOKEN": TOKEN, "DISPLAY": ":99",
        "BROWSER": f"{browser} %s",
    }  # fmt: skip
    terminal, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "grpo_platform", *command], env=environment(**settings),
        stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    os.close(theirs)
    printed = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert done.returncode == 0, printed
    assert printed.strip() == running.url + path
    assert (tmp_path / "address").read_text() == running.url + path
    assert not helpers(running)  # the page opens the session, not this


def test_who_watches_a_job_is_told_that_it_was_stopped_and_deleted(
    running: Server, job: str
) -> None:
    with watch(running, play(running, job_id=job, watch=True)) as viewer:
        next_frame(viewer, lambda header: header["checkpoint"])
        call(running, "POST", f"/training/{job}/stop")
        next_text(viewer, type="job", status="stopped")
        next_frame(viewer)  # its last checkpoint is played on
        assert call(running, "DELETE", f"/training/{job}").status_code == 200
        assert "deleted" in next_text(viewer, type="end")["reason"]
    until(lambda: not helpers(running))


def test_a_killed_server_leaves_no_process_and_the_next_start_no_file(running: Server) -> None:
    training = train(running, **LONG)
    session = play(running, model="odd")
    watched = play(running, job_id=training, watch=True)
    own = play(running, job_id=training)
    until(lambda: do(running, own, "pause").json()["frame"]["checkpoint"])
    asking = threading.Thread(target=_ask_for_ever, args=(running, own, "explain"), daemon=True)
    filming = threading.Thread(target=_ask_for_ever, args=(running, own, "film"), daemon=True)
    temporary = running.folder / "tmp"
    with watch(running, watched) as viewer, watch(running, session):
        next_frame(viewer, lambda header: header["checkpoint"])
        asking.start()
        until(lambda: len(helpers(running)) == 4)
        for process in helpers(running):
            process.suspend()  # in the middle of what it does
        filming.start()
        until(lambda: any(temporary.rglob("grpo-play-*")))
        below = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        with pytest.raises(ConnectionClosed):
            next_text(viewer, type="never")
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
    asking.join(60)
    filming.join(60)
    left = {path.name for path in temporary.rglob("grpo-play-*")}
    assert left  # what the film was to be handed over in
    with server(running.folder, TMPDIR=str(temporary)) as again:
        assert again.process.poll() is None
        assert not [path for path in temporary.rglob("*") if path.name in left]
    # what its own children, ended early, could not remove is where the next start looks
    assert [path.name for path in temporary.iterdir()] == [f"grpo-jobs-{os.getuid()}"]


_FOR_EVER: dict[str, dict[str, object]] = {
    "explain": {"continuations": 256, "horizon": 10_000, "seconds": 60.0},
    "film": {"steps": 300},
}


def _ask_for_ever(running: Server, session: str, what: str) -> None:
    with contextlib.suppress(requests.ConnectionError):
        call(running, "POST", f"/play/{session}/{what}", _FOR_EVER[what])
