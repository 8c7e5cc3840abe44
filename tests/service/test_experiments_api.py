"""POST /train with seeds, and the calls about experiments, over the real application."""

import pytest

from grpo_platform.core.names import Tag
from grpo_platform.core.states import JobStatus
from tests.service.api_support import client_of, services_in

BODY = {"total_timesteps": 500, "n_eval_episodes": 2, "model_name": "swung"}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with services_in(folder, max_queued_jobs=60, max_timesteps=10**6) as services:
        yield services


@pytest.fixture(scope="module")
def client(services):
    return client_of(services)


def started(client, **fields):
    reply = client.post("/train", json=BODY | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_seeds_make_an_experiment_whose_jobs_are_all_queued(client):
    reply = started(client, seeds=3, seed=7, register="median")
    assert reply.keys() == {"experiment_id", "message", "jobs", "config"}
    assert [job["seed"] for job in reply["jobs"]] == [7, 8, 9]
    assert reply["config"]["seeds"] == [7, 8, 9]
    assert reply["config"]["register"] == "median"
    assert reply["config"]["learning_rate"] == 3e-4
    shown = client.get(f"/experiments/{reply['experiment_id']}").json()
    assert shown["status"] == "queued"
    assert shown["counts"] == {"queued": 3}
    assert shown["config"] == reply["config"]
    assert (shown["n_seeds"], shown["progress"], shown["eta_seconds"]) == (3, 0.0, None)
    assert [(s["seed"], s["job_id"]) for s in shown["seeds"]] == [
        (job["seed"], job["job_id"]) for job in reply["jobs"]
    ]
    of_it = client.get("/training/jobs", params={"experiment_id": reply["experiment_id"]}).json()
    assert {job["job_id"] for job in of_it["jobs"]} == {job["job_id"] for job in reply["jobs"]}
    assert {job["experiment_id"] for job in of_it["jobs"]} == {reply["experiment_id"]}
    listed = client.get("/experiments", params={"limit": 1}).json()["experiments"][0]
    assert listed == {name: shown[name] for name in listed}
    config = client.post("/train", json=reply["config"] | {"model_name": "again"}).json()["config"]
    assert config == reply["config"] | {"model_name": "again"}, "it can be sent again"


def test_experiments_are_found_by_status_environment_and_model(client):
    made = started(client, seeds=2, model_name="wanted")["experiment_id"]
    started(client, seeds=2, model_name="other", env_name="Acrobot-v1")

    def found(**filters):
        reply = client.get("/experiments", params=filters)
        assert reply.status_code == 200, reply.text
        return [one["experiment_id"] for one in reply.json()["experiments"]]

    assert found(model_name="wanted") == [made]
    assert made in found(env_name="CartPole-v1", status="queued")
    assert len(found(env_name="Acrobot-v1")) == 1
    assert found(model_name="wanted", env_name="Acrobot-v1") == []
    assert found(model_name="wanted", status="completed") == []
    assert found(env_name="it's") == []
    assert client.get("/experiments", params={"status": "done"}).status_code == 422
    token = client.get("/experiments", params={"limit": 1}).json()["next_page_token"]
    elsewhere = {"limit": 1, "page_token": token, "status": "queued"}
    assert client.get("/experiments", params=elsewhere).status_code == 422


def test_without_seeds_the_reply_is_what_it_was(client):
    reply = started(client)
    assert reply.keys() == {"job_id", "message", "config"}
    assert not {"seeds", "register"} & reply["config"].keys()
    assert client.get(f"/training/{reply['job_id']}/status").json()["experiment_id"] is None
    none = client.get("/training/jobs", params={"experiment_id": "it's"}).json()
    assert none == {"jobs": [], "next_page_token": None}
    assert started(client, seeds=None).keys() == {"job_id", "message", "config"}


def everything(services):
    runs = services.store._client.search_runs([services.store._experiment()])
    return {run.info.run_id for run in runs}


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"seeds": 1}, 422, "how many seeds, 2 to 100"),
        ({"seeds": 101}, 422, "how many seeds, 2 to 100"),
        ({"seeds": True}, 422, "how many seeds, 2 to 100"),
        ({"seeds": [1, -2]}, 422, "whole numbers from 0"),
        ({"seeds": [3, 1, 3]}, 422, "seeds has 3 more than once"),
        ({"seeds": [1, 2], "seed": 5}, 400, "leave seed out"),
        ({"register": "each"}, 400, "give seeds, or leave it out"),
        ({"seeds": 2, "register": "worst"}, 422, "register"),
        ({"seeds": 2, "total_timesteps": 10**7}, 422, "GRPO_MAX_TIMESTEPS"),
        ({"seeds": 2, "env_name": "Nope-v0"}, 400, "Nope-v0"),
        ({"seeds": 2, "init_from": "none"}, 404, "none"),
        ({"seeds": 99}, 429, "no room for 99 jobs together"),
        ({"seeds": 2, "sead": 1}, 422, "seed"),
    ],
)
def test_what_is_no_experiment_is_refused_and_leaves_nothing(
    services, client, fields, status, said
):
    before = everything(services)
    refused = client.post("/train", json=BODY | fields)
    assert refused.status_code == status, refused.text
    assert said in refused.json()["detail"]
    assert status != 429 or "Retry-After" in refused.headers
    assert everything(services) == before


def test_a_key_gives_one_experiment_or_one_job(client):
    def ask(key, **fields):
        return client.post("/train", json=BODY | fields, headers={"Idempotency-Key": key})

    first = ask("of an experiment".replace(" ", "-"), seeds=2).json()
    again = ask("of-an-experiment", seeds=2)
    assert again.json() == first, "the seeds that were drawn are those of the first call"
    listed = ask("listed", seeds=[4, 2])
    assert ask("listed", seeds=[4, 2]).json() == listed.json()
    assert ask("of-a-job").status_code == 200
    for key, fields in (
        ("of-an-experiment", {"seeds": 3}),
        ("of-an-experiment", {"seeds": 2, "gamma": 0.5}),
        ("of-an-experiment", {}),
        ("listed", {"seeds": [2, 4]}),
        ("of-a-job", {"seeds": 2}),
    ):
        refused = ask(key, **fields)
        assert refused.status_code == 422, (key, fields)
        assert "used with another body" in refused.json()["detail"]


def test_an_experiment_is_stopped_resumed_and_deleted(services, client):
    reply = started(client, seeds=2)
    path, jobs = f"/experiments/{reply['experiment_id']}", services.store
    for call, said in (("resume", "needs no resume"), ("retry", "No seed")):
        refused = client.post(f"{path}/{call}")
        assert refused.status_code == 409
        assert said in refused.json()["detail"]
    assert client.delete(path).status_code == 409
    assert client.post(f"{path}/stop").status_code == 200
    services.experiment_runner.look()
    services.experiment_runner.look()
    shown = client.get(path).json()
    assert (shown["status"], shown["counts"]) == ("stopped", {"stopped": 2})
    assert client.post(f"{path}/stop").status_code == 409
    assert client.post(f"{path}/resume").status_code == 200
    services.experiment_runner.look()
    assert client.get(path).json()["counts"] == {"queued": 2}
    assert {jobs.get(job["job_id"]).attempt for job in reply["jobs"]} == {2}
    client.post(f"{path}/stop")
    services.experiment_runner.look()
    # one goes on by itself: nothing is deleted, and the experiment goes on with it
    client.post(f"/training/{reply['jobs'][0]['job_id']}/resume")
    refused = client.delete(path)
    assert refused.status_code == 409
    client.post(f"{path}/stop")
    services.experiment_runner.look()
    services.experiment_runner.look()
    assert client.delete(path).json()["experiment_id"] == reply["experiment_id"]
    assert client.get(path).status_code == 404
    for job in reply["jobs"]:
        assert client.get(f"/training/{job['job_id']}/status").status_code == 404


@pytest.mark.parametrize("experiment_id", ["x", "0" * 32, "é" * 40])
def test_an_unknown_experiment_is_told_as_such(client, experiment_id):
    for method, path in (("GET", ""), ("POST", "/stop"), ("POST", "/retry"), ("DELETE", "")):
        reply = client.request(method, f"/experiments/{experiment_id}{path}")
        assert reply.status_code == 404
        assert "No experiment" in reply.json()["detail"]


def test_the_time_to_the_end_is_told_from_the_speed_of_the_seeds_that_train(services, client):
    reply = started(client, seeds=2, total_timesteps=1000)
    first = reply["jobs"][0]["job_id"]
    services.store.claim(first, 1, "elsewhere:1:1")
    services.store.start(first, "elsewhere:1:1")
    services.store.set_tags(first, {Tag.TIMESTEPS: "500"})
    services.store._client.log_metric(first, "time/fps", 100.0)
    shown = client.get(f"/experiments/{reply['experiment_id']}").json()
    assert shown["progress"] == 0.25
    assert shown["eta_seconds"] == pytest.approx((500 + 1000) / 100)
    services.store.finish(first, JobStatus.FAILED, "it broke")
    failed = client.get(f"/experiments/{reply['experiment_id']}").json()
    assert failed["counts"] == {"failed": 1, "queued": 1}
    assert failed["seeds"][0]["error_message"] == "it broke"
    assert failed["progress"] == 0.5


def test_a_page_is_read_in_two_queries_however_long_it_is(services, client, monkeypatch):
    for _ in range(3):
        body = {"seeds": 2, "total_timesteps": 64, "model_name": "pages"}
        assert client.post("/train", json=body).status_code == 200
    reads = []
    reader = services.experiments._reader
    read = reader._read

    def counted(statement):
        reads.append(statement)
        return read(statement)

    monkeypatch.setattr(reader, "_read", counted)
    assert len(client.get("/experiments").json()["experiments"]) >= 3
    assert len(reads) == 2
