"""The command line where something is missing or wrong: a sentence, and nothing made."""

import sqlite3

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app
from tests.service.postgresql_support import postgresql
from tests.service.tracking_support import prepare, working_in

READERS = [
    ("evaluate", "nothing"),
    ("models", "download", "nothing"),
    ("reproduce", "0" * 32),
    ("reproduce", "nothing", "--environment-only"),
    ("episodes", "export", "nothing"),
]


def invoke(folder, *words, uri=None, token=None):
    with working_in(folder, MLFLOW_TRACKING_URI=uri, GRPO_API_TOKEN=token):
        return CliRunner().invoke(app, words)


def assert_refused(result, says):
    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("words", READERS)
@pytest.mark.parametrize("uri", [None, "sqlite:///other/mlflow.db"])
def test_no_store_is_made_where_there_is_none(tmp_path, words, uri):
    refused = invoke(tmp_path, *words, uri=uri)
    assert_refused(refused, "There is no database")
    assert "MLFLOW_TRACKING_URI" in refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", READERS)
def test_an_empty_file_is_left_empty(tmp_path, words):
    (tmp_path / "mlflow.db").touch()
    assert_refused(invoke(tmp_path, *words), "database is empty")
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("mlflow.db", 0)]


@pytest.mark.parametrize("words", READERS)
def test_another_programs_database_is_not_touched(tmp_path, words):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    before = (tmp_path / "mlflow.db").read_bytes()
    assert_refused(invoke(tmp_path, *words), "not MLflow's")
    assert (tmp_path / "mlflow.db").read_bytes() == before


@pytest.mark.rotated(7)
@pytest.mark.slow
def test_postgresql_is_neither_filled_nor_waited_for(tmp_path):
    with postgresql() as server:
        for words in READERS:
            assert_refused(invoke(tmp_path, *words, uri=server.uri), "database is empty")
        server.stop()
        for words in READERS:
            assert_refused(invoke(tmp_path, *words, uri=server.uri), "cannot be reached now")
        server.start()
        assert_refused(invoke(tmp_path, "evaluate", "nothing", uri=server.uri), "is empty")


def test_what_is_not_there_is_told_with_commands(tmp_path):
    prepare(tmp_path)
    for words, says in (
        (("evaluate", "nothing"), "`grpo-platform models list` lists them"),
        (("models", "download", "nothing"), "`grpo-platform models list` lists them"),
        (("reproduce", "0" * 32), "`grpo-platform jobs list` lists them"),
    ):
        assert_refused(invoke(tmp_path, *words), says)
    assert not (tmp_path / "nothing").exists()


def test_a_token_that_cannot_be_sent_is_told(tmp_path):
    refused = invoke(tmp_path, "jobs", "list", token="two\nlines")
    assert refused.exit_code == 2
    assert "--token" in refused.output
    assert isinstance(refused.exception, SystemExit)
