"""Open Inference Protocol v2, for clients of KServe and Triton."""

import json
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.responses import Response

from grpo import GRPOError
from grpo_platform.api.dependencies import (
    ModelPath,
    ServicesDep,
    model_for,
    note_answer,
    predict_batch,
)
from grpo_platform.api.errors import (
    PROBLEM_MEDIA_TYPE,
    InvalidBodyError,
    documented,
    problem_of,
    validation_problem,
)
from grpo_platform.api.schemas.open_inference import (
    InferReply,
    InferRequest,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from grpo_platform.api.tensors import HEADER_LENGTH, datatype_of, read_inputs, write_reply
from grpo_platform.core.errors import InvalidRequestError, PlatformError
from grpo_platform.services.container import Services
from grpo_platform.serving.model import LoadedModel

__all__ = ["router"]

VersionPath = Annotated[
    str, Path(pattern=r"^[1-9][0-9]{0,8}$", description="Version number.", examples=["1"])
]

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _ProtocolRoute(APIRoute):
    """A route whose errors also carry the protocol's own member, `error`."""

    def get_route_handler(self) -> _Handler:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except (PlatformError, GRPOError) as error:
                return _with_error(problem_of(error))
            except RequestValidationError as error:
                return _with_error(validation_problem(error.errors()))
            except InvalidBodyError as error:
                return _with_error(validation_problem(error.errors))

        return handle


class _InferRoute(_ProtocolRoute):
    """Reads the body itself: JSON, or JSON with tensors as bytes after it."""

    def get_route_handler(self) -> _Handler:
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            try:
                body, request.state.binary = _split(request, await request.body())
                return await endpoint(request=request, body=body, **request.path_params)
            except (PlatformError, GRPOError) as error:
                return _with_error(problem_of(error))
            except ValidationError as error:
                found = error.errors(include_url=False, include_input=False)
                return _with_error(validation_problem(found))

        return handle


router = APIRouter(
    prefix="/v2",
    tags=["open inference protocol"],
    route_class=_ProtocolRoute,
    responses=documented(401, 403),
)
_infer_router = APIRouter(
    route_class=_InferRoute, responses=documented(404, 409, 413, 415, 422, 503)
)


@router.get("", operation_id="v2_server_metadata")
async def server_metadata() -> ServerMetadata:
    """What this server is."""
    return ServerMetadata(
        name="grpo-platform", version=version("grpo-platform"), extensions=["binary_tensor_data"]
    )


@router.get("/health/live", operation_id="v2_live")
async def live() -> Live:
    """Whether the process answers; needs no token."""
    return Live(live=True)


@router.get("/health/ready", operation_id="v2_ready", responses=documented(503))
def ready(services: ServicesDep) -> Ready:
    """Whether the store can be reached and jobs are taken; needs no token."""
    services.check_ready()
    return Ready(ready=True)


_MODEL_REPLIES = documented(404, 409, 422, 503)


@router.get("/models/{name}", operation_id="v2_model_metadata", responses=_MODEL_REPLIES)
def model_metadata(name: ModelPath, services: ServicesDep) -> ModelMetadata:
    """What a model takes and gives."""
    return _metadata(services, name, name)


@router.get(
    "/models/{name}/versions/{model_version}",
    operation_id="v2_version_metadata",
    responses=_MODEL_REPLIES,
)
def version_metadata(
    name: ModelPath, model_version: VersionPath, services: ServicesDep
) -> ModelMetadata:
    """What a version of a model takes and gives."""
    return _metadata(services, name, f"{name}/{model_version}")


@router.get("/models/{name}/ready", operation_id="v2_model_ready", responses=_MODEL_REPLIES)
def model_ready(name: ModelPath, services: ServicesDep) -> ModelReady:
    """Whether a model can answer; loads it if need be."""
    _load(services, name)
    return ModelReady(name=name, ready=True)


@router.get(
    "/models/{name}/versions/{model_version}/ready",
    operation_id="v2_version_ready",
    responses=_MODEL_REPLIES,
)
def version_ready(name: ModelPath, model_version: VersionPath, services: ServicesDep) -> ModelReady:
    """Whether a version of a model can answer; loads it if need be."""
    _load(services, f"{name}/{model_version}")
    return ModelReady(name=name, ready=True)


@_infer_router.post("/models/{name}/infer", operation_id="v2_infer", response_model=InferReply)
async def infer(request: Request, body: InferRequest, name: ModelPath) -> Response:
    """Tensors in, tensors out."""
    return await _infer(request, body, name)


@_infer_router.post(
    "/models/{name}/versions/{model_version}/infer",
    operation_id="v2_version_infer",
    response_model=InferReply,
)
async def version_infer(
    request: Request, body: InferRequest, name: ModelPath, model_version: VersionPath
) -> Response:
    """Tensors in, tensors out, by a version of the model."""
    return await _infer(request, body, f"{name}/{model_version}")


router.include_router(_infer_router)


def _split(request: Request, content: bytes) -> tuple[InferRequest, bytes]:
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return InferRequest.model_validate_json(content), b""
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > len(content):
        raise InvalidRequestError(
            "It must be the number of bytes of the JSON part of the body.", field=HEADER_LENGTH
        )
    return InferRequest.model_validate_json(content[: int(length)]), content[int(length) :]


def _deterministic(body: InferRequest) -> bool:
    value = (body.parameters or {}).get("deterministic", True)
    if not isinstance(value, bool):
        raise InvalidRequestError("It must be true or false.", field="parameters.deterministic")
    return value


async def _infer(request: Request, body: InferRequest, reference: str) -> Response:
    started = time.perf_counter()
    tensors = read_inputs(body, request.state.binary)
    deterministic = _deterministic(body)
    model = await model_for(request, reference)
    observations = model.observations(tensors)
    outputs = await predict_batch(request, model, observations, deterministic)
    reply = write_reply(body, model.name, model.version, outputs)
    actions = outputs["action"]
    note_answer(request, model, started, observations, actions, len(actions))
    return reply


def _metadata(services: Services, name: str, reference: str) -> ModelMetadata:
    model = _load(services, reference)
    outputs = model.predict_batch(model.example[None])
    return ModelMetadata(
        name=name,
        versions=[str(info.version) for info in services.registry.get(name).versions],
        platform="grpo_numpy",
        inputs=[
            _tensor(name, datatype_of(dtype), shape)
            for name, (dtype, shape) in model.inputs.items()
        ],
        outputs=[
            _tensor(output, datatype_of(array.dtype), array.shape[1:])
            for output, array in outputs.items()
        ],
    )


def _load(services: Services, reference: str) -> LoadedModel:
    return services.serving.ready(reference) or services.serving.load(reference)


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=[-1, *shape])


def _with_error(reply: Response) -> Response:
    problem = json.loads(bytes(reply.body))
    headers = {k: v for k, v in reply.headers.items() if k.lower() == "retry-after"}
    content = json.dumps(problem | {"error": problem["detail"]})
    return Response(content, reply.status_code, headers, PROBLEM_MEDIA_TYPE)
