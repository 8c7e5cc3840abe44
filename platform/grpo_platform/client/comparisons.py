"""Calls about comparisons."""

from collections.abc import Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final, Literal, Unpack

from grpo_platform.client.calls import Calls, part
from grpo_platform.client.fields import ComparisonFields, check_fields
from grpo_platform.client.transport import ApiError

__all__ = ["Comparison", "ComparisonCalls"]

_ID_LENGTH: Final = 32
_PATIENCE_SECONDS: Final = 60.0
"""Beside the time that versions may play: their last episodes, and the figures."""
_HEXADECIMAL: Final = frozenset("0123456789abcdef")
_KINDS: Final = {"job": "/training/{}/status", "experiment": "/experiments/{}",
                 "sweep": "/sweeps/{}"}  # fmt: skip


class Comparison(dict[str, Any]):
    """What GET /comparisons/{comparison_id} gives; a notebook shows its sentences and a table."""

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(pair['sentence'])}</p>" for pair in self["pairs"])
        if self["correction"]:
            said += f"<p><small>{escape(self['correction'])}</small></p>"
        said += "".join(f"<p>⚠ {escape(text)}</p>" for text in self["warnings"])
        head = "<tr><th></th><th>returns</th><th>mean</th><th>IQM</th></tr>"
        rows = "".join(
            f"<tr><td>{escape(side['label'])}</td><td>{len(side['returns'])} {side['unit']}s</td>"
            f"<td>{_shown(side['mean'])}</td><td>{_shown(side['iqm'])}</td></tr>"
            for side in self["sides"]
        )
        return f"<div>{said}<table>{head}{rows}</table></div>"


class ComparisonCalls(Calls):
    """Compare; list, read and delete comparisons."""

    def compare(
        self, *references: str | Mapping[str, str], **fields: Unpack[ComparisonFields]
    ) -> Comparison:
        """Compare two or more sides.

        Args:
            *references: each a mapping such as `{"experiment": id}`, or a text: an id, whose kind
                is looked up, or `name`, `name@alias` or `name/version` of a model.
            **fields: further fields of POST /comparisons.

        Raises:
            UnknownFieldError: there is no such field.
            ApiError: a side does not exist, or they do not compare.
        """
        check_fields(fields, ComparisonFields)
        named = [self.resolve(each) if isinstance(each, str) else dict(each) for each in references]
        body = {**fields, "references": named}
        longest = _PATIENCE_SECONDS + fields.get("max_seconds", _PATIENCE_SECONDS)
        found = self._transport.call("POST", "/comparisons", json=body, timeout_seconds=longest)
        return Comparison(found)

    def resolve(self, reference: str) -> dict[str, str]:
        """What a text names: `{"job": …}`, `{"experiment": …}`, `{"sweep": …}` or `{"model": …}`.

        A text may say it itself, as in `model:my_model/3`.

        Raises:
            ApiError: it looks like an id, and nothing has it.
        """
        kind, colon, name = reference.partition(":")
        if colon and kind in (*_KINDS, "model"):
            return {kind: name}
        if len(reference) != _ID_LENGTH or not set(reference) <= _HEXADECIMAL:
            return {"model": reference}
        refused: ApiError | None = None
        for kind, path in _KINDS.items():
            try:
                self._transport.call("GET", path.format(reference))
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                refused = error
            else:
                return {kind: reference}
        said = f"No job, experiment or sweep has the id {reference}."
        raise ApiError(HTTPStatus.NOT_FOUND, {"detail": said}) from refused

    def comparison(self, comparison_id: str) -> Comparison:
        """A comparison with all its figures."""
        return Comparison(self._transport.call("GET", f"/comparisons/{part(comparison_id)}"))

    def comparison_report(
        self, comparison_id: str, format: Literal["html", "markdown"] = "html"
    ) -> str:
        """The report: one HTML file that opens offline, or Markdown for a pull request."""
        path = f"/comparisons/{part(comparison_id)}/report"
        return self._transport.text(path, {"format": format})

    def delete_comparison(self, comparison_id: str) -> dict[str, Any]:
        """Delete a comparison with its figure, tables and report; what it compared stays."""
        return self._transport.call("DELETE", f"/comparisons/{part(comparison_id)}")

    def iter_comparisons(self) -> Iterator[dict[str, Any]]:
        """All comparisons, newest first, without their figures."""
        return self._transport.pages("/comparisons", "comparisons", {})


def _shown(found: Mapping[str, float]) -> str:
    return f"{found['estimate']:,.2f} ({found['low']:,.2f} to {found['high']:,.2f})"
