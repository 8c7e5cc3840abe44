"""Comparison calls."""

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from grpo_platform.api.dependencies import (
    ComparisonId,
    JsonRoute,
    Limit,
    PageToken,
    ServicesDep,
)
from grpo_platform.api.errors import documented
from grpo_platform.api.schemas.comparisons import (
    ComparisonBody,
    ComparisonList,
    ComparisonResult,
    DeletedComparison,
    comparison_reply,
    comparison_summary,
)
from grpo_platform.services.comparisons import REPORTS

__all__ = ["router"]

router = APIRouter(
    tags=["comparisons"], route_class=JsonRoute, responses=documented(401, 403, 422, 503)
)

_MEDIA_TYPES = {"html": "text/html; charset=utf-8", "markdown": "text/markdown; charset=utf-8"}
_CLOSED = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_WRITTEN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report.",
        "content": {"text/html": {"schema": {"type": "string"}},
                    "text/markdown": {"schema": {"type": "string"}}},
    }
}  # fmt: skip


@router.post(
    "/comparisons",
    operation_id="start_comparison",
    responses=documented(400, 404, 409, 413, 415),
)
async def start_comparison(
    body: ComparisonBody, services: ServicesDep, request: Request
) -> ComparisonResult:
    """Compare experiments, jobs, versions and sweeps' bests, and keep the result."""

    def work() -> ComparisonResult:
        given = body.model_dump(exclude={"references"}, exclude_unset=True)
        references = [reference.model_dump() for reference in body.references]
        return comparison_reply(services.comparisons.compare(references, **given))

    return await to_thread.run_sync(work, limiter=request.app.state.decisions)


@router.get("/comparisons", operation_id="list_comparisons")
def list_comparisons(
    services: ServicesDep, limit: Limit = 100, page_token: PageToken = None
) -> ComparisonList:
    """Comparisons, newest first."""
    page = services.comparisons.store.page(limit, page_token)
    shown = [comparison_summary(item) for item in page.items]
    return ComparisonList(comparisons=shown, next_page_token=page.next_page_token)


@router.get(
    "/comparisons/{comparison_id}", operation_id="get_comparison", responses=documented(404)
)
def get_comparison(comparison_id: ComparisonId, services: ServicesDep) -> ComparisonResult:
    """A comparison with all its figures."""
    return comparison_reply(services.comparisons.store.comparison(comparison_id))


@router.delete(
    "/comparisons/{comparison_id}", operation_id="delete_comparison", responses=documented(404)
)
def delete_comparison(comparison_id: ComparisonId, services: ServicesDep) -> DeletedComparison:
    """Delete a comparison with its figure, tables and report; what it compared stays."""
    services.comparisons.store.delete(comparison_id)
    return DeletedComparison(comparison_id=comparison_id, message="The comparison is deleted.")


@router.get(
    "/comparisons/{comparison_id}/report",
    operation_id="get_comparison_report",
    responses=documented(404) | _WRITTEN,
    response_class=Response,
)
def get_comparison_report(
    comparison_id: ComparisonId,
    services: ServicesDep,
    kind: Annotated[
        Literal["html", "markdown"], Query(alias="format", description="How it is written.")
    ] = "html",
) -> Response:
    """The report: one HTML file that opens offline, or Markdown for a pull request."""
    found = services.comparisons.store.comparison(comparison_id)
    return Response(REPORTS[kind](found), media_type=_MEDIA_TYPES[kind], headers=_CLOSED)
