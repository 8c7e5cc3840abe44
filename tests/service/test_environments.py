"""A large catalogue of environments: listed by page, at once, and honestly."""

import time

import pytest

from grpo_platform.core.errors import InvalidPageTokenError
from grpo_platform.core.request import resolve_request
from grpo_platform.jobs import isolation
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.services.environments import Environments
from tests.service.faulty_environments import MANY, install_plugin
from tests.waiting import until


@pytest.fixture(scope="module")
def isolated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", install_plugin(folder, "register_many"))
        patch.syspath_prepend(str(folder))
        isolation._plug_ins.cache_clear()
        found = Isolation(5.0)
        found.start()
        found.environment_names()
        yield found
        found.close()
    isolation._plug_ins.cache_clear()


@pytest.mark.rotated(10)
def test_a_page_comes_at_once_and_says_what_was_not_tried_yet(isolated):
    listed = Environments(isolated, patience_seconds=0.0)
    first = listed.list(name="many/", limit=50)
    assert [record.trainable for record in first.items] == [None] * 50
    assert "not tried yet" in first.items[0].reason
    until(lambda: all(r.trainable for r in listed.list(name="many/Walk", limit=50).items), 60)


@pytest.mark.rotated(14)
@pytest.mark.slow
def test_every_environment_is_on_one_page_and_what_crashes_or_hangs_is_told(isolated):
    listed = Environments(isolated, patience_seconds=30.0)
    began = time.monotonic()
    refused = listed.list(name="MANY/very", trainable=False).items
    assert time.monotonic() - began < 30
    reasons = {record.env_name: record.reason for record in refused}
    assert "it took longer than 5 s" in reasons["many/Very-hang-v0"]
    assert "the floor gave way" in reasons["many/Very-raise-v0"]
    assert "signal 11" in reasons["many/Very-segfault-v0"]
    names, token = [], None
    while True:
        page = listed.list(name="many/walk", limit=1000, page_token=token)
        names += [record.env_name for record in page.items]
        assert all(record.trainable for record in page.items)
        if (token := page.next_page_token) is None:
            break
    assert names == [f"many/Walk{number:04d}-v0" for number in range(MANY)]
    began = time.monotonic()
    assert len(listed.list(name="many", limit=1000).items) == 1000
    assert time.monotonic() - began < 1.0


def test_a_token_continues_its_own_list_only(isolated):
    listed = Environments(isolated, patience_seconds=0.0)
    token = listed.list(name="many", limit=1).next_page_token
    with pytest.raises(InvalidPageTokenError):
        listed.list(name="walk", page_token=token)


def test_an_environment_has_one_name_by_whatever_way_it_is_found(monkeypatch):
    monkeypatch.setenv("GRPO_ENV_MODULES", "some_package,other.module")
    for given, expected in (
        ("some_package:Thing-v0", "Thing-v0"),
        ("other.module:ns/Thing-v0", "ns/Thing-v0"),
        ("Thing-v0", "Thing-v0"),
        ("forbidden:Thing-v0", "forbidden:Thing-v0"),  # refused when it is looked up
    ):
        assert resolve_request({"env_name": given}, 10**6).config.env_name == expected
    assert resolve_request({}, 10**6).config.env_name == "CartPole-v1"
