"""What routes ask for, as `Annotated` aliases."""

import re
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from grpo_platform.api.schemas.common import MODEL_EXAMPLE, ModelName
from grpo_platform.api.services import Services
from grpo_platform.errors import UnknownJobError

__all__ = ["JobId", "Limit", "ModelPath", "PageToken", "ServicesDep"]

_JOB_ID = re.compile(r"[0-9a-f]{32}")


async def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


async def _job_id(job_id: Annotated[str, Path(description="Id that POST /train gave.")]) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise UnknownJobError(job_id)
    return job_id


ServicesDep = Annotated[Services, Depends(_services)]

JobId = Annotated[str, Depends(_job_id)]
"""Path parameter `job_id`; what cannot be an id is unknown without a look at the store."""

ModelPath = Annotated[
    ModelName, Path(description="Name of a registered model.", examples=[MODEL_EXAMPLE])
]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on a page.")]

PageToken = Annotated[
    str | None,
    Query(max_length=1000, description="`next_page_token` of the page before; none is the first."),
]
