"""What routes ask for: services as `Annotated` aliases, and bodies.

A body is decompressed, then read once, by pydantic-core, straight from bytes to a model. FastAPI's
own way (`json.loads`, then validation) answers 400 to bad UTF-8, deep nesting and huge integers;
pydantic-core finds all of these itself, as validation errors, and is faster.
"""

import re
import zlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Annotated, Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
from anyio import to_thread
from fastapi import Depends, Path, Query, Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import request_response
from starlette.types import Message, Receive, Scope

from grpo.errors import did_you_mean
from grpo_platform.api.errors import InvalidBodyError
from grpo_platform.api.schemas.common import MODEL_EXAMPLE, ModelName
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import LATEST
from grpo_platform.services.container import Services
from grpo_platform.serving.model import LoadedModel, Observations

__all__ = [
    "CODINGS",
    "ComparisonId",
    "EnvNameFilter",
    "ExperimentId",
    "FastJsonRoute",
    "JobId",
    "JsonRoute",
    "Limit",
    "ModelNameFilter",
    "ModelPath",
    "PageToken",
    "ServicesDep",
    "SweepId",
    "VersionPath",
    "decoded",
    "model_for",
    "note_answer",
    "parse_body",
    "predict_batch",
]

CODINGS: Final = {
    b"identity": None, b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS,
    b"deflate": zlib.MAX_WBITS,
}  # fmt: skip
"""Content codings of bodies that are read, with zlib's number of the format."""

_Model = TypeVar("_Model", bound=BaseModel)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def decoded(receive: Receive, coding: bytes, most: int) -> Receive:
    """Receives a compressed body as what it was, without ever holding more of it than may be.

    Args:
        receive: gives the compressed body.
        coding: one of `CODINGS`.
        most: bytes that the decompressed body may have.
    """
    if (wbits := CODINGS[coding.lower()]) is None:
        return receive
    stream = zlib.decompressobj(wbits)
    total = 0

    async def receive_decoded() -> Message:
        nonlocal total
        message = await receive()
        if message["type"] != "http.request":
            return message
        try:
            body = stream.decompress(message.get("body", b""), most - total + 1)
        except zlib.error as error:
            raise _not_in(coding) from error
        total += len(body)
        if total > most:
            raise HTTPException(413)
        cut_short = total > 0 and not stream.eof and not message.get("more_body", False)
        if cut_short or stream.unused_data:
            raise _not_in(coding)
        return {**message, "body": body}

    return receive_decoded


async def parse_body(request: Request, model: type[_Model]) -> _Model:
    """The request's body as a validated model.

    Raises:
        InvalidBodyError: not JSON, or not what the model's schema says.
    """
    body = await request.body()
    if not _is_json(request.scope):
        raise _invalid("json_invalid", "send it with the header Content-Type: application/json")
    try:
        return model.__pydantic_validator__.validate_json(body)  # type: ignore[no-any-return]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidBodyError(found, model) from error


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is parsed by `parse_body`.

    Query parameters that it does not have are refused, as unknown fields of bodies are: a filter
    that is misspelled would show everything.
    """

    def get_route_handler(self) -> _Handler:
        """FastAPI's handler, given a request whose `json` is the validated model."""
        handler = super().get_route_handler()
        model = _body_model(self)
        parameters = [
            field.alias
            for field in get_flat_params(self.dependant)
            if isinstance(field.field_info, params.Query)
        ]

        async def handle(request: Request) -> Response:
            _check_names(request, parameters)
            if model is None:
                return await handler(request)
            # FastAPI validates the parsed body against `model`: an instance of it passes as it is
            parsed = _ParsedRequest(request, await parse_body(request, model))
            return await handler(parsed)

        return handle


class FastJsonRoute(APIRoute):
    """A route as fast as the framework allows: `endpoint(body, request) -> Response`.

    It is documented like any other, by its signature and response model; the dependency solver and
    the reply's validation, which the route does without, are skipped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - APIRoute's
        super().__init__(*args, **kwargs)
        if self.body_field is not None:
            # Starlette's own: FastAPI's opens two stacks for what dependencies leave to be closed
            self.app = request_response(self.get_route_handler())

    def get_route_handler(self) -> _Handler:
        """Parse, call the endpoint, and hand its reply on."""
        model = _body_model(self)
        if model is None:
            return super().get_route_handler()
        endpoint: Callable[[BaseModel, Request], Awaitable[Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            return await endpoint(await parse_body(request, model), request)

        return handle


class _ParsedRequest(Request):
    """A request whose body was parsed already."""

    def __init__(self, request: Request, parsed: BaseModel) -> None:
        super().__init__(request.scope, request.receive)
        self._parsed = parsed

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> BaseModel:
        return self._parsed


def _check_names(request: Request, parameters: Collection[str]) -> None:
    for name in request.query_params:
        if name not in parameters:
            there_are = f"There are: {', '.join(parameters)}." if parameters else "There are none."
            raise InvalidRequestError(
                f"This call has no query parameter {name[:100]!r}. "
                f"{did_you_mean(name, parameters)}{there_are}",
                field=name[:200],
            )


def _body_model(route: APIRoute) -> type[BaseModel] | None:
    if route.body_field is None:
        return None
    return cast(type[BaseModel], route.body_field.field_info.annotation)


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind: bytes = value.partition(b";")[0].strip().lower()
            return kind == b"application/json" or (
                kind.startswith(b"application/") and kind.endswith(b"+json")
            )
    return False


def _invalid(kind: str, message: str) -> InvalidBodyError:
    return InvalidBodyError([{"type": kind, "loc": (), "msg": message, "input": None}])


def _not_in(coding: bytes) -> InvalidRequestError:
    return InvalidRequestError(
        f"The body is not one {coding.decode('latin-1')} stream, as this header says; compress "
        "it whole, or leave the header out.",
        field="Content-Encoding",
    )


_ID = re.compile(r"[0-9a-f]{32}")


async def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


async def _whole(request: Request, text: str, id_of: Callable[[str], str]) -> str:
    if _ID.fullmatch(text):
        return text
    if text == LATEST and request.method == "DELETE":
        raise InvalidRequestError("Say by its id what is to be deleted, or by its beginning.")
    return await run_in_threadpool(id_of, text)


def _path(call: str) -> params.Path:
    words = f"Id that POST {call} gave, the beginning of it, or `{LATEST}`."
    return cast(params.Path, Path(description=words, examples=[LATEST]))


async def _job_id(
    request: Request, services: ServicesDep, job_id: Annotated[str, _path("/train")]
) -> str:
    return await _whole(request, job_id, services.store.id_of)


async def _experiment_id(
    request: Request, services: ServicesDep, experiment_id: Annotated[str, _path("/train")]
) -> str:
    return await _whole(request, experiment_id, services.experiments.id_of)


async def _sweep_id(
    request: Request, services: ServicesDep, sweep_id: Annotated[str, _path("/sweeps")]
) -> str:
    return await _whole(request, sweep_id, services.sweeps.id_of)


async def _comparison_id(
    request: Request, services: ServicesDep, comparison_id: Annotated[str, _path("/comparisons")]
) -> str:
    return await _whole(request, comparison_id, services.comparisons.store.id_of)


JobId = Annotated[str, Depends(_job_id)]
"""Path parameter `job_id`: the whole id of what was meant, though it may be unknown still."""

ExperimentId = Annotated[str, Depends(_experiment_id)]
"""Path parameter `experiment_id`, likewise."""

SweepId = Annotated[str, Depends(_sweep_id)]
"""Path parameter `sweep_id`, likewise."""

ComparisonId = Annotated[str, Depends(_comparison_id)]
"""Path parameter `comparison_id`, likewise."""

ModelPath = Annotated[
    ModelName, Path(description="Name of a registered model.", examples=[MODEL_EXAMPLE])
]

VersionPath = Annotated[
    int, Path(ge=1, le=999_999_999, description="Number of the version.", examples=[1])
]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on a page.")]

EnvNameFilter = Annotated[
    str | None, Query(max_length=200, description="Only those of this environment.")
]

ModelNameFilter = Annotated[
    str | None, Query(max_length=128, description="Only those that train this model.")
]

PageToken = Annotated[
    str | None,
    Query(max_length=1000, description="`next_page_token` of the page before; none is the first."),
]


async def model_for(request: Request, reference: str) -> LoadedModel:
    """The model that serves a reference, at once if it is loaded.

    Raises:
        PlatformError: as `ServingService.load`.
    """
    services: Services = request.app.state.services
    model = services.serving.ready(reference)
    if model is None:
        model = await run_in_threadpool(services.serving.load, reference)
    return model


def note_answer(
    request: Request,
    model: LoadedModel,
    started: float,
    observations: object,
    actions: object,
    n: int | None = None,
) -> None:
    """Count a call that was just answered, see `ServedFigures.note`."""
    state = request.app.state
    seconds = state.services.served.figures.note(model, started, observations, actions, n)
    state.metrics.inference(model.name, model.version, seconds, 1 if n is None else n)


async def predict_batch(
    request: Request,
    model: LoadedModel,
    observations: Observations,
    deterministic: bool,
    action_masks: Sequence[Any] | None = None,
    states: npt.NDArray[np.float32] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """As `LoadedModel.predict_batch`, one batch at a time: several would fight for the interpreter.

    Raises:
        InvalidObservationError: an observation does not fit the model.
    """
    return await to_thread.run_sync(
        model.predict_batch,
        observations,
        deterministic,
        action_masks,
        states,
        limiter=request.app.state.one_batch,
    )
