"""A failure gallery as one HTML page that opens anywhere: clips and curves are inside."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["gallery_page"]

_WIDTH: Final = 420
_HEIGHT: Final = 120
_EDGE: Final = 6

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1b1f24; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.failures { display: flex; flex-wrap: wrap; gap: 1.2rem; }
article { border: 1px solid #d0d7de; border-radius: 8px; padding: 1rem; width: 420px; }
article h3 { margin: 0 0 .4rem; font-size: 1rem; }
video, svg { width: 100%; background: #f6f8fa; border-radius: 4px; }
p { margin: .4rem 0; } .small { color: #57606a; font-size: .85rem; }
"""


def gallery_page(
    gallery: Mapping[str, Any], values: Sequence[npt.NDArray[np.float64]], folder: Path
) -> str:
    """The page.

    Args:
        gallery: what `gallery.json` holds.
        values: of each failure, shape (T,): what the policy expected before each step.
        folder: that the clips are in, at their artifact paths.
    """
    failures = gallery["failures"]
    title = f"Failures in {gallery['env_name']}"
    said = (
        f"The {len(failures)} worst of {gallery['episodes']} evaluated episodes, each below the "
        f"median return of {gallery['median']:,.1f}, cut to where the policy's value estimate "
        "fell most. Episodes of one group ended alike."
    )
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(said)}</p>"]
    parts += [f'<p class="small">{escape(note)}</p>' for note in gallery["notes"]]
    for cluster in sorted({failure["cluster"] for failure in failures}):
        alike = [i for i, failure in enumerate(failures) if failure["cluster"] == cluster]
        parts.append(f"<h2>Group {cluster}: {_summary([failures[i] for i in alike])}</h2>")
        parts.append('<div class="failures">')
        parts += [_article(failures[i], values[i], folder) for i in alike]
        parts.append("</div>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _summary(alike: Sequence[Mapping[str, Any]]) -> str:
    count = f"{len(alike)} episode{'s' if len(alike) > 1 else ''}"
    length = np.mean([failure["length"] for failure in alike])
    mean = np.mean([failure["return"] for failure in alike])
    return f"{count}, {length:,.0f} steps and a return of {mean:,.1f} on average"


def _article(failure: Mapping[str, Any], values: npt.NDArray[np.float64], folder: Path) -> str:
    collapse = failure["collapse"]
    clip = ""
    if failure["clip"] is not None:
        film = base64.b64encode((folder / failure["clip"]).read_bytes()).decode()
        clip = f'<video controls loop muted src="data:video/mp4;base64,{film}"></video>'
    facts = (
        f"Value {collapse['before']:,.2f} before step {collapse['step']}, {collapse['after']:,.2f} "
        f"{collapse['window']} steps later; {failure['ended']} after {failure['length']} steps."
    )
    files = ", ".join(
        escape(failure[kind]) for kind in ("snapshot", "trace") if failure[kind] is not None
    )
    return (
        f"<article><h3>{failure['number']}. Return {failure['return']:,.1f}, seed "
        f"{failure['seed']}</h3>{clip}{_curve(values, collapse['step'])}<p>{facts}</p>"
        f'<p class="small">{files}</p></article>'
    )


def _curve(values: npt.NDArray[np.float64], cut: int) -> str:
    """The value estimate over the steps, with a line where it collapsed."""
    picks = np.unique(np.linspace(0, len(values) - 1, _WIDTH).astype(int))
    low, high = float(values.min()), float(values.max())
    across = (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)
    down = (_HEIGHT - 2 * _EDGE) / max(high - low, 1e-9)
    points = " ".join(
        f"{_EDGE + i * across:.1f},{_HEIGHT - _EDGE - (values[i] - low) * down:.1f}" for i in picks
    )
    x = _EDGE + cut * across
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Value estimate by step">'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#cf222e" '
        f'stroke-dasharray="4 3"/><polyline points="{points}" fill="none" stroke="#0969da" '
        f'stroke-width="1.5"/><text x="{_EDGE}" y="14" font-size="11" fill="#57606a">value, '
        f"{high:,.1f} at most</text></svg>"
    )
