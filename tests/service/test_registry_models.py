"""Names and versions on a real MLflow store: registered once, listed, resolved, deleted."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from mlflow.exceptions import MlflowException

from grpo_platform.core.errors import (
    ConflictError,
    InvalidPageTokenError,
    UnknownModelError,
    UnsafeModelError,
)
from grpo_platform.registry.deletion import delete_model
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import DECISIONS_EXPERIMENT, Tag
from grpo_platform.registry.registering import register_copy, register_policy
from tests.service.registry_support import CARTPOLE, Bench, random_policy


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("registry"))


def names_of(registry, limit=1000):
    return [model.name for model in registry.list(limit).items]


def logged_models(bench, name):
    found = bench.client.search_logged_models(
        [bench.store.experiment_id], f"tags.`{Tag.MODEL_NAME}` = '{name}'"
    )
    return [model.model_id for model in found]


def test_a_version_carries_its_card(bench):
    name = bench.name()
    ref = bench.register(name, evaluated=True)
    info = bench.registry.get(name)
    (version,) = info.versions
    assert (info.latest_version, info.champion) == (1, None)
    assert info.environment.env_name == "CartPole-v1"
    assert version.job_id == ref.run_id
    assert version.card.config["learning_rate"] == 3e-4
    assert version.card.observation_shape == (4,)
    assert version.card.git_commit == "0123456789abcdef"
    assert version.card.evaluation.episodes == 5
    assert version.weights_sha256 == ref.files["policy/weights.pt"]
    found = bench.client.get_model_version(name, "1")
    assert float(found.tags[Tag.EVAL_MEAN]) == version.card.evaluation.mean
    assert "Return over 5 greedy episodes" in found.description


def test_a_name_may_have_dots(bench):
    name = f"{bench.name()}.v1.2"
    ref = bench.register(name)
    assert (ref.name, ref.version) == (name, 1)
    assert len(logged_models(bench, name)) == 1


def test_one_job_makes_one_version(bench):
    name = bench.name()
    job_id, policy = bench.job(), random_policy()
    first = register_policy(bench.registry, job_id, policy, name, bench.card(job_id))
    again = register_policy(Registry(bench.uri), job_id, policy, name, bench.card(job_id))
    assert again == first
    assert len(bench.registry.get(name).versions) == 1
    assert logged_models(bench, name) == [first.model_id]


@pytest.mark.rotated(3)
@pytest.mark.parametrize("call", ["finalize_logged_model", "log_outputs", "create_model_version"])
def test_a_registration_that_crashed_is_done_again(bench, monkeypatch, call):
    """Whatever the first attempt left behind, one version and one logged model remain."""
    name = bench.name()
    job_id, policy = bench.job(), random_policy()
    client = bench.registry.client
    with monkeypatch.context() as patch:
        patch.setattr(client, call, crash)
        with pytest.raises(KeyboardInterrupt):
            register_policy(bench.registry, job_id, policy, name, bench.card(job_id))
    assert len(logged_models(bench, name)) == 1
    ref = register_policy(Registry(bench.uri), job_id, policy, name, bench.card(job_id))
    assert logged_models(bench, name) == [ref.model_id]
    assert [v.version for v in bench.registry.get(name).versions] == [1]
    bench.registry.read(ref)


def test_a_version_whose_making_was_reported_as_refused_is_not_made_again(bench, monkeypatch):
    name = bench.name()
    job_id = bench.job()
    client = bench.registry.client
    make, broken = client.create_model_version, [True]

    def make_and_break(*args, **kwargs):
        made = make(*args, **kwargs)
        if broken and broken.pop():
            raise requests.ConnectionError("the line broke before the answer came")
        return made

    monkeypatch.setattr(client, "create_model_version", make_and_break)
    ref = register_policy(bench.registry, job_id, random_policy(), name, bench.card(job_id))
    assert [v.version for v in bench.registry.get(name).versions] == [ref.version] == [1]
    assert logged_models(bench, name) == [ref.model_id]
    bench.registry.read(ref)


def crash(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["finalize_logged_model", "log_outputs"])
def test_a_copy_has_its_own_card_and_files_and_is_made_once_whatever_crashes(
    bench, monkeypatch, call
):
    source, name = bench.register(bench.name(), evaluated=True), bench.name()
    card = dataclasses.replace(
        bench.card(source.run_id), evaluation=None, selection="The best of 3 seeds."
    )
    with monkeypatch.context() as patch:
        patch.setattr(bench.registry.client, call, crash)
        with pytest.raises(KeyboardInterrupt):
            register_copy(bench.registry, source, name, card)
    copy = register_copy(bench.registry, source, name, card)
    assert register_copy(bench.registry, source, name, card) == copy
    assert len(logged_models(bench, name)) == 1
    assert len(logged_models(bench, source.name)) == 1  # a crash here takes nothing from there
    (version,) = bench.registry.get(name).versions
    assert version.card == card
    assert (version.job_id, version.weights_sha256) == (
        source.run_id, source.files["policy/weights.pt"],
    )  # fmt: skip
    assert "The best of 3 seeds." in (bench.folder(copy) / "MLmodel").read_text()
    assert "The best of 3 seeds." in bench.client.get_model_version(name, "1").description
    delete_model(bench.registry, source.name)
    policy = bench.registry.load_policy(name)
    assert policy.flat.tobytes() == random_policy().flat.tobytes()


def test_the_model_is_an_output_of_its_run(bench):
    name = bench.name()
    job_id = bench.job()
    ref = register_policy(bench.registry, job_id, random_policy(), name, bench.card(job_id))
    run = bench.client.get_run(job_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [ref.model_id]


def test_two_jobs_may_create_a_name_at_once(bench):
    name = bench.name()
    jobs = [bench.job() for _ in range(4)]

    def register(job_id):
        register_policy(Registry(bench.uri), job_id, random_policy(), name, bench.card(job_id))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(register, jobs))
    info = bench.registry.get(name)
    assert sorted(v.version for v in info.versions) == [1, 2, 3, 4]
    assert {v.job_id for v in info.versions} == set(jobs)


def test_a_name_belongs_to_one_environment(bench):
    name = bench.name()
    bench.register(name)
    bench.registry.check_name(name, "CartPole-v1", {})
    bench.registry.check_name(bench.name(), "Acrobot-v1", {})
    with pytest.raises(ConflictError, match="belongs to CartPole-v1"):
        bench.registry.check_name(name, "Acrobot-v1", {})
    with pytest.raises(ConflictError, match="belongs to CartPole-v1"):
        bench.registry.check_name(name, "CartPole-v1", {"sutton_barto_reward": True})
    job_id = bench.job()
    with pytest.raises(ConflictError, match="belongs to CartPole-v1"):
        register_policy(
            bench.registry,
            job_id,
            random_policy(),
            name,
            bench.card(job_id, env_name="CartPole-v0"),
        )


def test_references(bench):
    name = bench.name()
    bench.register(name)
    bench.register(name)
    resolve = bench.registry.resolve
    assert resolve(name).version == 2  # no champion: the latest
    bench.client.set_registered_model_alias(name, "champion", "1")
    bench.client.set_registered_model_alias(name, "canary", "2")
    assert resolve(name).version == 1
    assert resolve(f"{name}@champion").version == 1
    assert resolve(f"{name}@canary").version == 2
    assert resolve(f"{name}/2").version == 2


@pytest.mark.parametrize(
    "reference",
    [
        "", "nope", "{}@nope", "{}/3", "{}/0", "{}/-1", "{}/latest", "{}/1/2", "{}/1@champion",
        "../../etc/passwd", "{}/../x", "{}%2f1", "{}\n", "m-{}'", "{}' OR '1'='1", "{}/99999999999",
        "models:/{}/1", "é", "a" * 129, "{}@" + "a" * 300, "/{}", "{}//1", "{} ", "{}\x00",
    ],
)  # fmt: skip
def test_references_that_name_nothing(bench, shared_name, reference):
    with pytest.raises(UnknownModelError):
        bench.registry.resolve(reference.replace("{}", shared_name))


@pytest.fixture(scope="module")
def shared_name(bench):
    name = bench.name()
    bench.register(name)
    return name


@pytest.mark.rotated(6)
def test_lists_are_paged_by_name_and_say_what_serves(bench):
    names = sorted(f"paged-{i}" for i in range(5))
    for name in names:
        bench.register(name)
    bench.register("paged-0", evaluated=True, rule="never")
    seen, token = [], None
    while True:
        page = bench.registry.list(2, token)
        seen += page.items
        token = page.next_page_token
        if token is None:
            break
        assert len(page.items) == 2
    assert [m.name for m in seen if m.name.startswith("paged-")] == names
    assert [m.name for m in seen] == sorted(m.name for m in seen)
    first = next(m for m in seen if m.name == "paged-0")
    assert (first.champion, first.latest_version, first.env_name) == (None, 2, "CartPole-v1")
    assert first.eval_return_mean is not None


def test_a_list_shows_the_champions_evaluation_however_it_became_it(bench):
    name = bench.name()
    bench.register(name, rule="always", evaluated=True)
    bench.register(name, rule="never")

    def shown():
        return next(m for m in bench.registry.list(1000).items if m.name == name)

    mean = bench.registry.get(name).versions[1].card.evaluation.mean
    assert (shown().champion, shown().latest_version) == (1, 2)
    assert shown().eval_return_mean == mean
    bench.client.set_registered_model_alias(name, "champion", "2")
    assert (shown().champion, shown().eval_return_mean) == (2, None)
    bench.register(name, rule="never")
    assert (shown().champion, shown().eval_return_mean) == (2, None)


@pytest.mark.parametrize(
    "token",
    [
        "", "x", "!!!", "e30", "W10", "WyJtb2RlbHMiLCAtNV0", "WyJtb2RlbHMiLCB0cnVlXQ",
        "WyJtb2RlbHMiLCAxZTMwMF0", "é", "WyJtb2RlbHMiLCA5OTk5OTk5OTk5OTk5OTk5OTk5OTldf" * 9,
    ],
)  # fmt: skip
def test_page_tokens_that_were_never_given_out(bench, token):
    with pytest.raises(InvalidPageTokenError):
        bench.registry.list(10, token)


@pytest.mark.rotated(3)
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1, "mean": []}', "1e9999"])
def test_tags_that_somebody_edited_break_no_list_and_no_decision(bench, text):
    name = bench.name()
    bench.register(name, rule="always")
    bench.register(name, rule="never")
    for tag in (Tag.CHAMPION_CARD, Tag.APPLIED):
        bench.client.set_registered_model_tag(name, tag, text)
    assert name in names_of(bench.registry)
    assert bench.promoter.promote(name, 2, True, "me").champion_after == 2
    assert bench.promoter.rollback(name, "me").champion_after == 1
    bench.client.set_registered_model_tag(name, Tag.ENV_KWARGS, text or "x")
    assert name in names_of(bench.registry)
    if text.startswith('{"'):
        return  # an object: what it says is believed
    for call in (
        lambda: bench.registry.get(name),
        lambda: bench.registry.check_name(name, "CartPole-v1", {}),
    ):
        with pytest.raises(UnsafeModelError, match=r"grpo.env_kwargs .* was changed"):
            call()
    bench.client.set_registered_model_tag(name, Tag.ENV_KWARGS, "{}")
    assert bench.registry.get(name).champion == 1


@pytest.mark.rotated(3)
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": "seven"}, r"\(seed\): Input should be a valid integer"),
        ({"evaluation": {"mean": 1.0}}, r"\(evaluation\.episodes\): Field required"),
        ({"config": []}, r"\(config\)"),
        ({"observation_shape": [4, "x"]}, r"\(observation_shape\.1\)"),
        (None, r"\(all of it\): Invalid JSON"),
    ],
)
def test_a_card_that_somebody_edited_is_refused_by_name(bench, changed, told):
    name = bench.name()
    bench.register(name, rule="always")
    card = json.loads(bench.client.get_model_version(name, "1").tags[Tag.CARD])
    text = "{" if changed is None else json.dumps(card | changed)
    bench.client.set_model_version_tag(name, "1", Tag.CARD, text)
    with pytest.raises(UnsafeModelError, match=told):
        bench.registry.get(name)
    assert name in names_of(bench.registry)


def test_what_is_not_ours_is_never_seen_nor_touched(bench):
    foreign = bench.name()
    bench.client.create_registered_model(foreign)
    source = bench.store.artifact_location
    bench.client.create_model_version(foreign, source)
    assert foreign not in names_of(bench.registry)
    for call in (
        lambda: bench.registry.get(foreign),
        lambda: bench.registry.resolve(foreign),
        lambda: delete_model(bench.registry, foreign),
        lambda: bench.promoter.promote(foreign, 1, True, "me"),
        lambda: bench.promoter.rollback(foreign, "me"),
    ):
        with pytest.raises(UnknownModelError):
            call()
    with pytest.raises(ConflictError, match="did not make"):
        bench.register(foreign)
    assert len(bench.client.search_model_versions(f"name = '{foreign}'")) == 1


def test_a_foreign_version_under_our_name_is_neither_listed_loaded_nor_deleted(bench):
    name = bench.name()
    bench.register(name)
    bench.client.create_model_version(name, bench.store.artifact_location)
    assert [v.version for v in bench.registry.get(name).versions] == [1]
    assert bench.registry.resolve(name).version == 1
    with pytest.raises(UnsafeModelError, match="not registered by this platform"):
        bench.registry.resolve(f"{name}/2")
    with pytest.raises(UnsafeModelError):
        bench.promoter.promote(name, 2, True, "me")
    with pytest.raises(ConflictError, match="Version 2"):
        delete_model(bench.registry, name)
    assert bench.registry.resolve(name).version == 1


def test_delete_removes_all_of_a_name_and_nothing_else(bench):
    name, other = bench.name(), bench.name()
    refs = [bench.register(name, rule="always")[0] for _ in range(2)]
    kept, _ = bench.register(other, rule="always")
    folders = [bench.folder(ref) for ref in refs]
    decisions = bench.client.get_registered_model(name).tags[Tag.DECISIONS]
    delete_model(bench.registry, name)
    assert not any(folder.exists() for folder in folders)
    assert logged_models(bench, name) == []
    assert bench.client.get_run(decisions).info.lifecycle_stage == "deleted"
    assert name not in names_of(bench.registry)
    with pytest.raises(MlflowException):
        bench.client.get_registered_model(name)
    for ref in refs:  # the jobs stay
        assert bench.client.get_run(ref.run_id).info.lifecycle_stage == "active"
    bench.registry.read(bench.registry.resolve(other))
    assert logged_models(bench, other) == [kept.model_id]
    with pytest.raises(UnknownModelError):
        delete_model(bench.registry, name)


def test_a_deleted_name_starts_anew(bench):
    name = bench.name()
    old, _ = bench.register(name, rule="always")
    delete_model(bench.registry, name)
    new, decision = bench.register(name, rule="if_better")
    assert (new.version, decision.number, decision.promoted) == (1, 1, True)
    assert new.key != old.key


def test_a_deletion_that_crashed_leaves_nothing_visible_and_can_be_finished(bench, monkeypatch):
    name = bench.name()
    ref = bench.register(name)
    with monkeypatch.context() as patch:
        patch.setattr(bench.registry.client, "delete_logged_model", crash)
        with pytest.raises(KeyboardInterrupt):
            delete_model(bench.registry, name)
    with pytest.raises(UnknownModelError):
        bench.registry.resolve(name)
    assert name not in names_of(bench.registry)
    assert bench.registry.environment_of(name) is None
    again = bench.register(name)
    assert again.version == 1
    assert logged_models(bench, name) == [again.model_id]
    assert ref.model_id != again.model_id


def test_files_that_a_copy_of_the_version_needs_stay(bench):
    name, copy = bench.name(), bench.name()
    bench.register(name)
    bench.register(copy)
    ref = bench.registry.resolve(f"{name}/1")
    source = bench.client.get_model_version(name, "1")
    bench.client.create_model_version(copy, source.source, ref.run_id, tags=source.tags)
    delete_model(bench.registry, name)
    bench.registry.read(bench.registry.resolve(f"{copy}/2"))


def test_a_model_whose_logged_model_was_deleted_is_unknown(bench):
    name = bench.name()
    ref = bench.register(name)
    assert bench.registry.is_stored(ref)
    bench.client.delete_logged_model(ref.model_id)
    assert not bench.registry.is_stored(ref)
    with pytest.raises(UnknownModelError):
        bench.registry.read(ref)


def test_a_policy_can_be_trained_on(bench):
    name = bench.name()
    policy = random_policy(CARTPOLE, seed=9)
    bench.register(name, policy)
    again = bench.registry.load_policy(f"{name}/1")
    assert (again.flat == policy.flat).all()


def test_decisions_have_an_experiment_of_their_own(bench):
    name = bench.name()
    bench.register(name, rule="if_better")
    run_id = bench.client.get_registered_model(name).tags[Tag.DECISIONS]
    run = bench.client.get_run(run_id)
    experiment = bench.client.get_experiment(run.info.experiment_id)
    assert experiment.name == DECISIONS_EXPERIMENT
    assert run.info.status == "FINISHED"


def test_a_misspelled_name_is_answered_with_the_nearest_of_ours(bench):
    bench.register("inverted-balance")
    bench.client.create_registered_model("inverted-balanze")  # somebody else's
    for call in (bench.registry.get, bench.registry.resolve):
        with pytest.raises(UnknownModelError, match=r"Did you mean 'inverted-balance'\? GET"):
            call("inverted-balancs")
    with pytest.raises(UnknownModelError, match=r"^No model 'zzzzzz'\. GET /models lists"):
        bench.registry.get("zzzzzz")
