"""The command line shows what a server or a user wrote as it is, and all of it."""

import json
import subprocess
import sys

import pytest
import typer

from grpo_platform import cli
from grpo_platform.cli import jobs, output, sweeps
from grpo_platform.client.progress import line_of_job
from tests.e2e.processes import environment

ODD = "[red]kaput[/] :cat: [/x] a\\[b]"


@pytest.fixture
def console(monkeypatch):
    monkeypatch.setattr(output.console, "width", 400)
    return output.console


def test_a_message_is_no_markup(console):
    sweep = {
        "sweep_id": "s", "status": "failed", "error_message": ODD, "metric": "[m]", "best": None,
        "model_name": "m", "trials": [], "n_seeds": 1,
    }  # fmt: skip
    job = {"job_id": "j", "status": "failed", "error_message": ODD, "hints": {}}
    with console.capture() as shown:
        sweeps._report(None, sweep)
        jobs.report(job)
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


ID = "0123456789abcdef" * 2


def test_what_is_piped_is_not_broken_over_lines():
    code = f"from grpo_platform.cli import output; output.table(('what',), [('{ID * 4}',)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ID * 4 in done.stdout


def test_numbers_of_a_list_are_short(console):
    with console.capture() as shown:
        output.table(("probabilities",), [([0.123456, 0.876544],)])
    assert "0.12, 0.88" in shown.get()


def test_an_answer_is_its_sentence_or_all_of_it(console, capsys):
    reply = {"job_id": ID, "message": f"Training stops; POST /training/{ID}/resume goes on."}
    with console.capture() as shown:
        output.answer(reply, as_json=False)
    assert f"`grpo-platform jobs resume {ID}`" in shown.get()
    output.answer(reply, as_json=True)
    assert json.loads(capsys.readouterr().out) == reply


def commands(group, before=()):
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        yield from commands(command, (*before, name)) if inner else [((*before, name), command)]


def test_every_command_that_answers_can_do_so_in_json():
    found = dict(commands(typer.main.get_command(cli.app)))
    silent = {name for name, command in found.items()
              if not any("--json" in parameter.opts for parameter in command.params)}  # fmt: skip
    only_say_what_they_did = {("store", verb) for verb in ("adopt", "backup", "restore", "upgrade")}
    go_on = {("serve",), ("worker",), ("jobs", "logs"), ("open",), ("play",)}
    assert not [name for name, command in found.items() if not command.help]
    for name, command in found.items():
        assert not [p.name for p in command.params if not getattr(p, "help", "x")], name
    assert silent == go_on | only_say_what_they_did
    assert len(found) > 20


def test_what_a_job_waits_for_does_not_hide_how_far_it_is():
    job = {
        "status": "queued", "progress": 0.1, "current_timesteps": 1000, "total_timesteps": 10_000,
        "status_message": "It waits for a node.", "metrics": {"rollout/ep_rew_mean": 20.0},
    }  # fmt: skip
    shown = "1,000 of 10,000 steps, train 20.0. It waits for a node."
    assert line_of_job(job) == ("queued", 0.1, shown)


HELPS = """
import sys
import typer
from grpo_platform import cli

def commands(group, before=()):
    yield before
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        yield from commands(command, (*before, name)) if inner else [(*before, name)]

for words in commands(typer.main.get_command(cli.app)):
    sys.argv = ["grpo-platform", *words, "--help"]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, words
"""

OUTPUTS = """
import typer
from grpo_platform.cli import jobs, output
from grpo_platform.client.progress import Line
from grpo_platform.core.messages import escape_unprintable

escape_unprintable()
odd = "カート… \\udcff"
output.table((odd,), [(odd,)], title=odd)
output.show_json({odd: odd})
output.answer({"message": odd}, as_json=False)
jobs.report({"job_id": "j", "status": "failed", "error_message": odd, "hints": {"a": odd}})
line = Line(odd, 0.5, odd)
output.watch(None, "sweep", odd, lambda tell: tell(line), lambda found: found, quiet=False)
try:
    output.fail(odd)
except typer.Exit as end:
    raise SystemExit(end.exit_code)
"""

TERMINALS = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX"},
]


@pytest.mark.rotated(5)
@pytest.mark.parametrize("terminal", TERMINALS, ids=lambda found: next(iter(found)))
def test_every_help_and_output_fits_any_terminal(tmp_path, terminal):
    program = tmp_path / "program.py"
    for code, source in enumerate((HELPS, OUTPUTS)):
        program.write_text(source, "utf-8")
        done = subprocess.run(
            [sys.executable, str(program)], capture_output=True, env=environment(**terminal)
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == code, said
        assert "Traceback" not in said
        assert "UnicodeEncodeError" not in said
    assert "\\udcff" in said


LOGS = """
import logging, sys
from pathlib import Path
from grpo_platform.jobs.run_writer import WorkerLog
from grpo_platform.core.messages import escape_unprintable

escape_unprintable()
log = WorkerLog(Path(sys.argv[1]))
log.take_output() if sys.argv[2] == "captured" else log.take_records()
print("カート…")
logging.getLogger("grpo_platform").warning("ログ…")
"""


@pytest.mark.rotated(11)
@pytest.mark.parametrize("how", ["captured", "foreground"])
@pytest.mark.parametrize("terminal", TERMINALS[:2], ids=lambda found: next(iter(found)))
def test_a_job_prints_any_letter_whatever_the_locale(tmp_path, how, terminal):
    program = tmp_path / "program.py"
    program.write_text(LOGS, "utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), how], capture_output=True, check=True,
        env=environment(**terminal),
    )  # fmt: skip
    log = (tmp_path / "worker.log").read_text("utf-8")
    assert "ログ…" in log
    assert ("カート…" in log) is (how == "captured")
    assert b"Logging error" not in done.stderr
