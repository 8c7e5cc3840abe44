"""Upgrading a store that an earlier MLflow release made; refusing those that it cannot."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
from typer.testing import CliRunner

from grpo_platform.cli import app
from grpo_platform.core.errors import ConflictError, StoreError
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.registry.models import Registry
from grpo_platform.serving.service import ServingService
from grpo_platform.tracking.schema import SchemaState, read_schema, upgrade_schema
from grpo_platform.tracking.store import prepare_store
from tests.service.postgresql_support import postgresql
from tests.service.tracking_support import jobs_of, prepare, working_in

OLDER = Path(__file__).parents[1] / "data" / "mlflow-3.16.1"
JOB = "ef29d2f0fb3447ad947a8db17877ef6d"


@pytest.fixture
def older(tmp_path: Path) -> str:
    """URI of the store of an earlier release, at home in this test's directory."""
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.executescript(
            (OLDER / "mlflow.sql").read_text().replace("{folder}", str(tmp_path))
        )
    connection.close()
    shutil.copytree(OLDER / "models", tmp_path / "mlruns" / "grpo" / "models")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def invoke(folder: Path, *words: str):
    with working_in(folder, MLFLOW_TRACKING_URI=None):
        return CliRunner().invoke(app, words)


@pytest.mark.rotated(14)
def test_a_store_of_an_earlier_release_is_upgraded_and_goes_on_serving(older, tmp_path):
    before = read_schema(older)
    assert (before.state, before.migrations) == (SchemaState.OLDER, 2)
    with pytest.raises(StoreError, match="grpo-platform store upgrade"):
        prepare(tmp_path)

    done = invoke(tmp_path, "store", "upgrade")
    assert done.exit_code == 0, done.output

    assert read_schema(older).state is SchemaState.CURRENT
    (copy,) = tmp_path.glob("mlflow.db.before-*")
    assert read_schema(f"sqlite:///{copy}") == before
    jobs = jobs_of(prepare(tmp_path))
    record = jobs.get(JOB)
    assert record.status is JobStatus.COMPLETED
    assert jobs.history(JOB, "rollout/reward", 100)
    served = ServingService(Registry(older), 1).load("older")
    assert (served.version, served.predict_one([0.0, 0.0, 0.1, 0.0]).action) == (1, 1)
    again = invoke(tmp_path, "store", "upgrade")
    assert (again.exit_code, "Nothing to do" in again.output) == (0, True)


def test_check_says_what_is_there_and_what_to_do(older, tmp_path):
    found = invoke(tmp_path, "store", "check")
    assert found.exit_code == 1
    assert "store upgrade" in found.output
    upgrade_schema(older)
    assert invoke(tmp_path, "store", "check").exit_code == 0


def test_a_database_that_is_open_elsewhere_is_left_alone(older, tmp_path):
    before = (tmp_path / "mlflow.db").read_bytes()
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("SELECT count(*) FROM runs").fetchone()
        with pytest.raises(ConflictError, match="stop the server"):
            upgrade_schema(older)
        assert not list(tmp_path.glob("*.before-*"))
    other.close()
    assert read_schema(older).state is SchemaState.OLDER
    assert len(before) == (tmp_path / "mlflow.db").stat().st_size


def test_a_newer_or_a_foreign_database_is_refused(tmp_path):
    uri = prepare(tmp_path).tracking_uri
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(StoreError, match="newer MLflow"):
        upgrade_schema(uri)
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(StoreError, match="not MLflow's"):
        upgrade_schema(f"sqlite:///{tmp_path / 'other.db'}")


def test_stores_without_a_database_of_ours_get_a_sentence(tmp_path):
    missing = invoke(tmp_path, "store", "upgrade")
    assert missing.exit_code == 1
    assert "There is no database" in missing.output
    assert not (tmp_path / "mlflow.db").exists()
    with working_in(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        remote = CliRunner().invoke(app, ["store", "check"])
    assert remote.exit_code == 1
    assert "mlflow db upgrade" in remote.output
    for address in ("./mlruns", "file:///mlruns", "sqlite:mlflow.db"):
        with working_in(tmp_path, MLFLOW_TRACKING_URI=address):
            odd = CliRunner().invoke(app, ["store", "check"])
        assert (odd.exit_code, odd.exception.__class__) == (1, SystemExit), address


def make_older(uri: str) -> None:
    """The schema of MLflow 3.16.1 in an empty database, by its own migrations."""
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "b7e2c1a4d9f3")
    engine.dispose()


@pytest.mark.rotated(14)
@pytest.mark.slow
def test_postgresql_is_upgraded_once_there_is_a_backup(tmp_path):
    with (
        postgresql() as server,
        working_in(tmp_path, MLFLOW_TRACKING_URI=server.uri, GRPO_ARTIFACT_ROOT=str(tmp_path)),
    ):
        assert read_schema(server.uri).state is SchemaState.EMPTY
        make_older(server.uri)
        with pytest.raises(StoreError, match="grpo-platform store upgrade"):
            prepare_store(Settings())
        asked = CliRunner().invoke(app, ["store", "upgrade"])
        assert (asked.exit_code, "pg_dump" in asked.output) == (1, True)
        assert read_schema(server.uri).state is SchemaState.OLDER
        done = CliRunner().invoke(app, ["store", "upgrade", "--backed-up"])
        assert done.exit_code == 0, done.output
        assert read_schema(server.uri).state is SchemaState.CURRENT
        prepare_store(Settings())
