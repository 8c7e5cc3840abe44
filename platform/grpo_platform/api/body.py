"""JSON bodies: read once, by pydantic-core, straight from bytes to a validated model.

FastAPI's own way (`json.loads`, then validation) answers 400 to bad UTF-8, deep nesting and huge
integers; pydantic-core finds all of these itself, as validation errors, and is faster.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from grpo_platform.api.errors import InvalidBodyError

__all__ = ["FastJsonRoute", "JsonRoute", "parse_body"]

_Model = TypeVar("_Model", bound=BaseModel)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
    """A route whose body, if it has one, is parsed by `parse_body`."""

    def get_route_handler(self) -> _Handler:
        """FastAPI's handler, given a request whose `json` is the validated model."""
        handler = super().get_route_handler()
        model = _body_model(self)
        if model is None:
            return handler

        async def handle(request: Request) -> Response:
            # FastAPI validates the parsed body against `model`: an instance of it passes as it is
            parsed = _ParsedRequest(request, await parse_body(request, model))
            return await handler(parsed)

        return handle


class FastJsonRoute(APIRoute):
    """A route as fast as the framework allows: `endpoint(body, request) -> Response`.

    It is documented like any other, by its signature and response model; the dependency solver and
    the reply's validation, which the route does without, are skipped.
    """

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
