"""Calls about comparisons."""

from collections.abc import AsyncGenerator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final, Literal, Unpack, cast

from grpo_platform.client.fields import ComparisonFields, check_fields
from grpo_platform.client.operations import Calls, Iteration, Operation, part
from grpo_platform.client.replies import ComparisonResult, ComparisonSummary, DeletedComparison
from grpo_platform.client.transport import ApiError

__all__ = ["Comparison", "ComparisonCalls", "ShownComparison"]

_ID_LENGTH: Final = 32
_SHORTEST_ID: Final = 4
_PATIENCE_SECONDS: Final = 60.0
"""Beside the time that versions may play: their last episodes, and the figures."""
_HEXADECIMAL: Final = frozenset("0123456789abcdef")
_KINDS: Final = {
    "job": ("/training/{}/status", "job_id"),
    "experiment": ("/experiments/{}", "experiment_id"),
    "sweep": ("/sweeps/{}", "sweep_id"),
    "model": ("/models/{}", "name"),
}
"""What a text may name: the call that finds it, and the field of the reply that has its name."""


class ShownComparison(dict[str, Any]):
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


Comparison = ComparisonResult
"""What comparing gives, for type checkers."""


class ComparisonCalls(Calls):
    """Compare; list, read and delete comparisons."""

    @Operation
    async def compare(
        self, *references: str | Mapping[str, str], **fields: Unpack[ComparisonFields]
    ) -> Comparison:
        """Compare two or more sides.

        Args:
            *references: each a mapping such as `{"experiment": id}`, or a text, see `resolve`.
            **fields: further fields of POST /comparisons.

        Raises:
            UnknownFieldError: there is no such field.
            ApiError: a side does not exist, or they do not compare.
        """
        check_fields(fields, ComparisonFields)
        named = [
            await self.resolve(each) if isinstance(each, str) else dict(each) for each in references
        ]
        body = {**fields, "references": named}
        longest = _PATIENCE_SECONDS + fields.get("max_seconds", _PATIENCE_SECONDS)
        found = await self._transport.call(
            ComparisonResult, "POST", "/comparisons", json=body, timeout_seconds=longest
        )
        return cast(Comparison, ShownComparison(found))

    @Operation
    async def resolve(self, reference: str) -> dict[str, str]:
        """What a text names: `{"job": …}`, `{"experiment": …}`, `{"sweep": …}` or `{"model": …}`.

        Args:
            reference: an id, or its beginning; `name`, `name@alias` or `name/version` of a model.
                It may say its kind, as in `model:my_model/3`.

        Raises:
            ApiError: it looks like an id, and nothing has it, or several things.
        """
        kind, colon, name = reference.partition(":")
        if colon and kind in _KINDS:
            return {kind: name}
        if not (_SHORTEST_ID <= len(reference) <= _ID_LENGTH and set(reference) <= _HEXADECIMAL):
            return {"model": reference}
        found: list[dict[str, str]] = []
        for kind, (path, key) in _KINDS.items():
            try:
                reply = await self._transport.call(dict[str, Any], "GET", path.format(reference))
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
            else:
                found.append({kind: str(reply[key])})
        if len(found) == 1:
            return found[0]
        if found:
            several = " or ".join(f"{kind}:{name}" for one in found for kind, name in one.items())
            said = f"{reference} names several things; say which: {several}."
            raise ApiError(HTTPStatus.CONFLICT, {"detail": said})
        if len(reference) < _ID_LENGTH:
            return {"model": reference}  # who has the list of models says which is like it
        said = f"No job, experiment or sweep has the id {reference}."
        raise ApiError(HTTPStatus.NOT_FOUND, {"detail": said})

    @Operation
    async def comparison(self, comparison_id: str) -> Comparison:
        """A comparison with all its figures."""
        path = f"/comparisons/{part(comparison_id)}"
        found = await self._transport.call(ComparisonResult, "GET", path)
        return cast(Comparison, ShownComparison(found))

    @Operation
    async def comparison_report(
        self, comparison_id: str, format: Literal["html", "markdown"] = "html"
    ) -> str:
        """The report: one HTML file that opens offline, or Markdown for a pull request."""
        path = f"/comparisons/{part(comparison_id)}/report"
        return (await self._transport.content("GET", path, params={"format": format})).decode()

    @Operation
    async def delete_comparison(self, comparison_id: str) -> DeletedComparison:
        """Delete a comparison with its figure, tables and report; what it compared stays."""
        path = f"/comparisons/{part(comparison_id)}"
        return await self._transport.call(DeletedComparison, "DELETE", path)

    @Iteration
    async def iter_comparisons(self) -> AsyncGenerator[ComparisonSummary, None]:
        """All comparisons, newest first, without their figures."""
        pages = self._transport.pages(ComparisonSummary, "/comparisons", "comparisons", {})
        async for found in pages:
            yield found


def _shown(found: Mapping[str, float]) -> str:
    return f"{found['estimate']:,.2f} ({found['low']:,.2f} to {found['high']:,.2f})"
