"""Types that several schemas share."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, is_dataclass
from types import MappingProxyType, new_class
from typing import Annotated, Any, Literal, TypeVar, cast, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.fields import FieldInfo

from grpo import GRPOConfig, fields, verdict
from grpo_platform.core.request import MODEL_NAME, MODEL_REFERENCE

__all__ = [
    "ID_OR_BEGINNING",
    "MODEL_EXAMPLE",
    "WHOLE",
    "JsonObject",
    "ModelName",
    "ModelReference",
    "Reply",
    "RequestBody",
    "Verdict",
    "bounded",
    "example",
    "fields_from",
    "reply_from",
    "reply_of",
]

ID_OR_BEGINNING = "^([0-9a-f]{4,32}|latest)$"
"""Of a job, experiment or sweep: its whole id, what only it begins with, or the newest one's."""

MODEL_EXAMPLE = "my_cartpole_model"
"""Model that the example of POST /train makes, and that the other examples ask for."""

_MAX_JSON_CHARACTERS = 4_000
_MAX_TEXT = 200
_R = TypeVar("_R", bound=BaseModel)


class RequestBody(BaseModel):
    """A JSON body: types are not converted, and unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Reply(BaseModel):
    """A JSON reply; NaN and infinity, which JSON lacks, become null."""

    model_config = ConfigDict(
        ser_json_inf_nan="null", use_attribute_docstrings=True, protected_namespaces=()
    )


def example(**fields: JsonValue) -> ConfigDict:
    """Model configuration that shows a body which can be sent as it is."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


def bounded(name: str) -> FieldInfo:
    """The range of a hyperparameter, as `GRPOConfig` documents it."""
    return _within(fields.fields_of(GRPOConfig)[name].bound)


def fields_from(
    *sources: object,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[type[_R]], type[_R]]:
    """Decorator: gives a body the fields of dataclasses, with types, ranges, defaults and words.

    A field that the body declares itself stays as it is there, in the place of the dataclass's.

    Args:
        *sources: the dataclasses; a field that is itself a dataclass is left out.
        defaults: instead of the dataclasses' own.
        notes: by field, a sentence that is added to its description.
    """
    specs = {
        spec.name: spec
        for source in sources
        for spec in fields.fields_of(source).values()
        if not is_dataclass(spec.type)  # its fields are those of another source
    }

    def build(body: type[_R]) -> type[_R]:
        own = {name: _annotated(info) for name, info in body.model_fields.items()}
        derived = {
            name: own.get(name) or _declared(spec, defaults.get(name, spec.default), notes)
            for name, spec in specs.items()
        }
        return _remade(body, derived | own)

    return build


def reply_from(
    *records: object,
    without: Collection[str] = (),
) -> Callable[[type[_R]], type[_R]]:
    """Decorator: gives a reply the fields of records, all of them required, with types and words.

    A field that the reply declares itself stays as it is there, in the place of the record's.

    Args:
        *records: dataclasses; of two fields of one name the first counts.
        without: fields that stay inside.
    """

    def build(reply: type[_R]) -> type[_R]:
        own = {name: _annotated(info) for name, info in reply.model_fields.items()}
        derived: dict[str, Any] = {}
        for record in records:
            hints = get_type_hints(record)
            for name, spec in fields.fields_of(record).items():
                if name in without or name in derived:
                    continue
                info = Field(description=spec.description or None)
                hint = hints[name]
                kind: Any = dict[str, JsonValue] if get_origin(hint) is Mapping else hint
                derived[name] = own.get(name) or Annotated[kind, info]
        return _remade(reply, derived | own)

    return build


def reply_of(reply: type[_R], *records: object, **further: object) -> _R:
    """The reply that shows records.

    Args:
        reply: its class.
        *records: have its fields as attributes; of two of one name the first counts.
        **further: what they do not say, or say otherwise.
    """
    values = dict(further)
    for name in reply.model_fields.keys() - further.keys():
        record = next(record for record in records if hasattr(record, name))
        values[name] = getattr(record, name)
    return reply.model_validate(values, from_attributes=True)


def _remade(model: type[_R], annotations: Mapping[str, Any]) -> type[_R]:
    namespace = {
        "__module__": model.__module__,
        "__doc__": model.__doc__,
        "__annotations__": annotations,
        "model_config": model.model_config,
    }
    made = new_class(model.__name__, model.__bases__, exec_body=lambda ns: ns.update(namespace))
    return cast(type[_R], made)


def _annotated(info: FieldInfo) -> Any:  # noqa: ANN401 - an annotation
    parts = info.asdict()
    kind, extras, attributes = parts["annotation"], parts["metadata"], parts["attributes"]
    return Annotated[(kind, *extras, Field(**attributes))]


def _declared(spec: fields.Field, default: object, notes: Mapping[str, str]) -> Any:  # noqa: ANN401
    words = " ".join(filter(None, (spec.description, notes.get(spec.name))))
    given: dict[str, Any] = {} if default is MISSING else {"default": default}
    info = Field(description=words, examples=list(spec.examples) or None, **given)
    return Annotated[_json_type(spec), info]


def _json_type(spec: fields.Field) -> Any:  # noqa: ANN401 - an annotation
    """The type that a field has in JSON.

    Raises:
        TypeError: JSON has none for it that is known here.
    """
    kind: Any
    if spec.names is not None and spec.type is str:
        kind = Literal[spec.names]
    elif spec.pattern is not None:
        kind = Annotated[str, Field(pattern=spec.pattern.expression)]
    elif spec.items is not None:
        item = Annotated[int, _within(spec.items.bound), WHOLE]
        kind = Annotated[list[item], Field(max_length=spec.items.most)]
    elif spec.type is int:
        kind = Annotated[int, _within(spec.bound), WHOLE]
    elif spec.type is float:
        kind = Annotated[float, _within(spec.bound)]
    elif spec.type is bool:
        kind = bool
    elif spec.type is str:
        kind = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
    elif get_origin(spec.type) is Mapping:
        kind = JsonObject
    else:
        raise TypeError(f"{spec.name} is of type {spec.type}; say here what it is in JSON.")
    if spec.names is not None and spec.type is not str:
        kind = Annotated[kind | Literal[spec.names], _in_one_sentence(spec)]
    return kind | None if spec.optional else kind


def _in_one_sentence(spec: fields.Field) -> WrapValidator:
    """One finding for a field that takes numbers and names, in place of one for each kind."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
        try:
            return handler(value)
        except ValidationError:
            names = " or ".join(map(repr, spec.names or ()))
            raise ValueError(f"It must be a whole number {spec.bound}, or {names}") from None

    return WrapValidator(check)


def _within(bound: fields.Bound | None) -> FieldInfo:
    if bound is None:
        return cast(FieldInfo, Field())
    low: dict[str, Any] = {"gt" if bound.exclusive_low else "ge": bound.low}
    return cast(FieldInfo, Field(le=bound.high, **low))


def _integral(value: object) -> object:
    # 1e5 is an integer in JSON Schema, and how people write large budgets
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("NaN and infinity are not JSON values") from None
    if len(text) > _MAX_JSON_CHARACTERS:
        raise ValueError(f"At most {_MAX_JSON_CHARACTERS} characters of JSON")
    return value


WHOLE = BeforeValidator(_integral)
"""Last in the annotation of an integer: 1e5 and 100000.0 are whole numbers too."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_plain)]
"""A JSON object of at most 4,000 characters."""

ModelName = Annotated[str, Field(pattern=MODEL_NAME.expression)]
"""Name of a registered model."""

ModelReference = Annotated[str, Field(pattern=MODEL_REFERENCE.expression)]
"""A model's champion (`name`), or one of its versions (`name/3`, `name@alias`)."""


@reply_from(verdict.Baseline)
class Baseline(Reply):
    """A policy that the trained one is compared with, on the first episodes of its evaluation."""


@reply_from(verdict.Verdict)
class Verdict(Reply):
    """What a training's policy does better than two that it has to beat."""

    better: bool
    """Whether both are beaten: whether the intervals of both differences lie above 0."""

    sentence: str
    """The same in words, with the figures."""

    random: Baseline
    """Uniformly random actions."""

    start: Baseline
    """The policy that training started from: untrained, or the version of `init_from`."""
