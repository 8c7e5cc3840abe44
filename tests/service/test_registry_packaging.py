"""Models as MLflow and others load them, on machines that do not have this repository."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import requests
import torch
import yaml

import grpo
from grpo.actions import BoxActions, DiscreteActions
from grpo.policies import PolicySpec
from grpo_platform.registry.integrity import file_hashes, read_policy_files
from grpo_platform.registry.names import LOADER_MODULE
from grpo_platform.registry.packaging import save_policy, warm_up
from grpo_platform.registry.policy_files import policy_from_files
from tests.service.registry_support import CARTPOLE, PENDULUM, Bench, random_policy

SPECS = {
    "discrete": PolicySpec(observation_shape=(4,), action=DiscreteActions(3, start=1)),
    "box": PENDULUM,
    "scalars": PolicySpec(
        observation_shape=(), action=BoxActions((), (-2.0,), (2.0,)), net_arch=(8,)
    ),
    "integers": PolicySpec(
        observation_shape=(3,), action=BoxActions((2,), (0.0, -9.0), (9.0, 9.0), integer=True)
    ),
}


@pytest.fixture(scope="module", params=list(SPECS))
def model(request, tmp_path_factory):
    """A saved policy, its folder, and observations."""
    policy = random_policy(SPECS[request.param], seed=3)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    save_policy(policy, folder, metadata={"seed": 3}, model_id="m-1", run_id="r-1")
    observations = np.random.default_rng(0).normal(0, 2, (64, *policy.spec.observation_shape))
    return policy, folder, observations.astype(np.float32)


@pytest.mark.rotated(5)
def test_both_flavors_give_the_policys_actions(model, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    policy, folder, observations = model
    pyfunc = mlflow.pyfunc.load_model(str(folder))
    exported = mlflow.pytorch.load_model(str(folder))
    expected = policy.predict(observations).actions
    for n in (1, 2, 64):
        answers = pyfunc.predict(observations[:n])
        np.testing.assert_allclose(answers["action"], expected[:n], rtol=1e-5, atol=1e-5)
        outputs = exported(torch.from_numpy(observations[:n]))
        assert set(outputs) == set(answers)
        for name, tensor in outputs.items():
            np.testing.assert_allclose(
                tensor.detach().numpy(), answers[name], rtol=1e-4, atol=1e-4, err_msg=name
            )


def test_the_answers_are_what_the_signature_says(model):
    _, folder, observations = model
    pyfunc = mlflow.pyfunc.load_model(str(folder))
    answers = pyfunc.predict(observations, params={"deterministic": False})
    specified = {spec.name: spec for spec in pyfunc.metadata.signature.outputs.inputs}
    assert set(specified) == set(answers)
    for name, array in answers.items():
        assert array.dtype == specified[name].type
        assert array.shape == (64, *specified[name].shape[1:])


def test_requirements_are_pinned_and_few(model):
    lines = (model[1] / "requirements.txt").read_text().split()
    assert sorted(line.split("==")[0] for line in lines) == ["mlflow", "numpy", "torch"]
    assert all("==" in line and "+" not in line for line in lines)


def test_the_model_file_repeats_the_card_and_names_our_loader(model):
    mlmodel = yaml.safe_load((model[1] / "MLmodel").read_text())
    assert mlmodel["metadata"] == {"seed": 3}
    assert mlmodel["model_id"] == "m-1"
    assert mlmodel["run_id"] == "r-1"
    assert mlmodel["flavors"]["python_function"]["loader_module"] == LOADER_MODULE


def contents(path):
    """Bytes of a file, and of each member if it is an archive, by name."""
    yield str(path), path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                yield f"{path}/{member}", archive.read(member)


def test_no_file_names_a_path_of_the_machine_that_made_it(model):
    places = {
        str(Path(grpo.__file__).parents[1]),
        str(Path(torch.__file__).parents[1]),
        str(Path.home()),
        os.getcwd(),
        tempfile.gettempdir(),
    } - {"/"}
    files = [path for path in model[1].rglob("*") if path.is_file()]
    made = [path for path in files if "__pycache__" not in path.parts]  # by who loaded it here
    found = [item for path in made for item in contents(path)]
    assert any(name.endswith("model.pt2/model/models/model.json") for name, _ in found)
    told = [
        (name, place)
        for name, content in found
        for place in (*places, "site-packages", 'File \\"')
        if place.encode() in content
    ]
    assert not told


def test_a_policy_comes_back_whole(model):
    policy, folder, observations = model
    files = read_policy_files(folder, file_hashes(folder), "it")
    again = policy_from_files(files, "m/1")
    for name, tensor in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    np.testing.assert_array_equal(
        again.predict(observations).actions, policy.predict(observations).actions
    )


def test_the_weights_saved_are_as_large_as_the_weights(tmp_path):
    """Views of one buffer would be saved with the whole buffer, once for each."""
    policy = random_policy(PolicySpec(observation_shape=(64,), action=DiscreteActions(2)))
    save_policy(policy, tmp_path / "model")
    size = (tmp_path / "model" / "policy" / "weights.pt").stat().st_size
    assert size < 4 * policy.flat.size + 16_384


def test_warming_up_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    warm_up()
    assert not any(p.suffix == ".pt2" for p in tmp_path.rglob("*"))


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("grpo", "grpo_platform"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A folder and an environment in which this repository cannot be imported."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKER)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GRPO", "MLFLOW"))
    }
    scripts = Path(sys.executable).parent  # MLflow starts uvicorn by name
    environment |= {
        "PYTHONPATH": str(site),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return tmp_path, environment


CLIENT = """
import json, sys
import numpy as np
try:
    import grpo
except ModuleNotFoundError:
    pass
else:
    sys.exit("grpo can be imported here: this proves nothing")
import mlflow.pyfunc, mlflow.pytorch, torch
folder, observations = sys.argv[1], np.load(sys.argv[2])
pyfunc = mlflow.pyfunc.load_model(folder).predict(observations)["action"]
exported = mlflow.pytorch.load_model(folder)(torch.from_numpy(observations))["action"]
print(json.dumps([pyfunc.tolist(), exported.tolist()]))
"""


@pytest.mark.rotated(5)
def test_both_flavors_work_without_this_repository(model, elsewhere):
    policy, folder, observations = model
    cwd, environment = elsewhere
    np.save(cwd / "observations.npy", observations)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(folder), str(cwd / "observations.npy")],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pyfunc, exported = json.loads(done.stdout.splitlines()[-1])
    expected = policy.predict(observations).actions
    np.testing.assert_allclose(pyfunc, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(exported, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.rotated(13)
@pytest.mark.slow
def test_mlflow_serves_the_champion_without_this_repository(tmp_path, elsewhere):
    bench = Bench(tmp_path / "store")
    policy = random_policy(CARTPOLE, seed=5)
    ref, _ = bench.register("served", policy, rule="if_better")
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    cwd, environment = elsewhere
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion",
                "--env-manager", "local", "--port", str(port), "--workers", "1",
            ],
            cwd=cwd, env=environment | {"MLFLOW_TRACKING_URI": bench.uri}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        answer = ask(f"http://127.0.0.1:{port}/invocations", {"inputs": observations.tolist()})
        sampled = ask(
            f"http://127.0.0.1:{port}/invocations",
            {"inputs": np.zeros((50, 4)).tolist(), "params": {"deterministic": False}},
        )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    np.testing.assert_array_equal(
        answer["predictions"]["action"], policy.predict(observations).actions
    )
    assert len(sampled["predictions"]["action"]) == 50
    # MLflow left a note and Python its byte code beside the files: that is not tampering
    bench.registry.read(ref)


def ask(url, body):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            reply = requests.post(url, json=body, timeout=30)
            assert reply.status_code == 200, reply.text
            return reply.json()
        time.sleep(0.2)
    raise AssertionError("the server did not answer")


def said_by_a_child(save, limit_bytes):
    """What `save` raises where no file may have more bytes, as on a disk that becomes full."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # of its own, since torch may end the process that could not write
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        try:
            save()
        except OSError as error:
            os.write(write, str(error).encode())
            os._exit(1)  # before what torch left is cleaned up, which may abort
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        return said.read()


def test_files_that_do_not_fit_are_errors_that_jobs_wait_for(tmp_path, monkeypatch):
    policy = random_policy(CARTPOLE)
    said = said_by_a_child(lambda: save_policy(policy, tmp_path / "model"), 8192)
    assert "torch could not write the model's archive" in said
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(OSError, match="No space left"):
        save_policy(policy, tmp_path / "full")
