"""Schemas as the API server uses them: to check, to prune, and to know which lists are maps and what is atomic.

Kubernetes' own kinds come with JSON schemas made of its OpenAPI document, Knative's with those of their CRDs. Both name
the merge rules by `x-kubernetes-*` keys.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import orjson

ATOMIC: tuple[str, ...] = ("atomic",)
SET: tuple[str, ...] = ("set",)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?\d+))?")


class Wrong(NamedTuple):
    """One thing that a schema does not allow; `field` is dotted."""

    field: str
    message: str
    missing: bool = False


@dataclass(frozen=True, eq=False)
class Schema:
    """One node of a schema. Nodes that say nothing allow everything."""

    node: Mapping[str, Any]
    definitions: Mapping[str, Any]

    @cache  # noqa: B019 - the schemas live as long as the program
    def member(self, name: str) -> "Schema | None":
        """The schema of a member, None when there is no such member."""
        known = self.node.get("properties", {})
        if name in known:
            return self._at(known[name])
        more = self.node.get("additionalProperties")
        if isinstance(more, dict):
            return self._at(more)
        return None if known and not self.node.get("x-kubernetes-preserve-unknown-fields") else self._at({})

    @property
    @cache  # noqa: B019
    def items(self) -> "Schema":
        return self._at(self.node.get("items", {}))

    @property
    def list_keys(self) -> tuple[str, ...]:
        """What tells the items of this list apart: the names of their keys, SET or ATOMIC."""
        kind = self.node.get("x-kubernetes-list-type", "atomic")
        return tuple(self.node["x-kubernetes-list-map-keys"]) if kind == "map" else SET if kind == "set" else ATOMIC

    @property
    def atomic_map(self) -> bool:
        return self.node.get("x-kubernetes-map-type") == "atomic"

    def _at(self, node: Mapping[str, Any]) -> "Schema":
        reference = node.get("$ref")
        if reference is not None:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            node = {**self.definitions[reference.rpartition("/")[2]], **rest}
        return Schema(node, self.definitions)

    def at(self, *names: str) -> "Schema":
        """The schema some members down; they must exist."""
        found: Schema | None = self
        for name in names:
            assert found is not None
            found = found.member(name)
        assert found is not None
        return found


def copied(document: Any) -> Any:
    """A deep copy of a JSON document, many times faster than one of anything."""
    return orjson.loads(orjson.dumps(document))


def without_nulls(value: Any) -> Any:
    """Null means absent to the API server; so does it to us, from the start."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def prune(schema: Schema, value: Any, field: str = "") -> list[str]:
    """Remove what the schema does not know; returns the dotted names of what was removed."""
    removed: list[str] = []
    if isinstance(value, dict):
        for name in list(value):
            inner = schema.member(name)
            here = f"{field}.{name}" if field else name
            if inner is None:
                del value[name]
                removed.append(here)
            else:
                removed += prune(inner, value[name], here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            removed += prune(schema.items, item, f"{field}[{index}]")
    return removed


def check(schema: Schema, value: Any, field: str = "") -> Iterator[Wrong]:
    """Everything in the value that the schema does not allow."""
    node = schema.node
    if not _type_fits(node, value):
        yield Wrong(field, f'Invalid value: "{type(value).__name__}": must be of type {node.get("type", "string")}')
    elif isinstance(value, dict):
        for name in node.get("required") or ():
            if name not in value:
                yield Wrong(f"{field}.{name}".strip("."), "Required value", missing=True)
        for name, item in value.items():
            yield from check(schema.member(name) or Schema({}, {}), item, f"{field}.{name}".strip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from check(schema.items, item, f"{field}[{index}]")
    else:
        yield from (Wrong(field, message) for message in _mistakes(node, value))


def _mistakes(node: Mapping[str, Any], value: Any) -> Iterator[str]:
    """What is wrong with a plain value of the right type."""
    if "enum" in node and value not in node["enum"]:
        yield f'Unsupported value: "{value}": supported values: {node["enum"]}'
    if isinstance(value, str):
        if "pattern" in node and not re.search(node["pattern"], value):
            yield f"Invalid value: \"{value}\": should match '{node['pattern']}'"
        if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", len(value)):
            yield f'Invalid value: "{value}": is too long or too short'
    elif not node.get("minimum", value) <= value <= node.get("maximum", value):
        yield f"Invalid value: {value}: out of bounds"


def _type_fits(node: Mapping[str, Any], value: Any) -> bool:
    if "oneOf" in node or node.get("x-kubernetes-int-or-string"):  # Quantity and IntOrString
        return isinstance(value, str | int | float)
    wanted = node.get("type", ())
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not wanted:
        return True
    if isinstance(value, bool):
        return "boolean" in wanted
    return any(isinstance(value, _TYPES[name]) for name in wanted if name != "null")
