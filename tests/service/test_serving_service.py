"""From names to answers on a real store, while models are promoted, rolled back and deleted."""

import math
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.stats

from grpo_platform.core.errors import (
    InvalidObservationError,
    StoreUnavailableError,
    UnknownModelError,
)
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.models import Registry
from grpo_platform.registry.promotion import Promoter
from grpo_platform.serving import service as service_module
from grpo_platform.serving.service import ServingService
from tests.service.registry_support import (
    PENDULUM,
    Bench,
    balancing_policy,
    random_policy,
)
from tests.waiting import until


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("serving"))


@contextmanager
def serving(bench, size=8):
    """A service over a registry of its own, as another server would have."""
    service = ServingService(Registry(bench.uri), size)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def two_versions(bench):
    """A name with versions 1 (champion) and 2, which disagree on every observation."""
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    bench.register(name, pushing(1), rule="never")
    return name


def pushing(action):
    """A policy that always does the same."""
    policy = balancing_policy()
    policy.flat[:] = 0.0
    policy.policy_net[2].bias.data[action] = 3.0
    return policy


def test_it_answers_as_the_policy_does(bench):
    name = bench.name()
    policy = random_policy(seed=4)
    bench.register(name, policy)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    with serving(bench) as service:
        model = service.load(name)
        actions = model.predict_batch(observations.tolist())["action"]
        np.testing.assert_array_equal(actions, policy.predict(observations).actions)
        assert (model.name, model.version) == (name, 1)
        assert service.ready(name) is model
        for row, observation in enumerate(observations):
            assert model.predict_one(observation.tolist()).action == actions[row]


def test_nothing_is_ready_before_it_was_loaded(bench, two_versions):
    with serving(bench) as service:
        assert service.ready(two_versions) is None
        assert service.loaded() == []
        service.load(two_versions)
        assert service.ready(two_versions).version == 1
        assert service.loaded() == [two_versions]
        assert (service.stats.hits, service.stats.misses, service.stats.loads) == (1, 1, 1)


def test_versions_and_aliases(bench, two_versions):
    with serving(bench) as service:
        for reference, action in (
            (two_versions, 0), (f"{two_versions}@champion", 0), (f"{two_versions}/2", 1),
        ):  # fmt: skip
            assert service.load(reference).predict_one([0.0] * 4).action == action
        assert service.stats.loads == 2


@pytest.mark.parametrize("name", ["nope", "../../etc/passwd", "", "{}@nope", "{}/9", "a b"])
def test_unknown_names(bench, two_versions, name):
    with serving(bench) as service, pytest.raises(UnknownModelError):
        service.load(name.replace("{}", two_versions))


@pytest.mark.parametrize(
    "observation",
    [[], [0.0] * 3, [0.0] * 5, [math.nan] * 4, [0, 0, 0, math.inf], [-math.inf, math.inf, 0, 0]],
)
def test_observations_that_do_not_fit(bench, two_versions, observation):
    with serving(bench) as service:
        model = service.load(two_versions)
        with pytest.raises(InvalidObservationError, match="4 finite numbers"):
            model.predict_one(observation)
        with pytest.raises(InvalidObservationError, match="4 finite numbers"):
            model.predict_batch([[0.0] * 4, observation])


def test_absurd_but_finite_observations_are_answered(bench, two_versions):
    with serving(bench) as service:
        model = service.load(two_versions)
        assert model.predict_one([1e308, 1e308, 1e308, -1e308]).action == 0
        assert model.predict_batch([[1e308] * 4])["action"].tolist() == [0]


def test_batches_of_any_shape_that_fits(bench, two_versions):
    with serving(bench) as service:
        model = service.load(two_versions)
        assert model.predict_batch([])["action"].shape == (0,)
        assert model.predict_batch(np.zeros((3, 4), np.float32))["action"].shape == (3,)
        with pytest.raises(InvalidObservationError):
            model.predict_batch(np.zeros((3, 2, 2)))


def test_continuous_actions_stay_within_the_space(bench):
    name = bench.name()
    bench.register(name, random_policy(PENDULUM, gain=10.0), env_name="Pendulum-v1")
    with serving(bench) as service:
        model = service.load(name)
        assert not model.discrete
        for scale in (0.1, 1e3):
            one = model.predict_one([scale, -scale, scale], deterministic=False)
            assert isinstance(one.action, list)
            assert one.action_probs is None
            assert -2.0 <= one.action[0] <= 2.0
        outputs = model.predict_batch(np.full((100, 3), 5.0), deterministic=False)
        assert np.abs(outputs["action"]).max() <= 2.0
        assert set(outputs) == {"action", "mean", "std", "value"}


def test_stochastic_answers_follow_the_probabilities(bench):
    name = bench.name()
    bench.register(name, random_policy(gain=0.9))
    with serving(bench) as service:
        model = service.load(name)
        observation = [0.1, -0.2, 0.3, 0.4]
        probabilities = model.predict_one(observation).action_probs
        assert min(probabilities) > 0.01
        n = 20_000
        drawn = [model.predict_one(observation, deterministic=False).action for _ in range(n)]
        counts = np.bincount(drawn, minlength=2)
        assert scipy.stats.chisquare(counts, np.array(probabilities) * n).pvalue > 1e-4


def test_the_first_call_on_a_saved_model_is_quick(bench, two_versions):
    """The aim is 0.3 s in a warm process; the best of three, on a busy machine."""
    times = []
    with serving(bench) as service:
        for _ in range(3):
            service.evict(two_versions)
            started = time.perf_counter()
            service.load(two_versions).predict_one([0.0] * 4)
            times.append(time.perf_counter() - started)
    assert min(times) < 0.3


@pytest.mark.rotated(8)
def test_a_promotion_here_is_served_when_it_is_reported(bench):
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    bench.register(name, pushing(1), rule="never")
    registry = Registry(bench.uri)
    service = ServingService(registry, 8)
    service.load(name)
    Promoter(registry).promote(name, 2, True, "me")
    assert service.ready(name).version == 2
    Promoter(registry).rollback(name, "me")
    assert service.ready(name).version == 1
    delete_model(registry, name)
    assert service.ready(name) is None
    assert service.loaded() == []
    with pytest.raises(UnknownModelError):
        service.load(name)
    service.close()


def test_a_promotion_by_another_server_is_followed(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.05)
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    bench.register(name, pushing(1), rule="never")
    with serving(bench) as service:
        service.load(name)
        bench.promoter.promote(name, 2, True, "elsewhere")
        until(lambda: service.ready(name).version == 2)


@pytest.mark.rotated(8)
def test_after_a_pause_the_version_is_looked_up_first(bench, monkeypatch):
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    bench.register(name, pushing(1), rule="never")
    with serving(bench) as service:
        service.load(name)
        monkeypatch.setattr(service_module, "STALE_SECONDS", 0.0)
        monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.0)
        bench.promoter.promote(name, 2, True, "elsewhere")
        assert service.ready(name) is None
        assert service.load(name).version == 2


def test_a_deletion_by_another_server_is_followed(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.05)
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    with serving(bench) as service:
        service.load(name)
        delete_model(bench.registry, name)
        until(lambda: service.ready(name) is None)
        assert service.loaded() == []
        with pytest.raises(UnknownModelError):
            service.load(name)


def test_a_name_made_anew_is_another_model(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.0)
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    with serving(bench) as service:
        assert service.load(name).predict_one([0.0] * 4).action == 0
        delete_model(bench.registry, name)
        bench.register(name, pushing(1), rule="always")
        model = service.load(name)
        assert (model.version, model.predict_one([0.0] * 4).action) == (1, 1)


def test_a_model_deleted_in_the_mlflow_ui_goes_on_answering(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.0)
    name = bench.name()
    bench.register(name, pushing(1), rule="always")
    with serving(bench) as service:
        service.load(name)
        bench.client.delete_registered_model(name)
        for call in (
            lambda: Promoter(service._registry).promote(name, 1, False, "me"),
            lambda: Promoter(service._registry).rollback(name, "me"),
            lambda: service._registry.get(name),
        ):
            with pytest.raises(UnknownModelError):
                call()
        assert service.load(name).predict_one([0.0] * 4).action == 1
        service.refresh(name)
        assert service.ready(name).predict_one([0.0] * 4).action == 1
    with serving(bench) as other, pytest.raises(UnknownModelError):
        other.load(name)


def test_a_store_that_is_away_costs_nothing_but_news(bench, two_versions, monkeypatch):
    with serving(bench) as service:
        service.load(two_versions)
        monkeypatch.setattr(service_module, "STALE_SECONDS", 0.0)
        monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.0)
        monkeypatch.setattr(service._registry, "resolve", unavailable)
        assert service.load(two_versions).version == 1
        with pytest.raises(StoreUnavailableError):
            service.load("never-loaded")


@pytest.mark.rotated(8)
def test_a_store_that_hangs_keeps_nobody_waiting(bench, monkeypatch):
    for name, seconds in (("STALE", 0.2), ("FRESH", 0.1), ("PATIENCE", 0.3)):
        monkeypatch.setattr(service_module, f"{name}_SECONDS", seconds)
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    bench.register(name, pushing(1), rule="never")
    with serving(bench) as service:
        service.load(name)
        resolve, answers = service._registry.resolve, threading.Event()

        def hanging(reference):
            assert answers.wait(60)
            return resolve(reference)

        monkeypatch.setattr(service._registry, "resolve", hanging)
        bench.promoter.promote(name, 2, True, "elsewhere")
        until(lambda: service.ready(name) is None)  # nobody asked for a while
        assert service.load(name).version == 1
        # now that the store was asked in vain, nobody else waits
        assert service.ready(name).version == 1
        answers.set()
        until(lambda: (service.ready(name) or service.load(name)).version == 2)


def test_what_the_store_did_not_say_is_asked_again(bench, two_versions, monkeypatch):
    with serving(bench) as service:
        service.load(two_versions)
        ended = time.monotonic()
        with monkeypatch.context() as patched:
            patched.setattr(service._registry, "resolve", unavailable)
            service.refresh(two_versions)
        resolve, asked = service._registry.resolve, []
        monkeypatch.setattr(
            service._registry, "resolve", lambda name: asked.append(name) or resolve(name)
        )
        service.refresh(two_versions, since=ended)
        assert asked == [two_versions]


def unavailable(reference):
    raise StoreUnavailableError("away")


def test_a_small_cache_reloads_what_it_let_go(bench, two_versions):
    with serving(bench, size=1) as service:
        for _ in range(2):
            assert service.load(f"{two_versions}/1").version == 1
            assert service.load(f"{two_versions}/2").version == 2
            assert service.ready(f"{two_versions}/1") is None
        assert service.stats.loads == 4


class Hammer:
    """Clients that ask without a pause and check each answer against the version it names."""

    def __init__(self, service, name, threads=4):
        self._service, self._name = service, name
        self._stop = threading.Event()
        self.answers, self.wrong, self.errors, self.unknown = {}, [], [], 0
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        while not self._stop.is_set():
            try:
                model = self._service.ready(self._name) or self._service.load(self._name)
                one = model.predict_one([0.0] * 4)
            except UnknownModelError:
                self.unknown += 1
                continue
            except BaseException as error:
                self.errors.append(error)
                raise
            # version n of these tests always does (n − 1) mod 2
            if one.action != (model.version - 1) % 2 or (one.action_probs[one.action] < 0.9):
                self.wrong.append((model.version, one))
            self.answers[model.version] = self.answers.get(model.version, 0) + 1
            time.sleep(0)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.rotated(8)
def test_promotions_and_rollbacks_under_load_never_give_a_wrong_answer(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.02)
    name = bench.name()
    for version in range(4):
        bench.register(name, pushing(version % 2), rule="always")
    registry = Registry(bench.uri)
    service = ServingService(registry, 2)
    with Hammer(service, name) as hammer:
        for _ in range(2):
            for _ in range(3):
                version = Promoter(registry).rollback(name, "me").version
                assert (service.ready(name) or service.load(name)).version == version
            for version in (2, 3, 4):
                Promoter(registry).promote(name, version, True, "me")
                assert (service.ready(name) or service.load(name)).version == version
    service.close()
    assert hammer.errors == hammer.wrong == []
    assert hammer.unknown == 0
    assert set(hammer.answers) == {1, 2, 3, 4}


def test_a_deletion_under_load_ends_the_answers_and_never_fails(bench, monkeypatch):
    monkeypatch.setattr(service_module, "FRESH_SECONDS", 0.02)
    name = bench.name()
    bench.register(name, pushing(0), rule="always")
    registry = Registry(bench.uri)
    service = ServingService(registry, 2)
    with Hammer(service, name) as hammer:
        until(lambda: hammer.answers.get(1, 0) > 100)
        delete_model(registry, name)
        assert service.ready(name) is None
        answered = dict(hammer.answers)
        until(lambda: hammer.unknown > 3)
        assert hammer.answers[1] - answered[1] <= 4  # those that were being computed
    service.close()
    assert hammer.errors == hammer.wrong == []
    assert service.loaded() == []
