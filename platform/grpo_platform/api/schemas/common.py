"""Types that several schemas share."""

import json
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.fields import FieldInfo

from grpo.config import BOUNDS
from grpo_platform.core.request import MODEL_NAME_PATTERN

__all__ = [
    "MODEL_EXAMPLE",
    "MODEL_REFERENCE_PATTERN",
    "WHOLE",
    "JsonObject",
    "ModelName",
    "ModelReference",
    "Reply",
    "RequestBody",
    "bounded",
    "example",
]

MODEL_REFERENCE_PATTERN = MODEL_NAME_PATTERN[:-1] + r"(@[A-Za-z0-9_-]{1,64}|/[1-9][0-9]{0,8})?$"
"""`name` (its champion), `name@alias` or `name/version`."""

MODEL_EXAMPLE = "my_cartpole_model"
"""Model that the example of POST /train makes, and that the other examples ask for."""

_MAX_JSON_CHARACTERS = 4_000


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
    bound = BOUNDS[name]
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

ModelName = Annotated[str, Field(pattern=MODEL_NAME_PATTERN)]
"""Name of a registered model."""

ModelReference = Annotated[str, Field(pattern=MODEL_REFERENCE_PATTERN)]
"""A model's champion (`name`), or one of its versions (`name/3`, `name@alias`)."""
