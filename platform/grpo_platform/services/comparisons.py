"""From what a client named to a comparison that is kept."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grpo_platform.comparisons.engine import compare
from grpo_platform.comparisons.records import Comparison
from grpo_platform.comparisons.report import files_of, html_report, markdown_report
from grpo_platform.comparisons.request import KINDS, ComparisonRequest, reference_from
from grpo_platform.comparisons.scale import check_environments, normalized
from grpo_platform.comparisons.sides import Contestants, SideReader
from grpo_platform.comparisons.store import ComparisonStore

__all__ = ["REPORTS", "Comparisons"]

REPORTS: Final = {"html": html_report, "markdown": markdown_report}
"""Ways to write a comparison, by format."""


class Comparisons:
    """Compares what is in a store, and keeps it there. Safe to call from several threads.

    Args:
        store: keeps comparisons.
        reader: of the same store.

    Attributes:
        store: keeps comparisons.
    """

    def __init__(self, store: ComparisonStore, reader: SideReader) -> None:
        self.store = store
        self._reader = reader

    def compare(
        self,
        references: Sequence[Mapping[str, str | None]],
        **given: Any,  # noqa: ANN401
    ) -> Comparison:
        """Compare two or more sides; what is refused leaves nothing behind.

        Args:
            references: each a mapping with one of `KINDS`.
            **given: further fields of `ComparisonRequest`; None is one that was left out.

        Raises:
            InvalidRequestError: too few or too many sides, one twice, or of different environments.
            NotFoundError: there is no such side.
            ConflictError: one has nothing to compare yet.
            UnsafeModelError: the files of a version are not what was registered.
            grpo.GRPOError: an environment cannot be played here.
            StoreError: the store refused, or is away.
        """
        fields = {name: value for name, value in given.items() if value is not None}
        named = [
            self._reader.whole(reference_from([(k, each.get(k)) for k in KINDS]))
            for each in references
        ]
        seed = secrets.randbits(32)
        request = ComparisonRequest(references=tuple(named), **({"seed": seed} | fields))
        sides = self._reader.describe(request)
        check_environments(sides, request.normalize)
        found = self._reader.fill(sides, request)
        if request.normalize:
            found = Contestants(
                sides=tuple(normalized(found.sides)),
                curve_metric=found.curve_metric,
                cut_short=found.cut_short,
            )
        title = " against ".join(side.label for side in found.sides)[:200]
        run_id = self.store.begin(title)
        try:
            made = compare(run_id, found, request)
            self.store.keep(made, files_of(made), markdown_report(made))
        except BaseException:
            self.store.discard(run_id)
            raise
        return made
