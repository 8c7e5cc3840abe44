"""Ids by their beginning, and `latest`, wherever an id is taken; with a server and without."""

import sqlite3
from contextlib import closing

import pytest
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import AmbiguousIdError, ConflictError, UnknownJobError
from grpo_platform.core.names import Tag
from grpo_platform.services import direct
from grpo_platform.services import store as store_service
from grpo_platform.sweeps.request import SweepRequest
from grpo_platform.tracking.reader import HttpReader, RunQuery, SqlReader
from tests.service.api_support import client_of, services_in
from tests.service.experiments_support import asked
from tests.service.sweeps_support import SPACE
from tests.service.tracking_support import request

JOB, ALIKE, NEWEST = "abcd1" + "0" * 27, "abcd2" + "0" * 27, "fade" * 8
SWEEP, EXPERIMENT = "abcd1" + "5" * 27, "beef" * 8
TABLES = {"runs": "run_uuid", "tags": "run_uuid", "params": "run_uuid"}


def renamed(run_id: str, to: str) -> None:
    """Gives a run another id, as if MLflow had drawn that one."""
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        for table, column in TABLES.items():
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (to, run_id))


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("ids")) as services:
        for to in (JOB, ALIKE, NEWEST):
            renamed(services.store.create(request(seed=1)).job_id, to)
        renamed(services.sweeps.create(SweepRequest(search_space=SPACE)).sweep_id, SWEEP)
        renamed(services.experiments.create(asked((1, 2)))[0].experiment_id, EXPERIMENT)
        yield services


@pytest.fixture(scope="module")
def client(services):
    return client_of(services)


@pytest.mark.parametrize("text", [NEWEST, "fade", NEWEST[:31], "latest"])
def test_the_beginning_of_an_id_is_as_good_as_all_of_it(client, text):
    for path in ("status", "config", "logs", "metrics"):
        reply = client.get(f"/training/{text}/{path}")
        assert (reply.status_code, reply.json()["job_id"]) == (200, NEWEST)


def test_each_kind_has_ids_of_its_own(client):
    assert client.get("/training/abcd1/status").json()["job_id"] == JOB
    for text in ("abcd1", "latest"):
        assert client.get(f"/sweeps/{text}").json()["sweep_id"] == SWEEP
    for text in ("beef", "latest"):
        found = client.get(f"/experiments/{text}").json()
        assert found["experiment_id"] == EXPERIMENT
        listed = client.get("/training/jobs", params={"experiment_id": text})
        assert listed.status_code == 200
    assert client.get("/comparisons/latest").status_code == 404
    refused = client.post("/comparisons", json={"references": [{"job": "fade"}, {"sweep": "beef"}]})
    assert refused.json()["detail"].startswith("No sweep 'beef'")
    played = client.post("/play", json={"job_id": "abcd"})
    assert played.json()["type"].endswith(":ambiguous-id")


def test_an_ambiguous_beginning_is_refused_with_all_that_begin_so(client):
    for method, call in (("GET", "status"), ("POST", "stop"), ("GET", "events")):
        refused = client.request(method, f"/training/abcd/{call}")
        assert refused.status_code == 404
        assert refused.json()["type"].endswith(":ambiguous-id")
        assert JOB in refused.json()["detail"]
        assert ALIKE in refused.json()["detail"]
        assert SWEEP not in refused.json()["detail"]


@pytest.mark.parametrize("text", ["fad", "f%25", "____", "FADE", "fadex", "0000"])
def test_what_begins_no_id_is_unknown(client, text):
    refused = client.get(f"/training/{text}/status")
    assert (refused.status_code, refused.json()["title"]) == (404, "No such job")
    assert ("its first four digits or more" in refused.json()["detail"]) == (text == "fad")


def test_nothing_is_deleted_by_the_word_latest(client):
    for path in ("/training/latest", "/experiments/latest", "/comparisons/latest"):
        refused = client.delete(path)
        assert refused.status_code == 422
        assert "by its id" in refused.json()["detail"]
    assert client.delete("/training/fade").status_code == 409  # found, and queued


def test_both_readers_of_the_store_agree(services):
    uri = services.store.tracking_uri
    for prefix, ids in (("abcd", [JOB, ALIKE]), ("fade", [NEWEST]), ("0000", [])):
        query = RunQuery(tag_keys=(Tag.JOB,), prefix=prefix, limit=9)
        for reader in (SqlReader(uri), HttpReader(MlflowClient(uri))):
            assert sorted(row.run_id for row in reader.find(query)) == ids


def test_what_needs_no_server_takes_beginnings_too(services):
    settings = services.settings
    for text, error in (("abcd", AmbiguousIdError), ("0000", UnknownJobError)):
        with pytest.raises(error):
            direct.run_queued(text, settings)
        with pytest.raises(error):
            direct.reproduce_job(settings, text)
    with pytest.raises(ConflictError, match=f"Job {NEWEST} made no version"):
        direct.compare_environment_of(settings, "fade")
    signed = settings.model_copy(update={"api_token": "t" * 40})
    assert list(store_service.sign(signed, ["fade", "beef"])) == [NEWEST, EXPERIMENT]
    with pytest.raises(AmbiguousIdError):  # of a job and of a sweep
        list(store_service.sign(signed, ["abcd1"]))
