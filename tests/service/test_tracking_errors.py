"""Every error of MLflow, SQLAlchemy and requests becomes one of ours; a busy store is retried."""

import contextlib
import inspect
import sqlite3
import threading
import time

import pytest
import requests
import sqlalchemy.exc
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from grpo_platform.core.errors import (
    PlatformError,
    StoreError,
    StoreUnavailableError,
    UnknownJobError,
)
from grpo_platform.tracking.exceptions import CODES, retrying, store_errors
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reporter import Point
from tests.service.tracking_support import TrackingServer, jobs_of, prepare, request

HTTP_AWAY = {429, 503, 504}


def becomes(error, job_id=None):
    with pytest.raises(PlatformError) as caught, store_errors(job_id):
        raise error
    assert caught.value.__cause__ is error
    return type(caught.value)


@pytest.mark.parametrize("name", ErrorCode.keys())
def test_every_code_of_mlflow_becomes_ours(name):
    for error in (
        MlflowException("x", error_code=ErrorCode.Value(name)),
        RestException({"error_code": name, "message": "x"}),
    ):
        assert issubclass(becomes(error), StoreError)
        assert becomes(error, "0" * 32) is CODES.get(name, StoreError)
    if ERROR_CODE_TO_HTTP_STATUS.get(ErrorCode.Value(name)) in HTTP_AWAY - {429}:
        assert CODES[name] is StoreUnavailableError


def test_the_table_names_codes_that_exist():
    assert set(CODES) <= set(ErrorCode.keys())


def classes(module, base):
    return [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, base)]


@pytest.mark.parametrize("kind", classes(sqlalchemy.exc, sqlalchemy.exc.SQLAlchemyError))
def test_every_error_of_sqlalchemy_becomes_ours(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    away = issubclass(
        kind,
        sqlalchemy.exc.OperationalError
        | sqlalchemy.exc.InterfaceError
        | sqlalchemy.exc.DisconnectionError
        | sqlalchemy.exc.TimeoutError,
    )
    with pytest.raises(StoreError) as caught, store_errors():
        raise MlflowException("wrapped by MLflow") from error
    assert isinstance(caught.value, StoreUnavailableError) == away


@pytest.mark.parametrize("kind", classes(requests.exceptions, requests.RequestException))
def test_every_error_of_requests_becomes_ours(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    away = issubclass(
        kind,
        requests.ConnectionError
        | requests.Timeout
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError
        | requests.exceptions.RetryError,
    )
    assert becomes(error) is (StoreUnavailableError if away else StoreError)


def test_our_own_errors_and_bugs_pass_through():
    for error in (UnknownJobError("x"), ZeroDivisionError("a bug")):
        with pytest.raises(type(error)) as caught, store_errors():
            raise error
        assert caught.value is error


def test_a_message_is_one_sentence_for_the_user():
    with pytest.raises(StoreError) as caught, store_errors():
        raise MlflowException("first line\nsecond line\n" + "x" * 9_000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_call_that_fails_at_once_is_tried_again():
    failures = iter([MlflowException("x", error_code=ErrorCode.Value("ABORTED"))] * 2)

    def call():
        for error in failures:
            raise error
        return "answer"

    assert retrying(call) == "answer"


def test_what_is_refused_is_not_tried_again():
    calls = []

    def call():
        calls.append(1)
        raise MlflowException("no", error_code=ErrorCode.Value("INVALID_PARAMETER_VALUE"))

    with pytest.raises(StoreError):
        retrying(call)
    assert len(calls) == 1


def test_a_store_that_stays_away_is_given_up_within_seconds():
    def call():
        raise MlflowException("away", error_code=ErrorCode.Value("TEMPORARILY_UNAVAILABLE"))

    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        retrying(call)
    assert time.monotonic() - begun < 5


def test_a_locked_database_is_waited_for(tmp_path):
    jobs = jobs_of(prepare(tmp_path))
    job_id = jobs.create(request()).job_id
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(1.0, lambda: lock.execute("ROLLBACK"))
    timer.start()
    begun = time.monotonic()
    jobs.log_points(job_id, [Point("x", 1.0, 1, 1)])
    assert time.monotonic() - begun > 0.8
    timer.join()
    lock.close()
    assert jobs.get(job_id).metrics == {"x": 1.0}


def test_a_damaged_database_is_refused_never_a_traceback(tmp_path):
    """One that was damaged before it is opened, so that sqlite holds no page of it."""
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"this is no database " * 1_000)
    uri = f"sqlite:///{damaged}"
    for call in (
        lambda: JobStore(uri, "1").get("0" * 32),
        lambda: JobStore(uri, "1").list(),
        lambda: JobStore(uri, "1").create(request()),
    ):
        with pytest.raises(StoreError):
            call()
    assert damaged.read_bytes() == b"this is no database " * 1_000


def test_a_database_that_is_lost_in_use_gives_no_traceback(tmp_path):
    jobs = jobs_of(prepare(tmp_path))
    job_id = jobs.create(request()).job_id
    (tmp_path / "mlflow.db").write_bytes(b"this is no database " * 1_000)
    for call in (lambda: jobs.get(job_id), jobs.list, lambda: jobs.create(request())):
        # pages and log that sqlite still holds may answer; what fails must be an error of ours
        with contextlib.suppress(StoreError):
            call()


@pytest.mark.parametrize(
    "text",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid",
        '(psycopg.errors.UniqueViolation) duplicate key value violates constraint "tag_pk"',
        "(sqlite3.IntegrityError) UNIQUE constraint failed: model_version_tags.key",
        "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name",
        '(psycopg2.errors.UniqueViolation) duplicate key value violates constraint "dataset_pk"',
    ],
)
def test_two_writers_of_one_new_tag_or_dataset_both_succeed(text):
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 1:
            raise MlflowException(text)
        return "written"

    assert retrying(call) == "written"


def test_a_doubled_row_of_another_table_is_refused_at_once():
    calls = []

    def call():
        calls.append(1)
        raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: experiments.name")

    with pytest.raises(StoreError):
        retrying(call)
    assert len(calls) == 1


@pytest.mark.rotated(4)
def test_a_server_that_is_away_costs_a_delay_and_nothing_else(tmp_path):
    server = TrackingServer(tmp_path)
    server.start()
    jobs = jobs_of(prepare(tmp_path, server.uri))
    job_id = jobs.create(request()).job_id
    server.stop()
    points = [Point("x", float(i), i, i) for i in range(10)]
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        jobs.log_points(job_id, points)
    with pytest.raises(StoreUnavailableError):
        jobs.get(job_id)
    assert time.monotonic() - begun < 30
    server.start()
    jobs.log_points(job_id, points)
    assert [p.value for p in jobs.history(job_id, "x", 100)] == [float(i) for i in range(10)]
    server.stop()
