"""Progress bars: what they say of jobs, experiments and sweeps, in a terminal and in a notebook."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from grpo_platform.client.replies import Experiment, Job, Sweep

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Bar", "Line", "counts", "line_of_experiment", "line_of_job", "line_of_sweep",
           "progress_bar"]  # fmt: skip

_WIDTH, _LEAST_COLUMNS = 30, 110
"""Of the bar; what a line without one leaves room for, which has all that the bar says."""


class Line(NamedTuple):
    """What a bar shows."""

    status: str
    share: float
    """Of what there is to do, from 0 to 1."""

    shown: str
    """Beside it."""


def line_of_job(job: Job) -> Line:
    """How far a job is: its steps, and the returns of training and of evaluation."""
    shown = f"{job['current_timesteps']:,} of {job['total_timesteps']:,} steps"
    for key, name in (("rollout/ep_rew_mean", "train"), ("eval/mean_reward", "eval")):
        if (mean := job["metrics"].get(key)) is not None:
            shown += f", {name} {mean:,.1f}"
    shown += "" if job["status_message"] is None else f". {job['status_message']}"
    return Line(job["status"], job["progress"], shown)


def line_of_experiment(found: Experiment) -> Line:
    """How far an experiment is: its seeds by state, and the interquartile mean so far."""
    iqm = found["results"]["iqm"]
    shown = counts(found["counts"])
    shown += "" if iqm is None else f", IQM {iqm['estimate']:,.1f}"
    return Line(found["status"], found["progress"], shown)


def line_of_sweep(sweep: Sweep) -> Line:
    """How far a sweep is: its trials, and the value of the best so far."""
    shown = f"{sweep['started_trials']} of {sweep['n_trials']} trials"
    if (best := sweep["best"]) is not None:
        shown += f", best {sweep['metric']} {best['value']:,.1f}"
    return Line(sweep["status"], sweep["progress"], shown)


def counts(found: Mapping[Any, int]) -> str:
    """Such as `3 completed, 1 running`."""
    return ", ".join(f"{count} {state}" for state, count in sorted(found.items()))


class Bar:
    """One bar.

    Args:
        progress: of rich, that draws it.
        cell: what a notebook shows it in; None in a terminal, where it draws itself.
    """

    def __init__(self, progress: "Progress", cell: Any = None) -> None:  # noqa: ANN401 - IPython's
        self._progress, self._cell = progress, cell
        self._task = progress.add_task("queued", total=1.0, shown="")

    def show(self, line: Line) -> None:
        """Show how far it is."""
        self._progress.update(
            self._task, completed=line.share, description=line.status, shown=line.shown
        )
        if self._cell is not None:
            self._cell.update(self._progress.get_renderable())


@contextmanager
def progress_bar(console: "Console | None" = None, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar, for as long as the block lasts.

    Args:
        console: where it is drawn; by default on stderr, or in the notebook's cell.
        quiet: draw nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    # rich's own way into a notebook needs widgets; a cell that is written anew needs none
    in_notebook = console is None and Console().is_jupyter
    drawn_on = console or Console(stderr=not in_notebook)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        *([BarColumn(_WIDTH)] if drawn_on.width >= _LEAST_COLUMNS else []),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[shown]}", markup=False), TimeRemainingColumn(compact=True),
        console=drawn_on, disable=quiet,
    )  # fmt: skip
    if in_notebook and not quiet:
        from IPython.display import display

        yield Bar(progress, display(progress.get_renderable(), display_id=True))
        return
    with progress:
        yield Bar(progress)
