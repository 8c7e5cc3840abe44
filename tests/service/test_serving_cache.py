"""The cache of loaded models: bounded, one load at a time, nothing dropped comes back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpo_platform.serving.cache import ModelCache


def key(name, version=1):
    return (name, version, f"m-{name}-{version}")


def test_the_least_recently_used_goes_first():
    cache = ModelCache(2)
    for name in "abc":
        if name == "c":
            assert cache.get(key("a")) == "a"
        assert cache.load(key(name), 0, lambda name=name: name) == name
    assert cache.loaded() == [key("a"), key("c")]
    assert cache.get(key("b")) is None


def test_loading_again_counts_as_use():
    cache = ModelCache(2)
    for name in "abac":
        cache.load(key(name), 0, lambda name=name: name)
    assert cache.loaded() == [key("a"), key("c")]


def test_the_new_one_is_loaded_before_the_old_one_is_let_go():
    cache = ModelCache(1)
    cache.load(key("a", 1), 0, lambda: "old")

    def load():
        assert cache.get(key("a", 1)) == "old"
        return "new"

    assert cache.load(key("a", 2), 0, load) == "new"
    assert cache.loaded() == [key("a", 2)]


def test_many_callers_one_load():
    cache = ModelCache(4)
    loads, gate = [], threading.Barrier(8)

    def load():
        loads.append(1)
        time.sleep(0.05)
        return object()

    def call(_):
        gate.wait()
        return cache.load(key("a"), 0, load)

    with ThreadPoolExecutor(8) as pool:
        models = set(pool.map(call, range(8)))
    assert len(loads) == 1
    assert len(models) == 1


def test_different_models_load_side_by_side():
    cache = ModelCache(4)
    together = threading.Barrier(2, timeout=5)

    def load():
        together.wait()  # would time out if loads were one after the other
        return object()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(lambda name: cache.load(key(name), 0, load), "ab"))) == 2


def test_a_failed_load_fails_for_all_who_waited_and_is_tried_again():
    cache = ModelCache(4)
    gate = threading.Barrier(3)

    def fail():
        time.sleep(0.05)
        raise OSError("no")

    def call(_):
        gate.wait()
        with pytest.raises(OSError, match="no"):
            cache.load(key("a"), 0, fail)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(call, range(3)))
    assert cache.load(key("a"), 0, lambda: "fine") == "fine"


def test_what_was_dropped_while_it_loaded_is_not_kept():
    cache = ModelCache(4)
    before = cache.generation("a")

    def load():
        cache.drop("a")
        return "gone"

    assert cache.load(key("a"), before, load) == "gone"
    assert cache.loaded() == []
    assert cache.generation("a") != before


def test_dropping_a_name_drops_its_versions_and_no_other():
    cache = ModelCache(4)
    for k in (key("a", 1), key("a", 2), key("b")):
        cache.load(k, 0, object)
    cache.drop("a")
    assert cache.loaded() == [key("b")]
