"""The command line shows what a server or a user wrote as it is."""

import pytest
import typer

from grpo_platform import cli
from grpo_platform.cli import output, sweeps

ODD = "[red]kaput[/] :cat: [/x] a\\[b]"


@pytest.fixture
def console(monkeypatch):
    monkeypatch.setattr(output.console, "width", 400)
    return output.console


def test_a_message_is_no_markup(console):
    sweep = {
        "sweep_id": "s", "status": "failed", "error_message": ODD, "metric": "[m]", "best": None,
        "model_name": "m", "trials": [],
    }  # fmt: skip
    job = {"job_id": "j", "status": "failed", "error_message": ODD}
    with console.capture() as shown:
        sweeps._report(sweep)
        cli._report(job)
    assert f"Sweep s failed. {ODD}" in shown.get()
    assert f"Job j failed. {ODD}" in shown.get()


def test_a_cell_is_no_markup(console):
    with console.capture() as shown:
        output.table(("what", ODD), [(ODD, 1.0)], title=ODD)
    assert shown.get().count(ODD) == 3


def test_an_error_is_no_markup(capsys):
    with pytest.raises(typer.Exit):
        output.fail(ODD)
    assert capsys.readouterr().err == f"Error: {ODD}\n"
