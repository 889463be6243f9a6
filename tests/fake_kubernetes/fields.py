"""Which manager owns which field: sets of leaf paths, read from a value by its schema and written as fieldsV1.

A path is a tuple of steps, spelt as in fieldsV1: `f:name` a member, `k:{"name":"x"}` an item of a list that is a map,
`v:"x"` an item of a list that is a set. What is atomic is one leaf.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from fake_kubernetes.schemas import ATOMIC, SET, Schema

Path = tuple[str, ...]
Paths = frozenset[Path]
_ABSENT = object()


def paths_of(value: Any, schema: Schema, prefix: Path = ()) -> Iterator[Path]:
    """The leaves of a value, and the items of its list-maps."""
    if isinstance(value, dict) and value and not schema.atomic_map:
        for name, item in value.items():
            yield from paths_of(item, schema.member(name) or Schema({}, {}), (*prefix, f"f:{name}"))
    elif isinstance(value, list) and value and schema.list_keys != ATOMIC:
        for item in value:
            path = (*prefix, step_of(item, schema))
            yield path
            if schema.list_keys != SET:
                yield from paths_of(item, schema.items, path)
    elif prefix:
        yield prefix


def step_of(item: Any, schema: Schema) -> str:
    """How an item of a list is told apart from its neighbours."""
    if schema.list_keys == SET:
        return "v:" + json.dumps(item)
    keys = {}
    for key in schema.list_keys:
        default = schema.items.at(key).node.get("default", "TCP" if key == "protocol" else None)
        keys[key] = item.get(key, default)
    return "k:" + json.dumps(keys, sort_keys=True, separators=(",", ":"))


def get(value: Any, schema: Schema, path: Path) -> Any:
    """What lies at a path; something equal to nothing else when nothing does."""
    for step in path:
        if step.startswith("f:"):
            if not isinstance(value, dict) or step[2:] not in value:
                return _ABSENT
            value, schema = value[step[2:]], schema.member(step[2:]) or Schema({}, {})
        else:
            found = [item for item in value if step_of(item, schema) == step] if isinstance(value, list) else []
            if not found:
                return _ABSENT
            value, schema = found[0], schema.items
    return value


def remove(value: Any, schema: Schema, path: Path) -> None:
    """Take out what lies at a path, and the maps that are empty without it."""
    parent = get(value, schema, path[:-1])
    step = path[-1]
    if isinstance(parent, dict):
        parent.pop(step[2:], None)
    elif isinstance(parent, list):
        at = _schema_at(schema, path[:-1])
        parent[:] = [item for item in parent if step_of(item, at) != step]
    if len(path) > 1 and parent in ({}, []):
        remove(value, schema, path[:-1])


def _schema_at(schema: Schema, path: Path) -> Schema:
    for step in path:
        schema = (schema.member(step[2:]) or Schema({}, {})) if step.startswith("f:") else schema.items
    return schema


def merged(live: Any, wish: Any, schema: Schema) -> Any:
    """The wish laid over what is there; what it does not speak of stays."""
    if isinstance(live, dict) and isinstance(wish, dict) and not schema.atomic_map:
        result = dict(live)
        for name, item in wish.items():
            result[name] = merged(live.get(name), item, schema.member(name) or Schema({}, {}))
        return result
    if isinstance(live, list) and isinstance(wish, list) and schema.list_keys != ATOMIC:
        wanted = {step_of(item, schema): item for item in wish}
        here = {step_of(item, schema): item for item in live}
        return [merged(item, wanted.get(step, item), schema.items) for step, item in here.items()] + [
            item for step, item in wanted.items() if step not in here
        ]
    return wish


def changed(old: Any, new: Any, schema: Schema) -> tuple[Paths, Paths]:
    """The leaves that were set or got another value, and those that went."""
    before, after = frozenset(paths_of(old, schema)), frozenset(paths_of(new, schema))
    differ = {path for path in after & before if _is_leaf(path) and get(old, schema, path) != get(new, schema, path)}
    return frozenset(after - before | differ), before - after


def _is_leaf(path: Path) -> bool:
    return not path[-1].startswith("k:")


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """As fieldsV1; an item that is owned itself carries a `.`."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if not _is_leaf(path):
            node["."] = {}
    return tree


def decode(tree: dict[str, Any], prefix: Path = ()) -> Iterator[Path]:
    for step, node in tree.items():
        if step == ".":
            yield prefix
        elif node:
            yield from decode(node, (*prefix, step))
        else:
            yield (*prefix, step)
