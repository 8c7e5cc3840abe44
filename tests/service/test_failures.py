"""A job's failures over the API: made with the run, listed, and turned into scenarios."""

import io
import json
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from grpo_platform.registry.names import REFERENCE_FILE
from grpo_platform.services.direct import compare_environment_of
from tests.service.api_support import client_of, services_in

SHORT = {
    "total_timesteps": 600, "seed": 3, "n_eval_episodes": 30, "model_name": "short",
    "failure_gallery": 3,
}  # fmt: skip


def completed(client, job_id, artifacts):
    """Wait until the job is completed and its run has so many artifacts."""
    deadline = time.monotonic() + 120
    while True:
        job = client.get(f"/training/{job_id}/status").json()
        assert job["status"] in ("queued", "running", "completed"), job
        if job["status"] == "completed" and artifacts(job_id):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    with services_in(folder, job_backend="memory") as services, client_of(services) as client:
        yield services, client


@pytest.fixture(scope="module")
def job_id(live):
    services, client = live
    job_id = client.post("/train", json=SHORT).json()["job_id"]
    waiting = client.get(f"/training/{job_id}/failures").json()
    assert waiting["failures"] == []
    note = "mlflow.note.content"
    completed(client, job_id, lambda id: "failures/" in services.store.tags(id).get(note, ""))
    return job_id


@pytest.mark.rotated(8)
def test_failures_are_listed_with_what_the_run_keeps_of_them(live, job_id):
    services, client = live
    found = client.get(f"/training/{job_id}/failures").json()
    assert found["notes"] == []
    assert found["episodes"] == 30
    assert [each["number"] for each in found["failures"]] == [1, 2, 3]
    returns = [each["return"] for each in found["failures"]]
    assert returns == sorted(returns)
    assert returns[-1] < found["median"]
    stored = services.store.list_artifacts(job_id, "failures")
    assert stored == [
        *(f"failures/0{n}" for n in (1, 2, 3)),
        "failures/gallery.json",
        found["page"],
    ]
    for each in found["failures"]:
        names = services.store.list_artifacts(job_id, f"failures/0{each['number']}")
        assert names == [each["clip"], each["snapshot"], each["trace"]]
    assert "failures/index.html" in services.store.tags(job_id)["mlflow.note.content"]


@pytest.mark.rotated(8)
def test_films_are_those_of_the_run(live, job_id):
    services, client = live
    for path, artifact in (("film", "episodes.mp4"), ("failures/2/film", "failures/02/clip.mp4")):
        reply = client.get(f"/training/{job_id}/{path}")
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "video/mp4"), path
        with TemporaryDirectory() as folder:
            stored = services.store.download(job_id, artifact, Path(folder)).read_bytes()
        assert reply.content == stored
    assert client.get(f"/training/{job_id}/failures/9/film").status_code == 404
    unknown = client.get(f"/training/{'0' * 32}/film")
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-1", slice(0, 2)),
        ("bytes=0-", slice(0, None)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=100-99999999", slice(100, None)),
        ("bytes=-10", slice(-10, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_part_of_a_film_is_sent_as_browsers_ask_for_it(live, job_id, asked, part):
    _, client = live
    whole = client.get(f"/training/{job_id}/film")
    assert whole.headers["Accept-Ranges"] == "bytes"
    for path in (f"/training/{job_id}/film", f"/training/{job_id}/failures/2/film"):
        content = client.get(path).content
        reply = client.get(path, headers={"Range": asked})
        assert reply.status_code == 206
        assert reply.content == content[part]
        start, stop, _ = part.indices(len(content))
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
        assert int(reply.headers["Content-Length"]) == stop - start
    same = {"Range": asked, "If-Range": whole.headers["ETag"]}
    assert client.get(f"/training/{job_id}/film", headers=same).status_code == 206


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=5-2"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=0x1-2"},
        {"Range": "bytes=" + "9" * 5000 + "-"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
    ],
)
def test_what_is_no_range_gets_the_whole_film(live, job_id, headers):
    _, client = live
    path = f"/training/{job_id}/film"
    reply = client.get(path, headers=headers)
    assert (reply.status_code, reply.content) == (200, client.get(path).content)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_film_is_refused_with_its_size(live, job_id, asked):
    _, client = live
    path = f"/training/{job_id}/film"
    size = len(client.get(path).content)
    reply = client.get(path, headers={"Range": asked})
    assert reply.status_code == 416
    assert reply.headers["Content-Range"] == f"bytes */{size}"
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert f"from 0 to {size - 1}" in reply.json()["detail"]


def test_the_configuration_tells_what_differs_from_the_preset(live, job_id):
    _, client = live
    reply = client.get(f"/training/{job_id}/config").json()
    assert reply["config"]["model_name"] == "short"
    assert reply["preset"] == {
        "total_timesteps": 10_000, "n_eval_episodes": 100,
    }  # fmt: skip
    assert reply["threshold"] == 475.0
    assert client.get(f"/training/{'0' * 32}/config").status_code == 404


@pytest.mark.rotated(8)
def test_a_version_is_downloaded_as_one_file(live, job_id, tmp_path):
    _, client = live
    path = "/models/short/versions/1/download"
    archive = client.get(path)
    assert archive.headers["Content-Disposition"] == 'attachment; filename="short-1.zip"'
    with zipfile.ZipFile(io.BytesIO(archive.content)) as files:
        graph = files.read("data/model.pt2")
        assert "MLmodel" in files.namelist()
    assert client.get(f"{path}?format=pt2").content == graph
    onnx = client.get(f"{path}?format=onnx")
    assert onnx.headers["Content-Disposition"] == 'attachment; filename="short-1.onnx"'
    assert len(onnx.content) > 1_000
    assert client.get(f"{path}?format=pickle").status_code == 422
    assert client.get("/models/short/versions/9/download").status_code == 404


def test_who_promotes_or_rolls_back_says_why(live, job_id):
    _, client = live
    forced = {"version": 1, "force": True, "note": "It was asked for."}
    assert client.post("/models/short/promote", json=forced).status_code == 409  # champion already
    long = {"version": 1, "note": "x" * 501}
    assert client.post("/models/short/promote", json=long).status_code == 422
    assert client.post("/models/short/rollback?note=Because.").status_code == 409


def test_the_version_carries_its_reference_episodes(live, job_id):
    services, _ = live
    version = services.registry.resolve("short/1")
    assert REFERENCE_FILE in version.files
    kept = services.registry.reference_of(version)
    assert [one.seed for one in kept.trajectories] == kept.evaluation.seeds[:2].tolist()
    assert len(kept.evaluation.returns) == 30
    assert compare_environment_of(services.settings, job_id).verdict == "identical"


@pytest.mark.rotated(12)
def test_a_failure_becomes_a_scenario_in_one_call(live, job_id):
    _, client = live
    failure = client.get(f"/training/{job_id}/failures").json()["failures"][0]
    made = client.post(f"/training/{job_id}/failures/1/scenario", json={})
    assert made.status_code == 200, made.text
    told = made.json()
    assert told["model_name"] == "short"
    (scenario,) = told["suite"]["scenarios"]
    assert scenario["name"] == told["scenario"] == f"failure 1 of {job_id}"
    rest = failure["length"] - failure["collapse"]["step"]
    assert scenario["assert"] == [f"return > {float(rest)!r}"]  # each step of CartPole's gives 1
    assert scenario["start"][0]["snapshot"]
    # the version that failed fails again, with the same return from there
    result = client.post("/models/short/scenarios/run", json={"version": 1}).json()
    assert result["passed"] is False
    again = client.post(f"/training/{job_id}/failures/1/scenario", json={}).json()
    assert again["suite"] == told["suite"]
    both = {"scenario": "tipping", "assertions": ["length >= 2"]}
    for number in (1, 2):
        made = client.post(f"/training/{job_id}/failures/{number}/scenario", json=both).json()
    assert [len(each["start"]) for each in made["suite"]["scenarios"]] == [1, 2]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("{job}/failures/9/scenario", {}, 404, "3 failures, from 1"),
        ("{job}/failures/0/scenario", {}, 422, "number"),
        ("{job}/failures/1/scenario", {"scenario": "a/b"}, 422, "scenario"),
        ("{job}/failures/1/scenario", {"scenario": "new", "assertions": ["x"]}, 422, "assert"),
        ("{job}/failures/1/scenario", {"why": 1}, 422, "why"),
        ("f" * 32 + "/failures/1/scenario", {}, 404, "No training job"),
    ],
)
def test_bad_input_is_a_sentence(live, job_id, path, body, status, said):
    _, client = live
    before = client.get("/models/short/scenarios").json()
    reply = client.post(f"/training/{path.format(job=job_id)}", json=body)
    assert reply.status_code == status, reply.text
    assert said in reply.text
    assert client.get("/models/short/scenarios").json() == before


def test_a_job_that_wants_none_says_so_and_damage_is_told(live, job_id):
    services, client = live
    without = SHORT | {"failure_gallery": 0, "model_name": "none", "total_timesteps": 100}
    other = client.post("/train", json=without).json()["job_id"]
    completed(client, other, lambda id: services.store.list_artifacts(id))
    notes = client.get(f"/training/{other}/failures").json()["notes"]
    assert notes == ["The job was trained with failure_gallery 0."]
    assert client.post("/train", json={"failure_gallery": 21}).status_code == 422
    path = Path(services.store.get(job_id).artifact_uri.removeprefix("file://"))
    gallery = path / "failures/gallery.json"
    whole = gallery.read_text()
    for damaged in ("{", "[]", json.dumps({"failures": [1]})):
        gallery.write_text(damaged)
        reply = client.get(f"/training/{job_id}/failures")
        assert reply.status_code == 503, reply.text
    gallery.write_text(whole)
