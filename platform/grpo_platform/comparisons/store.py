"""Comparisons in the MLflow store: one run each, with figure, tables and report."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from grpo_platform.comparisons.records import Comparison, ComparisonSummary
from grpo_platform.core.errors import PlatformError, UnknownComparisonError, UnknownJobError
from grpo_platform.core.names import JOB_READY, Tag
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.reader import Page, RunQuery, RunRow, decode_token, list_digest, page_of
from grpo_platform.tracking.reporter import Point
from grpo_platform.tracking.runs import RunStore, now_ms, require_job_id

__all__ = ["ComparisonItem", "ComparisonStore"]

_DIGEST: Final = list_digest(Tag.COMPARISON)
_FILE: Final = "comparison.json"
_MAX_NOTE: Final = 7_900


class ComparisonItem(NamedTuple):
    """A comparison in a list."""

    comparison_id: str
    created_at: datetime
    summary: ComparisonSummary


class ComparisonStore(RunStore):
    """All comparisons of one MLflow store; safe to use from several threads.

    Every method raises `StoreUnavailableError` while the store is away, `StoreError` when it
    refuses, and `UnknownComparisonError` for ids that are not a comparison of ours.

    Args:
        jobs: of the same store.
    """

    def __init__(self, jobs: JobStore) -> None:
        super().__init__(jobs.tracking_uri, jobs.signer)
        self._jobs = jobs

    def begin(self, title: str) -> str:
        """Make the run that is to keep a comparison; nobody sees it yet. Returns its id."""
        return str(self._jobs.schedule_run(title, {}).info.run_id)

    def keep(self, comparison: Comparison, files: Mapping[str, bytes], note: str) -> None:
        """Store a comparison in its run, and show it.

        Args:
            comparison: with the id of the run.
            files: figure, tables and report, by name.
            note: description that the MLflow UI shows, Markdown.
        """
        run_id = comparison.comparison_id
        uri = self._reader.get(run_id).artifact_uri
        with TemporaryDirectory() as folder:
            for name, content in {**files, _FILE: comparison.to_json().encode()}.items():
                path = Path(folder) / name
                path.write_bytes(content)
                self._files.upload(uri, path, "", verify=name == _FILE)
        now = now_ms()
        points = [
            Point(f"difference/{pair.first}-{pair.second}/{word}", value, 0, now)
            for pair in comparison.pairs
            for word, value in (
                ("mean", pair.mean.estimate), ("low", pair.mean.low), ("high", pair.mean.high)
            )
        ]  # fmt: skip
        self.log_points(run_id, points)
        params = {f"side.{i}": side.label for i, side in enumerate(comparison.sides)}
        tags = {
            Tag.COMPARISON_SUMMARY: comparison.summary().to_json(),
            Tag.COMPARISON: JOB_READY,
            Tag.NOTE: note[:_MAX_NOTE],
        }
        self._log(run_id, params=params, tags=tags)
        self._write(run_id, lambda: self._client.set_terminated(run_id))

    def discard(self, run_id: str) -> None:
        """Delete a run that is not to become a comparison, as far as that can be done."""
        with suppress(PlatformError):
            self._jobs.discard(run_id)

    def page(self, limit: int = 100, page_token: str | None = None) -> Page[ComparisonItem]:
        """Comparisons, newest first; one query, however many there are.

        Raises:
            InvalidPageTokenError: the token is not one that this list gave out.
        """
        after = decode_token(page_token, _DIGEST) if page_token is not None else None
        query = RunQuery(tag_keys=(Tag.COMPARISON,), after=after, limit=limit + 1)
        return page_of(self._reader.find(query), limit, _DIGEST, _item)

    def id_of(self, text: str) -> str:
        """The id of the comparison that a text means: see `RunStore._id_of`."""
        return self._id_of(text, Tag.COMPARISON, UnknownComparisonError)

    def comparison(self, comparison_id: str) -> Comparison:
        """A comparison with all its figures."""
        row = self._row(comparison_id)
        with TemporaryDirectory() as folder:
            path = self._files.download(row.artifact_uri, _FILE, Path(folder))
            return Comparison.from_json(path.read_bytes())

    def delete(self, comparison_id: str) -> None:
        """Delete a comparison with its files; what it compared stays."""
        self._jobs.delete_run(comparison_id, self._row(comparison_id).artifact_uri)

    def _row(self, comparison_id: str) -> RunRow:
        try:
            require_job_id(comparison_id)
            row = self._reader.get(comparison_id)
        except UnknownJobError as error:
            raise UnknownComparisonError(comparison_id) from error
        if Tag.COMPARISON not in row.tags or row.deleted:
            raise UnknownComparisonError(comparison_id)
        return row


def _item(row: RunRow) -> ComparisonItem:
    return ComparisonItem(
        comparison_id=row.run_id,
        created_at=datetime.fromtimestamp(row.start_time / 1000, UTC),
        summary=ComparisonSummary.from_json(row.tags.get(Tag.COMPARISON_SUMMARY, "")),
    )
