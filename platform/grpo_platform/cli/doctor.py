"""`grpo-platform doctor`: whether this machine and folder are ready for a server."""

import typer

from grpo_platform.cli.output import JsonFlag, console, errors_as_sentences, show_json, table

__all__ = ["doctor"]


def doctor(as_json: JsonFlag = False) -> None:
    """Look at versions, store, ports, disk, GPU and the speed here. Exit code 1 at a problem."""
    from grpo_platform.core.settings import Settings
    from grpo_platform.services.doctor import State, examine

    with errors_as_sentences():
        settings = Settings()
    with console.status("Looking …"):
        findings = list(examine(settings))
    problems = [finding for finding in findings if finding.state is State.PROBLEM]
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        table(("what", "state", "found"), [finding[:3] for finding in findings])
        for finding in findings:
            if finding.advice:
                console.print(f"{finding.what}: {finding.advice}", soft_wrap=True)
        if not problems and not any(
            finding.what == "API port" and finding.state is State.NOTE for finding in findings
        ):
            console.print("Ready: grpo-platform serve")
    if problems:
        raise typer.Exit(1)
