"""PostgreSQL as the store: a real server, several of ours on it."""

import pytest

from tests.service.postgresql_support import postgresql
from tests.service.tracking_support import jobs_of, prepare, processes, request

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri():
    with postgresql() as found:
        yield found.uri


def _prepare(folder, uri, name):
    """As a server with a working directory of its own."""
    (folder / name).mkdir(exist_ok=True)
    return prepare(folder / name, uri, artifact_root=str(folder / "artifacts"))


def _prepare_and_create(arguments):
    folder, uri, name = arguments
    store = _prepare(folder, uri, name)
    jobs = jobs_of(store)
    created = jobs.create(request()).job_id
    return store.experiment_id, created, name


def _claim(arguments):
    folder, uri, job_id, name = arguments
    jobs = jobs_of(_prepare(folder, uri, name))
    return jobs.claim(job_id, 1, name)


@pytest.mark.rotated(14)
def test_servers_that_start_at_once_on_an_empty_database_share_it(uri, tmp_path):
    with processes(__name__).Pool(2) as pool:
        made = pool.map(_prepare_and_create, [(tmp_path, uri, n) for n in "ab"], chunksize=1)
        assert len({experiment for experiment, _, _ in made}) == 1
        job_ids = {job_id for _, job_id, _ in made}
        for job_id in job_ids:
            claims = pool.map(_claim, [(tmp_path, uri, job_id, n) for n in "ab"], chunksize=1)
            assert sorted(claims) == [False, True]
    jobs = jobs_of(_prepare(tmp_path, uri, "c"))
    assert {record.job_id for record in jobs.queued(9)} == job_ids
    assert {record.job_id for record in jobs.list(limit=9).items} == job_ids
