"""Commands against a server that answers as told: watch, follow, open, complete, point to help."""

import pytest
from typer.testing import CliRunner

from grpo_platform.cli import app, completion, jobs
from tests.e2e.processes import free_port
from tests.service.test_cli_tables import ID, JOB, MODEL, answering

DONE = JOB | {
    "status": "completed", "progress": 1.0, "model_version": 3, "promoted": True,
    "stopped_by": None, "lines": ["first", "second"], "next_page_token": None, "jobs": [JOB],
    "models": [{"name": MODEL, "env_name": "CartPole-v1"}], "name": MODEL, "versions": [],
}  # fmt: skip


def invoke(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, ["--url", url, *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_job_is_watched_and_its_log_followed_to_the_end():
    with answering(DONE) as url:
        shown = invoke(url, "jobs", "watch", ID[:8])
        assert invoke(url, "jobs", "logs", "-f", ID[:8]) == "first\nsecond\n"
        assert invoke(url, "jobs", "logs", "--follow", "--tail", "1", ID[:8]) == "second\n"
    assert f"Job {ID}: {url}/app/jobs/{ID}" in shown
    assert f"{MODEL} version 3 is registered" in shown
    with answering(DONE | {"status": "failed", "error_message": "Out of luck."}) as url:
        failed = CliRunner().invoke(app, ["--url", url, "jobs", "watch", ID])
    assert failed.exit_code == 1
    assert "Out of luck." in failed.output


def test_of_a_log_that_grows_only_what_is_new_is_shown():
    for before, after, new in (
        ([], ["a"], ["a"]),
        (["a", "b"], ["a", "b", "c"], ["c"]),
        (["a", "b", "c"], ["b", "c", "d"], ["d"]),  # the first lines are gone
        (["a"], ["x", "y"], ["x", "y"]),
        (["a", "a"], ["a", "a"], []),
    ):
        assert jobs._new_in(after, before) == new


def test_open_leads_to_the_page_of_what_is_named():
    with answering(DONE) as url:
        assert invoke(url, "open") == f"{url}/app\n"
        assert invoke(url, "open", MODEL) == f"{url}/app/models/{MODEL}\n"
        assert invoke(url, "open", f"job:{ID}") == f"{url}/app/jobs/{ID}\n"


class Root:
    """What completion asks of a context: the options before the command."""

    def __init__(self, url: str) -> None:
        self.params = {"url": url, "token": None}

    def find_root(self) -> "Root":
        return self


def test_a_shell_completes_what_the_server_knows_and_is_silent_without_one():
    with answering(DONE) as url:
        ((found, about),) = completion.job_ids(Root(url), ID[:4])
        assert (found, about.split()[0]) == (ID, "running")
        assert completion.job_ids(Root(url), "ffff") == []
        assert completion.model_names(Root(url), "lunar") == [(MODEL, "CartPole-v1")]
    nobody = Root(f"http://127.0.0.1:{free_port()}")
    for complete in (completion.job_ids, completion.env_names, completion.references):
        assert complete(nobody, "") == []
    assert completion.settings("learning") == ["learning_rate=", "learning_rate_schedule="]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("job", "list"), "Did you mean 'jobs'"),
        (("jobs", "shwo", "x"), "Did you mean 'show'"),
        (("jobs", "list", "--modle", "x"), "--model"),
    ],
)
def test_a_word_that_is_none_is_answered_with_the_nearest(words, said):
    refused = CliRunner().invoke(app, list(words))
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_refusal_points_to_the_help_of_the_command_that_was_run():
    detail = {"detail": "name: too long. GET /docs shows what is expected."}
    with answering(detail, status=422) as url:
        for words in (("jobs", "list"), ("models", "show", "m"), ("environments",)):
            refused = CliRunner().invoke(app, ["--url", url, *words])
            assert refused.exit_code == 1
            named = f"`grpo-platform {' '.join(words[: 2 if len(words) > 1 else 1])} --help`"
            assert named in refused.output
