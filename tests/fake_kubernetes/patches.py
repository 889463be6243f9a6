"""JSON merge patch (RFC 7396) and JSON patch (RFC 6902)."""

from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.schemas import copied


def merge_patched(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), change)
    return result


def json_patched(value: Any, operations: Any) -> Any:
    """Raises Refused: 400 for what is no patch, 422 for one that does not fit."""
    if not isinstance(operations, list):
        raise Refused(400, "error decoding patch: a list of operations is wanted")
    document: Any = {"": copied(value)}
    for operation in operations:
        try:
            _apply(document, operation)
        except (KeyError, IndexError, ValueError, TypeError, AssertionError):
            raise Refused(422, f"the server rejected our request due to an error in our request: {operation}") from None
    return document[""]


def _apply(document: Any, operation: dict[str, Any]) -> None:
    parent, name = _find(document, operation["path"])
    match operation["op"]:
        case "add":
            _put(parent, name, operation["value"], insert=True)
        case "replace":
            _get(parent, name)
            _put(parent, name, operation["value"], insert=False)
        case "remove":
            del parent[name if isinstance(parent, dict) else int(name)]
        case "test":
            assert _get(parent, name) == operation["value"]
        case "copy" | "move" as how:
            origin, origin_name = _find(document, operation["from"])
            value = copied(_get(origin, origin_name))
            if how == "move":
                del origin[origin_name if isinstance(origin, dict) else int(origin_name)]
            _put(parent, name, value, insert=True)
        case _:
            raise ValueError(operation["op"])


def _find(document: Any, path: str) -> tuple[Any, str]:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    for step in steps[:-1]:
        document = _get(document, step)
    return document, steps[-1]


def _get(parent: Any, name: str) -> Any:
    return parent[name if isinstance(parent, dict) else int(name)]


def _put(parent: Any, name: str, value: Any, *, insert: bool) -> None:
    if isinstance(parent, dict):
        parent[name] = value
    elif name == "-":
        parent.append(value)
    elif insert:
        assert 0 <= int(name) <= len(parent)
        parent.insert(int(name), value)
    else:
        parent[int(name)] = value
