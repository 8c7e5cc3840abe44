"""Models that somebody tampered with: refused with a clear error, and nothing in them is run."""

import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tracemalloc

import pytest
import torch
import yaml

from grpo_platform.core.errors import StoreUnavailableError, UnsafeModelError
from grpo_platform.registry.integrity import file_hashes, read_policy_files
from grpo_platform.registry.names import LOADER_MODULE, MODEL_KIND, Tag
from grpo_platform.serving.service import ServingService
from tests.service.registry_support import Bench, random_policy


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("hostile"))


class Bomb:
    """Pickled code that leaves a file behind when it is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.fixture(scope="module")
def honest(bench, tmp_path_factory):
    """A version, its folder, and a copy of the folder."""
    name = bench.name()
    ref = bench.register(name)
    copy = tmp_path_factory.mktemp("copy") / "model"
    shutil.copytree(bench.folder(ref), copy)
    return name, ref, copy


@pytest.fixture
def victim(bench, honest):
    """A version, its folder, and a way to make its tags agree with what was done to the files."""
    name, ref, copy = honest
    folder = bench.folder(ref)

    def agree():
        tags = {Tag.FILES: json.dumps(file_hashes(folder))}
        weights = (folder / "policy/weights.pt").read_bytes()
        tags[Tag.WEIGHTS_SHA256] = hashlib.sha256(weights).hexdigest()
        for key, value in tags.items():
            bench.client.set_model_version_tag(name, "1", key, value)

    yield name, folder, agree
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    bench.client.set_model_version_tag(name, "1", Tag.FILES, json.dumps(ref.files))


def refused(bench, name, tmp_path, version=1):
    """Every way to use a version refuses it; returns the message."""
    service = ServingService(bench.registry, 4)
    with pytest.raises(UnsafeModelError) as caught:
        service.load(f"{name}/{version}")
    assert service.loaded() == []
    service.close()
    with pytest.raises(UnsafeModelError):
        bench.registry.load_policy(f"{name}/{version}")
    with pytest.raises(UnsafeModelError):
        bench.registry.download(f"{name}/{version}", tmp_path / "download")
    assert not (tmp_path / "download").exists()
    for force in (False, True):
        with pytest.raises(UnsafeModelError):
            bench.promoter.promote(name, version, force, "me")
    assert not (tmp_path / "boom").exists()
    return str(caught.value)


def swap_weights(folder, tmp_path):
    buffer = io.BytesIO()
    torch.save(random_policy(seed=77).state_dict(), buffer)
    (folder / "policy/weights.pt").write_bytes(buffer.getvalue())


def pickle_weights(folder, tmp_path):
    (folder / "policy/weights.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))


def pickle_in_archive(folder, tmp_path):
    torch.save({"policy_net.0.weight": Bomb(tmp_path / "boom")}, folder / "policy/weights.pt")


def pickle_exported(folder, tmp_path):
    (folder / "data/model.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))


def change_spec(folder, tmp_path):
    spec = folder / "policy/spec.json"
    spec.write_text(spec.read_text().replace('"n": 2', '"n": 3'))


def gigantic_spec(folder, tmp_path):
    spec = folder / "policy/spec.json"
    values = json.loads(spec.read_text()) | {"net_arch": [2_000_000, 2_000_000]}
    spec.write_text(json.dumps(values))


def endless_spec(folder, tmp_path):
    os.truncate(folder / "policy/spec.json", 300 * 2**20)


def other_loader(folder, tmp_path):
    code = f"import os\nos.mkdir({str(tmp_path / 'boom')!r})\ndef _load_pyfunc(path): ...\n"
    (folder / f"code/{LOADER_MODULE}.py").write_text(code)


def second_module(folder, tmp_path):
    (folder / "code/numpy.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'boom')!r})\n")


def edit_mlmodel(change):
    def tamper(folder, tmp_path):
        path = folder / "MLmodel"
        model = yaml.safe_load(path.read_text())
        change(model["flavors"], tmp_path)
        path.write_text(yaml.safe_dump(model))

    return tamper


def foreign_module(flavors, tmp_path):
    flavors["python_function"]["loader_module"] = "mlflow.sklearn"


def outside_data(flavors, tmp_path):
    flavors["python_function"]["data"] = "../../../../etc"


def absolute_code(flavors, tmp_path):
    flavors["python_function"]["code"] = str(tmp_path)


def model_code(flavors, tmp_path):
    flavors["python_function"]["model_code_path"] = "code/evil.py"


def third_flavor(flavors, tmp_path):
    flavors["sklearn"] = {"pickled_model": "policy/weights.pt"}


def no_pyfunc(flavors, tmp_path):
    del flavors["python_function"]


def flavors_are_text(flavors, tmp_path):
    flavors["python_function"] = "policy"


def yaml_code(folder, tmp_path):
    path = str(tmp_path / "boom")
    (folder / "MLmodel").write_text(f"flavors: !!python/object/apply:os.mkdir [{path!r}]\n")


def symlink(folder, tmp_path):
    outside = tmp_path / "weights.pt"
    outside.write_bytes((folder / "policy/weights.pt").read_bytes())
    (folder / "policy/weights.pt").unlink()
    (folder / "policy/weights.pt").symlink_to(outside)


def symlinked_folder(folder, tmp_path):
    (folder / "policy").rename(tmp_path / "policy")
    (folder / "policy").symlink_to(tmp_path / "policy")


def named_pipe(folder, tmp_path):
    (folder / "policy/spec.json").unlink()
    os.mkfifo(folder / "policy/spec.json")


def missing_file(folder, tmp_path):
    (folder / "policy/spec.json").unlink()


def added_file(folder, tmp_path):
    (folder / "policy/extra.bin").write_bytes(b"x")


TAMPERINGS = {
    "weights swapped": swap_weights,
    "weights pickled": pickle_weights,
    "pickle in the archive": pickle_in_archive,
    "pickled torch model": pickle_exported,
    "another specification": change_spec,
    "a specification that fills the memory": gigantic_spec,
    "a specification of 300 MiB": endless_spec,
    "another loader": other_loader,
    "a second module": second_module,
    "foreign loader module": edit_mlmodel(foreign_module),
    "data outside": edit_mlmodel(outside_data),
    "code outside": edit_mlmodel(absolute_code),
    "model code": edit_mlmodel(model_code),
    "a third flavor": edit_mlmodel(third_flavor),
    "no pyfunc flavor": edit_mlmodel(no_pyfunc),
    "a flavor that is text": edit_mlmodel(flavors_are_text),
    "code in the yaml": yaml_code,
    "symlinked file": symlink,
    "symlinked folder": symlinked_folder,
    "named pipe": named_pipe,
    "missing file": missing_file,
    "added file": added_file,
}


@pytest.mark.rotated(6)
@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_changed_files_are_refused(bench, victim, tmp_path, tamper):
    name, folder, _ = victim
    tamper(folder, tmp_path)
    assert refused(bench, name, tmp_path)


HARMLESS_WITH_TAGS = {"weights swapped", "added file"}  # then they are simply another model
HOSTILE_WITH_TAGS = {
    kind: tamper
    for kind, tamper in TAMPERINGS.items()
    if kind not in HARMLESS_WITH_TAGS and not kind.startswith(("symlink", "named", "pickled torch"))
}


@pytest.mark.rotated(6)
@pytest.mark.parametrize("tamper", HOSTILE_WITH_TAGS.values(), ids=HOSTILE_WITH_TAGS)
def test_they_are_refused_even_if_their_hashes_agree(bench, victim, tmp_path, tamper):
    """Whoever can write the registry's tags too still cannot have anything run."""
    name, folder, agree = victim
    tamper(folder, tmp_path)
    agree()
    assert refused(bench, name, tmp_path)


def test_what_is_too_large_is_refused_before_it_is_read(bench, victim, tmp_path):
    name, folder, agree = victim
    endless_spec(folder, tmp_path)
    agree()
    tracemalloc.start()
    said = refused(bench, name, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "'policy/spec.json' has 314,572,800 bytes; at most 1,048,576 are read" in said
    assert peak < 50 * 2**20


@pytest.mark.parametrize("tamper", [pickle_weights, pickle_in_archive])
def test_pickles_are_refused_without_advice_to_unpickle_them(bench, victim, tmp_path, tamper):
    name, folder, agree = victim
    tamper(folder, tmp_path)
    agree()
    for message in (refused(bench, name, tmp_path), reason(bench.registry.load_policy, name)):
        assert "more than plain tensors" in message
        assert "weights_only" not in message


def reason(call, *arguments):
    with pytest.raises(UnsafeModelError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_version_made_by_hand_from_pickles_is_refused(bench, tmp_path):
    """Tags that look like ours, on files that never were."""
    name = bench.name()
    bench.register(name)
    folder = tmp_path / "evil"
    (folder / "code").mkdir(parents=True)
    (folder / "policy").mkdir()
    (folder / "policy/weights.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    (folder / "policy/spec.json").write_text("{}")
    (folder / f"code/{LOADER_MODULE}.py").write_text("raise SystemExit")
    (folder / "MLmodel").write_text("flavors: {}\n")
    logged = bench.client.create_logged_model(bench.store.experiment_id, "evil")
    bench.client.log_model_artifacts(logged.model_id, str(folder))
    tags = {
        Tag.KIND: MODEL_KIND,
        Tag.MODEL_ID: logged.model_id,
        Tag.FILES: json.dumps(file_hashes(folder)),
    }
    bench.client.create_model_version(name, logged.artifact_location, tags=tags)
    assert "loader that is not ours" in refused(bench, name, tmp_path, version=2)
    bench.client.set_registered_model_alias(name, "champion", "2")
    service = ServingService(bench.registry, 4)
    with pytest.raises(UnsafeModelError):
        service.load(name)
    # and a good version can be put in its place
    assert bench.promoter.promote(name, 1, True, "me").promoted
    assert service.load(name).version == 1
    service.close()


@pytest.mark.parametrize("tag", ["", "null", "[]", "{", '{"MLmodel": 1}', '{"../../x": "0"}'])
def test_tags_that_were_edited_are_refused(bench, victim, tmp_path, tag):
    name, _, _ = victim
    bench.client.set_model_version_tag(name, "1", Tag.FILES, tag)
    assert refused(bench, name, tmp_path)


def test_a_download_holds_what_was_checked_and_nothing_else(bench, victim, tmp_path):
    name, folder, _ = victim
    cache = folder / "code" / "__pycache__"
    cache.mkdir()
    # Python would run this instead of the loader, if date and size said that it is its byte code
    (cache / f"{LOADER_MODULE}.cpython-311.pyc").write_bytes(b"anything")
    target = tmp_path / "new" / "model"
    ref = bench.registry.download(name, target)
    assert file_hashes(target) == dict(ref.files)
    assert {path.name for path in target.rglob("*") if path.is_dir()} == {"code", "data", "policy"}
    assert list(target.parent.iterdir()) == [target]


def test_a_download_that_fails_leaves_nothing(bench, victim, tmp_path):
    name, _, _ = victim
    target = tmp_path / "model"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(StoreUnavailableError, match="cannot be copied"):
        bench.registry.download(name, target)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine"]


def test_the_models_own_copy_of_the_loader_is_never_imported(bench, victim, monkeypatch):
    name, _, _ = victim
    monkeypatch.delitem(sys.modules, LOADER_MODULE, raising=False)
    before = list(sys.path)
    service = ServingService(bench.registry, 4)
    assert service.load(name).predict_one([0.0] * 4).action in (0, 1)
    assert LOADER_MODULE not in sys.modules
    assert sys.path == before
    service.close()


def test_what_is_checked_is_what_is_used(bench, victim):
    """The bytes that were hashed are the bytes that are returned: nothing is read twice."""
    name, folder, _ = victim
    ref = bench.registry.resolve(name)
    files = read_policy_files(folder, ref.files, name)
    assert hashlib.sha256(files.weights).hexdigest() == ref.files["policy/weights.pt"]
    assert hashlib.sha256(files.spec).hexdigest() == ref.files["policy/spec.json"]
