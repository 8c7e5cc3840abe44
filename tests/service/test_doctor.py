"""`grpo-platform doctor` and `--version`: a machine that is ready, and one that is not."""

import json
import socket
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from grpo_platform import __version__, cli
from grpo_platform.core.settings import Settings
from grpo_platform.services import doctor
from grpo_platform.services.doctor import State, examine
from tests.databases import put_database


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def looked(look, **settings):
    return {finding.what: finding for finding in look(Settings(**settings))}


def test_a_ready_folder_has_no_problem_and_gets_no_file(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runner = CliRunner(env={"GRPO_PORT": str(port), "GRPO_MLFLOW_UI_PORT": "0"})
    result = runner.invoke(cli.app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = {row["what"]: row for row in json.loads(result.stdout)}
    assert {row["state"] for row in found.values()} <= {"ok", "note"}
    assert found["training"]["found"].startswith("5,000 steps of CartPole in ")
    assert __version__ in found["versions"]["found"]
    assert "box2d" in found["extras"]["found"].partition("not installed")[0]
    assert list(place.iterdir()) == []


@pytest.mark.rotated(9)
def test_a_port_that_something_else_holds_is_a_problem_with_a_way_out(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = looked(doctor._ports, port=port, mlflow_ui_port=port)
        result = CliRunner(env={"GRPO_PORT": str(port)}).invoke(cli.app, ["doctor"])
    assert found["API port"].state is State.PROBLEM
    assert f"GRPO_PORT={port + 1}" in found["API port"].advice
    assert found["MLflow UI port"].state is State.NOTE
    assert result.exit_code == 1
    assert f"API port: Stop what listens there, or take another port: GRPO_PORT={port + 1}" in (
        result.output
    )
    assert "Ready" not in result.output


def test_a_server_that_runs_already_is_named_instead_of_another_start(place):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        found = looked(doctor._ports, port=served.server_port, mlflow_ui_port=0)["API port"]
        served.shutdown()
    assert found.state is State.NOTE
    assert found.found == f"A server answers at {served.server_port} already."
    assert "grpo-platform open" in found.advice


def test_stores_are_told_apart(place, monkeypatch):
    def store():
        return looked(doctor._store)["store"]

    assert store().state is State.OK
    assert "the first start of the server makes it" in store().found
    put_database(place / "mlflow.db", (place / "mlruns").as_uri())
    assert store().found.startswith("sqlite:///mlflow.db, schema ")
    with sqlite3.connect(place / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'bf29a5ff90ea'")
    database.close()
    assert store().state is State.PROBLEM
    assert "grpo-platform store upgrade" in store().advice
    for uri in ("ftp://user:secret@nowhere/x", "http://127.0.0.1:9/"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store().state is State.PROBLEM
        assert "secret" not in store().found


def test_packages_that_do_not_fit_are_named(place, monkeypatch):
    wanted = {
        "grpo-platform": ["numpy<1", "no-such-package>=1", "ray>=99; extra == 'ray'", "mlflow"],
        "mlflow": ["rich<1", "grpo-platform"],
    }
    monkeypatch.setattr(doctor.metadata, "requires", wanted.get)
    found, extras = doctor._requirements(Settings())
    assert "ray" in extras.found.partition("not installed: ")[2]
    assert found.state is State.PROBLEM
    assert "no-such-package is missing" in found.found
    assert found.found.startswith("numpy ")
    assert "ray" not in found.found
    assert "mlflow" not in found.found
    assert "; rich " in found.found


def test_a_training_that_fails_is_told_and_the_rest_is_looked_at(place, monkeypatch):
    monkeypatch.setattr(doctor, "_FAMILIES", {"A family": "Nowhere-v0"})
    monkeypatch.setattr(doctor, "_TRIAL_TIMESTEPS", 0)
    found = {finding.what: finding for finding in examine(Settings(port=0, mlflow_ui_port=0))}
    assert found["A family"].state is State.NOTE
    assert found["training"].state is State.PROBLEM
    assert "total_timesteps" in found["training"].found


def test_the_version_is_told():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"grpo-platform {__version__}\n")
