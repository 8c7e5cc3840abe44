"""The registry over a real MLflow server: artifacts, decisions and deletion go through HTTP.

Its basic authentication is on, and we are not its administrator.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from grpo_platform.core.errors import (
    InvalidPageTokenError,
    UnknownJobError,
    UnknownModelError,
    UnsafeModelError,
)
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import Tag
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.registering import register_policy
from grpo_platform.serving.service import ServingService
from tests.service.registry_support import Bench, balancing_policy, random_policy
from tests.service.tracking_support import TrackingServer, jobs_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = TrackingServer(tmp_path_factory.mktemp("mlflow"), "the administrator's")
    server.start()
    server.add_user("trainer", "the password of trainer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "the password of trainer")
        yield server
    server.stop()


@pytest.fixture(scope="module")
def bench(server, tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("here"), server.uri)


@pytest.mark.rotated(13)
def test_what_is_too_large_is_refused_before_it_is_fetched(bench, server):
    name = bench.name()
    ref = bench.register(name)
    (spec,) = (server.folder / "artifacts").rglob(f"*{ref.model_id}*/**/policy/spec.json")
    spec.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UnsafeModelError, match="has 1,048,577 bytes; at most"):
        bench.registry.load_policy(name)


@pytest.mark.rotated(13)
def test_the_life_of_a_model(bench, server):
    name = bench.name()
    first, decision = bench.register(name, random_policy(seed=1), rule="if_better", evaluated=True)
    assert decision.promoted
    second, decision = bench.register(name, balancing_policy(), rule="if_better")
    assert decision.comparison.ci_low > 0
    assert register_policy(
        bench.registry, second.run_id, balancing_policy(), name, bench.card(second.run_id)
    ) == (second)

    service = ServingService(bench.registry, 4)
    assert service.load(name).version == 2
    elsewhere = ServingService(Registry(bench.uri), 4)
    assert elsewhere.load(name).version == 2
    assert bench.promoter.rollback(name, "me").version == 1
    assert service.ready(name).version == 1

    (model,) = [m for m in bench.registry.list(1000).items if m.name == name]
    assert (model.champion, model.latest_version) == (1, 2)
    assert model.eval_return_mean is not None
    info = bench.registry.get(name)
    assert [v.version for v in info.versions] == [2, 1]
    assert [d.verdict for d in info.decisions] == ["promoted", "promoted", "rolled_back"]
    run_id = bench.client.get_registered_model(name).tags[Tag.DECISIONS]
    artifacts = [f.path for f in bench.client.list_artifacts(run_id, "decisions")]
    assert artifacts == ["decisions/decision-000002.json"]

    stored = [p for p in (server.folder / "artifacts").rglob("*") if first.model_id in str(p)]
    assert stored
    delete_model(bench.registry, name)
    assert not any(path.is_file() and path.exists() for path in stored)
    with pytest.raises(UnknownModelError):
        service.load(name)
    with pytest.raises(UnknownModelError):
        bench.registry.read(first)
    elsewhere.refresh(name)
    assert elsewhere.ready(name) is None
    with pytest.raises(UnknownModelError):
        elsewhere.load(name)
    assert elsewhere.loaded() == []
    service.close()
    elsewhere.close()


@pytest.mark.rotated(8)
def test_deciders_in_several_servers_take_turns(bench):
    name = bench.name()
    refs = [bench.register(name) for _ in range(3)]

    def decide(ref):
        return Promoter(Registry(bench.uri)).decide_after_training(
            ref, "always", f"job {ref.version}"
        )

    with ThreadPoolExecutor(3) as pool:
        decided = list(pool.map(decide, refs))
    assert sorted(d.number for d in decided) == [1, 2, 3]
    last = bench.registry.get(name).decisions[-1]
    assert bench.registry.resolve(name).version == last.version


@pytest.mark.rotated(13)
def test_changed_files_are_refused(bench, server):
    name = bench.name()
    ref = bench.register(name)
    (weights,) = [
        path
        for path in (server.folder / "artifacts").rglob("weights.pt")
        if ref.model_id in str(path)
    ]
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UnsafeModelError, match="was changed"):
        bench.registry.load_policy(name)


@pytest.mark.rotated(8)
def test_pages_of_models_end(bench):
    names = sorted(bench.register(bench.name()).name for _ in range(3))
    for limit in (1, 2, 3, 1000):
        found, token = [], None
        for _ in range(100):
            page = bench.registry.list(limit, token)
            assert len(page.items) <= limit
            found += [model.name for model in page.items]
            token = page.next_page_token
            if token is None:
                break
        assert token is None
        assert [name for name in found if name in names] == names


@pytest.mark.rotated(10)
def test_what_does_not_exist(bench):
    with pytest.raises(UnknownModelError):
        bench.registry.resolve("nope")
    with pytest.raises(UnknownModelError):
        delete_model(bench.registry, "nope")
    ref = bench.register(bench.name())
    with pytest.raises(UnknownModelError):
        bench.registry.resolve(f"{ref.name}/{ref.version + 1}")
    with pytest.raises(UnknownJobError):
        jobs_of(bench.store).get("0" * 32)
    with pytest.raises(InvalidPageTokenError):
        bench.registry.list(10, "x")
