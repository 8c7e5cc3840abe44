"""Fixtures of more than one file: the stores that tests of tracking run on."""

import pytest

from tests.service.tracking_support import TrackingServer, prepare


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="module")
def http_store(tmp_path_factory):
    server = TrackingServer(tmp_path_factory.mktemp("http"))
    server.start()
    yield prepare(server.folder, server.uri)
    server.stop()


@pytest.fixture(params=["sqlite", "http"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")
