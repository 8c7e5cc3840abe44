"""CPUs and GPUs that a job asks for: checked, stored, and refused where there are none."""

import os

import pytest

from grpo.errors import IncompatibleError
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JobRequest
from grpo_platform.jobs.resources import check_this_machine, in_words, resources_of
from tests.service.api_support import client_of, services_in
from tests.service.tracking_support import request

CORES = os.cpu_count() or 1


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("resources")) as made:
        yield made


@pytest.fixture(scope="module")
def client(services):
    return client_of(services)


@pytest.mark.parametrize(
    ("fields", "cpus", "gpus"),
    [
        ({}, 1, 0),
        ({"device": "auto"}, 1, 0),
        ({"device": "cuda"}, 1, 1),
        ({"device": "cuda", "num_gpus": 0.5}, 1, 0.5),
        ({"num_cpus": 0.25, "num_gpus": 2}, 0.25, 2),
    ],
)
def test_what_a_job_asks_for(fields, cpus, gpus):
    asked = request(**fields)
    assert resources_of(asked) == {"num_cpus": cpus, "num_gpus": gpus}
    assert JobRequest.from_json(asked.to_json()) == asked


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_cpus": 0}, "num_cpus"),
        ({"num_cpus": 1025}, "num_cpus"),
        ({"num_gpus": -1}, "num_gpus"),
        ({"num_gpus": 1.5}, "num_gpus"),
        ({"num_gpus": 65}, "num_gpus"),
    ],
)
def test_what_cannot_be_asked_for(fields, field):
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    assert caught.value.field == field


def test_cuda_without_a_gpu_does_not_go_together():
    with pytest.raises(IncompatibleError, match="num_gpus must be above 0"):
        request(device="cuda", num_gpus=0)


def test_in_words():
    assert in_words(1, 0) == "1 CPU"
    assert in_words(2.5, 1) == "2.5 CPUs and 1 GPU"


def test_this_machine_has_its_own_cores_and_no_more():
    check_this_machine(request(num_cpus=CORES))
    with pytest.raises(InvalidRequestError, match=f"has {CORES} CPU"):
        check_this_machine(request(num_cpus=CORES + 1))


def test_a_gpu_that_is_not_here_is_refused_and_no_job_is_made(services, client, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reply = client.post("/train", json={"num_gpus": 1})
    assert reply.status_code == 422
    assert "jobs run on this machine, which has no GPU" in reply.json()["detail"]
    assert reply.json()["errors"][0]["field"] == "num_gpus"
    assert client.post("/train", json={"device": "cuda"}).status_code == 400
    sweep = {"search_space": {"n_epochs": {"type": "int", "low": 1, "high": 3}}}
    assert client.post("/sweeps", json=sweep | {"config": {"num_gpus": 1}}).status_code == 422
    assert services.store.list().items == []


def test_more_cpus_than_there_are_is_refused(client):
    reply = client.post("/train", json={"num_cpus": CORES + 0.5})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "num_cpus"


def test_what_was_asked_for_is_in_force_and_stored(services, client):
    reply = client.post("/train", json={"num_cpus": 0.5})
    assert reply.status_code == 200, reply.text
    assert reply.json()["config"]["num_cpus"] == 0.5
    assert reply.json()["config"]["num_gpus"] is None
    job = services.store.get(reply.json()["job_id"])
    assert job.request.num_cpus == 0.5
    status = client.get(f"/training/{job.job_id}/status").json()
    assert status["status_message"] is None
