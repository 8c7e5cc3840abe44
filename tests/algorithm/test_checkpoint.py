"""Checkpoints: the whole state comes back, and what is no checkpoint is refused."""

import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest

from grpo import CheckpointError, Trainer, TrainingState, checkpoint
from tests.algorithm.builders import short_config


@pytest.fixture(scope="module")
def state():
    trainer = Trainer(short_config(total_timesteps=150, kl_coef=0.1, branch_probability=1.0))
    trainer.train()
    return trainer.state()


def assert_same(here, there):
    if dataclasses.is_dataclass(here) and not isinstance(here, type):
        for spec in dataclasses.fields(here):
            assert_same(getattr(here, spec.name), getattr(there, spec.name))
    elif isinstance(here, dict):
        assert set(here) == set(there)
        for key in here:
            assert_same(here[key], there[key])
    elif isinstance(here, list | tuple):
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            assert_same(one, other)
    elif isinstance(here, np.ndarray):
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(here, there)
    else:
        assert here == there


def test_round_trip_is_exact(tmp_path, state):
    extra = {"sums": [1.5, None], "key": {"step": 3}}
    checkpoint.save(tmp_path / "c.npz", state, extra)
    loaded, back = checkpoint.load(tmp_path / "c.npz")
    assert isinstance(loaded, TrainingState)
    assert back == extra
    assert state.next_starts[0] is not None
    assert state.reference is not None
    assert_same(state, loaded)


def test_nothing_is_pickled(tmp_path, state):
    checkpoint.save(tmp_path / "c.npz", state, {})
    with zipfile.ZipFile(tmp_path / "c.npz") as archive:
        for name in archive.namelist():
            assert b"|O" not in archive.read(name)[:128]


def test_a_file_is_replaced_as_a_whole(tmp_path, state):
    path = tmp_path / "c.npz"
    checkpoint.save(path, state, {"n": 1})
    with pytest.raises(TypeError):
        checkpoint.save(path, state, {"n": object()})
    assert checkpoint.load(path)[1] == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def rewrite(path, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(arrays["meta"].tobytes())
    change(meta, arrays)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **arrays)


def foreign_format(meta, arrays):
    meta["format"] = "grpo-checkpoint-999"


def lost_array(meta, arrays):
    del arrays["a0"]


def unknown_field(meta, arrays):
    meta["state"]["surprise"] = 1


def bad_config(meta, arrays):
    meta["state"]["config"]["gamma"] = 7


@pytest.mark.parametrize("change", [foreign_format, lost_array, unknown_field, bad_config])
def test_what_is_not_a_checkpoint_of_ours_is_refused(tmp_path, state, change):
    path = tmp_path / "c.npz"
    checkpoint.save(path, state, {})
    rewrite(path, change)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"PK\x03\x04 cut short", pickle.dumps({"meta": 1}), pickle.dumps(Trap())],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "c.npz")


def test_a_truncated_file_is_refused(tmp_path, state):
    path = tmp_path / "c.npz"
    checkpoint.save(path, state, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "nothing.npz")


def test_object_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "c.npz", meta=np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "c.npz")
