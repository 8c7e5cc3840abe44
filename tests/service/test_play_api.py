"""Policies at play over HTTP and a WebSocket: the real application, and real processes."""

import contextlib
import io
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from grpo import GRPOConfig
from grpo.envs import check_environment
from grpo.errors import EnvironmentFaultError
from grpo_platform.core.errors import NotFoundError
from grpo_platform.play import sessions
from grpo_platform.play.frames import split
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.registering import register_policy
from tests.service.api_support import client_of, services_in
from tests.service.registry_support import balancing_policy, random_policy

MODEL = "balancing"
LONG = {
    "total_timesteps": 10_000_000, "seed": 3, "n_eval_episodes": 4, "model_name": "long",
    "checkpoint_seconds": 10_000.0,  # those who watch get some all the same
}  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play")
    settings = {
        "job_backend": "memory", "max_play_sessions": 4, "max_play_sessions_per_client": 3,
        "viewer_checkpoint_seconds": 1.0,
    }  # fmt: skip
    with services_in(folder, **settings) as services, client_of(services) as client:
        config = GRPOConfig()
        for policy in (random_policy(), balancing_policy()):
            job_id = services.store.begin_run(services.store._experiment(), {}, "made here")
            card = ModelCard.of_job(
                job_id, config, check_environment("CartPole-v1"), timesteps=1, evaluation=None,
                git_commit=None,
            )  # fmt: skip
            register_policy(services.registry, job_id, policy, MODEL, card)
        yield services, client


@pytest.fixture
def client(live):
    services, client = live
    yield client
    for session in services.play.list():
        services.play.close(session.id)


@pytest.fixture
def play(client):
    def opened(**body):
        reply = client.post("/play", json={"model": f"{MODEL}/2", **body})
        assert reply.status_code == 200, reply.text
        return reply.json()

    return opened


def do(client, session, command, status=200, **arguments):
    reply = client.post(
        f"/play/{session['session_id']}/commands", json={"command": command, **arguments}
    )
    assert reply.status_code == status, reply.text
    return reply.json()


def watch(client, session_id, **headers):
    """A WebSocket on a session; the test client would call this server by another name."""
    return client.websocket_connect(
        f"/play/{session_id}/ws", headers={"Host": "127.0.0.1:8000", **headers}
    )


def helpers():
    """Session processes of this server, and those that branch for one of them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            if parent and "grpo_platform.play.process" in parent.cmdline():
                found.append(process)
    return found


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def next_frame(socket):
    while True:
        message = socket.receive()
        if message.get("bytes"):
            ((header, content),) = split(bytearray(message["bytes"]))
            return header, content
        assert message["type"] != "websocket.close", message


def next_text(socket, kind):
    while True:
        message = socket.receive()
        assert message["type"] != "websocket.close", message
        if message.get("text") and json.loads(message["text"])["type"] == kind:
            return json.loads(message["text"])


@pytest.mark.rotated(10)
def test_a_script_plays_winds_back_and_ends(client, play):
    session = play(seed=7)
    assert session["model"] == f"{MODEL}/2"
    assert session["action"] == {"kind": "Discrete", "n": 2, "start": 0}
    assert session["state_variables"].keys() == {"x", "x_dot", "theta", "theta_dot"}
    first = do(client, session, "step", n=40)
    do(client, session, "seek", step=10)
    again = do(client, session, "step", n=30)
    assert first == again
    assert first["frame"]["return"] == 40.0
    (process,) = helpers()
    assert process.nice() == 19
    assert client.get(f"/play/{session['session_id']}").json() == session
    assert client.delete(f"/play/{session['session_id']}").status_code == 200
    assert client.get(f"/play/{session['session_id']}").status_code == 404
    until(lambda: not process.is_running())


def test_frames_and_commands_on_a_socket(client, play):
    session = play()
    with watch(client, session["session_id"]) as socket:
        assert next_text(socket, "session")["session_id"] == session["session_id"]
        header, content = next_frame(socket)
        assert header["step"] == 0
        image = Image.open(io.BytesIO(content[-header["image_bytes"] :]))
        assert image.format == "JPEG"
        socket.send_json({"command": "play", "speed": 4})
        until(lambda: next_frame(socket)[0]["step"] > 20)
        socket.send_json({"command": "pause"})
        socket.send_json({"command": "act", "action": 9})
        assert "no action of CartPole-v1" in next_text(socket, "error")["detail"]
        socket.send_json({"command": "fly"})
        assert "command" in next_text(socket, "error")["detail"]
        socket.send_text("[")
        assert "JSON" in next_text(socket, "error")["detail"]
        socket.send_json({"command": "fork", "action": 0})
        until(lambda: next_frame(socket)[0]["lane"] == 1)


def test_keys_at_a_kilohertz_do_no_harm(client, play):
    session = play()
    with watch(client, session["session_id"]) as socket:
        for i in range(1000):
            socket.send_json({"command": "control", "by": "human", "action": i % 2})
        for _ in range(1000):
            socket.send_json({"command": "step"})
        for i in range(1000):
            socket.send_json({"command": ("play", "pause")[i % 2]})
        socket.send_json({"command": "deterministic", "deterministic": False})
        socket.send_json({"command": "reset", "seed": 100})  # neither is dropped
        until(lambda: next_frame(socket)[0]["seed"] == 100)
    assert do(client, session, "step")["frame"]["seed"] == 100
    assert do(client, session, "pause")["frame"]["deterministic"] is False


def test_two_people_steer_each_a_session_of_their_own_and_no_more_than_may(client, play):
    a, b = play(seed=1), play(seed=1)
    do(client, a, "step", n=5)
    assert do(client, b, "step", n=1)["frame"]["step"] == 1
    third = play()
    reply = client.post("/play", json={"model": MODEL})
    assert reply.status_code == 429
    assert "GRPO_MAX_PLAY_SESSIONS_PER_CLIENT" in reply.json()["detail"]
    assert "Retry-After" in reply.headers
    client.delete(f"/play/{third['session_id']}")
    play()


def test_every_action_is_explained_and_a_continuation_shown(client, play):
    session = play()
    do(client, session, "step", n=5)
    body = {"continuations": 8, "horizon": 40}
    reply = client.post(f"/play/{session['session_id']}/explain", json=body)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert [len(each["returns"]) for each in found["actions"]] == [8, 8]
    assert found["actions"][1]["difference"]["low"] <= found["actions"][1]["difference"]["high"]
    assert len(found["attribution"]["features"]) == 4
    assert do(client, session, "pause")["frame"]["at"] == found["at"]
    do(client, session, "replay", actions=found["actions"][1]["worst"])
    assert do(client, session, "unfork", keep=1)["step"] == 5 + len(found["actions"][1]["worst"])


def test_explaining_is_cancelled_and_the_session_goes_on_meanwhile(client, play):
    session = play()
    replies = []
    body = {"continuations": 256, "horizon": 10_000, "seconds": 100.0}
    asking = threading.Thread(
        target=lambda: replies.append(
            client.post(f"/play/{session['session_id']}/explain", json=body)
        )
    )
    asking.start()
    until(lambda: len(helpers()) == 2)
    do(client, session, "step", n=3)
    do(client, session, "cancel")
    asking.join(20)
    assert replies[0].status_code == 400
    assert "cancelled" in replies[0].json()["detail"]
    assert len(helpers()) == 1


def test_a_command_that_fails_in_any_way_ends_no_session(live, play):
    session = live[0].play.get(play()["session_id"])
    film = {"command": "film", "steps": 1, "kind": "WEBP", "path": "/no/such/folder/film"}
    with pytest.raises(EnvironmentFaultError, match="It cannot be played: FileNotFoundError"):
        session.tell(film)
    assert session.tell({"command": "reset"})["step"] == 0


def test_who_waits_for_a_session_that_is_ended_hears_why(live, play):
    session = live[0].play.get(play()["session_id"])
    (process,) = helpers()
    process.suspend()  # so that the command is under way
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.tell, {"command": "step"})
        until(lambda: session._helper._asked)
        session.close("The job was deleted.")
        with pytest.raises(NotFoundError, match=r"^The job was deleted\.$"):
            waiting.result(30)


def test_a_process_that_fails_ends_its_session_and_says_why(live, client, play):
    session_id = play()["session_id"]
    with watch(client, session_id) as socket:
        next_frame(socket)
        live[0].play.get(session_id)._helper._stream.sendall(b"no JSON\n")
        assert "has ended: It cannot be played" in next_text(socket, "end")["reason"]
    until(lambda: client.get(f"/play/{session_id}").status_code == 404)
    until(lambda: not helpers())


def test_a_session_that_was_watched_ends_when_its_viewer_has_left(client, play, monkeypatch):
    monkeypatch.setattr(sessions, "_LEFT_SECONDS", 1.0)
    script, watched = play()["session_id"], play()["session_id"]
    with watch(client, watched) as socket:
        next_frame(socket)
        time.sleep(2.0)
        assert client.get(f"/play/{watched}").status_code == 200
    until(lambda: client.get(f"/play/{watched}").status_code == 404)
    assert client.get(f"/play/{script}").status_code == 200


def test_a_binary_message_is_no_command(client, play):
    with watch(client, play()["session_id"]) as socket:
        socket.send_bytes(b"play")
        while (message := socket.receive())["type"] != "websocket.close":
            pass
        assert (message["code"], message["reason"]) == (1003, "Commands are JSON in text messages.")


@pytest.mark.rotated(3)
def test_a_state_is_kept_as_a_scenario(client, play):
    session = play()
    do(client, session, "disturb", state={"theta": 0.1})
    body = {"scenario": "tilted", "assertions": ["return >= 5"]}
    reply = client.post(f"/play/{session['session_id']}/scenario", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model_name"] == MODEL
    suite = client.get(f"/models/{MODEL}/scenarios").json()["suite"]
    assert suite["scenarios"][0]["name"] == "tilted"
    assert client.post(f"/models/{MODEL}/scenarios/run", json={"version": 2}).json()["passed"]


@pytest.mark.rotated(13)
@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_film(client, play, kind):
    session = play()
    reply = client.post(f"/play/{session['session_id']}/film", json={"steps": 20, "format": kind})
    assert reply.headers["content-type"] == f"image/{kind}"
    film = Image.open(io.BytesIO(reply.content))
    assert film.format == kind.upper()
    assert 5 < film.n_frames <= 20  # equal images are one


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"model": MODEL, "job_id": "0" * 32}, 422),
        ({"model": MODEL, "watch": True}, 422),
        ({"model": "../etc/passwd"}, 422),
        ({"model": "nobody"}, 404),
        ({"model": f"{MODEL}/77"}, 404),
        ({"job_id": "0" * 32}, 404),
        ({"model": MODEL, "seed": -1}, 422),
    ],
)
def test_what_cannot_be_played_is_refused_and_leaves_nothing(live, client, body, status):
    assert client.post("/play", json=body).status_code == status
    assert len(live[0].play) == 0
    until(lambda: not helpers())  # those of the test before may be ending still


@pytest.mark.parametrize(
    "body",
    [
        {"command": "seek"},
        {"command": "pause", "n": 1},
        {"command": "policy", "name": "x", "path": "/etc/passwd"},
        {"command": "film", "path": "/tmp/x"},
        {"command": "step", "n": 100_000},
    ],
)
def test_what_is_no_command_is_refused(client, play, body):
    session = play()
    assert client.post(f"/play/{session['session_id']}/commands", json=body).status_code == 422


def test_a_session_whose_process_dies_ends_and_says_so(live, client, play):
    session = play()
    with watch(client, session["session_id"]) as socket:
        next_frame(socket)
        os.kill(helpers()[0].pid, signal.SIGKILL)
        assert "killed by signal 9" in next_text(socket, "end")["reason"]
        until(lambda: socket.receive()["type"] == "websocket.close")
    until(lambda: len(live[0].play) == 0)
    assert (
        client.post(
            f"/play/{session['session_id']}/commands", json={"command": "pause"}
        ).status_code
        == 404
    )


def test_nobody_watches_what_does_not_exist(client):
    with watch(client, "nothing") as socket:
        message = socket.receive()
        assert (message["type"], message["code"]) == ("websocket.close", 4404)


def test_pages_of_other_sites_may_not_watch(client, play):
    session = play()
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        with (
            pytest.raises(WebSocketDisconnect),
            watch(client, session["session_id"], **headers),
        ):
            pass


@pytest.mark.rotated(3)
def test_ten_viewers_of_a_training_share_one_process_and_leave_in_the_middle(
    live, client, monkeypatch
):
    monkeypatch.setattr("grpo_platform.play.sessions._UNWATCHED_SECONDS", 0.0)
    job_id = client.post("/train", json=LONG).json()["job_id"]
    opened = [client.post("/play", json={"job_id": job_id, "watch": True}) for _ in range(10)]
    (id,) = {reply.json()["session_id"] for reply in opened}
    time.sleep(1.2)  # who is slow to connect is waited for
    assert len(helpers()) == 1
    refused = client.post(f"/play/{id}/commands", json={"command": "pause"})
    assert refused.status_code == 409
    assert "own" in refused.json()["detail"]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(watch(client, id)) for _ in "x" * 10]
        until(lambda: client.get(f"/play/{id}").json()["viewers"] == 10)
        header = until(lambda: [h for h in [next_frame(sockets[0])[0]] if h["value"] is not None])[
            0
        ]
        assert int(header["checkpoint"]) > 0
        until(lambda: len(next_frame(sockets[0])[0]["checkpoints"]) > 1)
        assert next_frame(sockets[9])[0]["step"] >= 0
        own = client.post("/play", json={"job_id": job_id}).json()
        until(lambda: do(client, own, "pause")["frame"]["checkpoints"])
        do(client, own, "step", n=2)
        client.post(f"/training/{job_id}/stop")
        told = until(
            lambda: [t for t in [next_text(sockets[1], "job")] if t["status"] == "stopped"]
        )
        assert told[0]["timesteps"] > 0
        next_frame(sockets[1])  # the last checkpoint is played on
    until(lambda: all(s.id != id for s in live[0].play.list()))
    with watch(client, own["session_id"]) as socket:
        client.delete(f"/training/{job_id}")
        assert "deleted" in next_text(socket, "end")["reason"]
    until(lambda: not helpers())
