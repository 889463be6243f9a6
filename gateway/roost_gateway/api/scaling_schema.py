"""The scaling options as JSON schema, made from the domain's policy so that the two cannot disagree."""

from enum import StrEnum
from typing import Any

from roost_platform.domain.scaling import OPTION_NAMES, ScalingPolicy

EXAMPLE: dict[str, Any] = {"min-scale": 1, "max-scale": 5, "target": 10}


def _option_schema(value: Any) -> dict[str, Any]:
    if isinstance(value, StrEnum):
        return {"type": "string", "enum": list(type(value))}
    return {"type": "integer" if isinstance(value, int) else "number"}


_DEFAULTS = ScalingPolicy().to_json()
_OPTIONS = {name: _option_schema(_DEFAULTS[name]) for name in OPTION_NAMES}

SCHEMA: dict[str, Any] = {
    "properties": {
        name: {"anyOf": [schema, {"type": "null"}], "default": _DEFAULTS[name]} for name, schema in _OPTIONS.items()
    },
    "additionalProperties": False,
}
"""An object of options, each of which may be null."""

QUERY_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"Scaling option, Knative's autoscaling.knative.dev/{name} where that exists.",
        "schema": schema,
    }
    for name, schema in _OPTIONS.items()
]
"""The same options as OpenAPI query parameters."""
