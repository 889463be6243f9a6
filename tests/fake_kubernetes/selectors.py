"""labelSelector and fieldSelector as queries carry them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fake_kubernetes.errors import Refused

Object = Mapping[str, Any]
_SET = re.compile(r"\s*(?P<key>\S+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)\s*")
_FIELDS = ("metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "involvedObject.name", "type")


def matcher(labels: str, fields: str) -> Callable[[Object], bool]:
    """Whether an object matches both selectors. Raises Refused 400 for what cannot be read."""
    tests = [_label_test(part) for part in _split(labels)] + [_field_test(part) for part in _split(fields)]
    return lambda thing: all(test(thing) for test in tests)


def _split(selector: str) -> list[str]:
    """By the commas outside of parentheses."""
    return [part for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _label_test(part: str) -> Callable[[Object], bool]:
    found = _SET.fullmatch(part)
    if found is not None:
        values = {value.strip() for value in found["values"].split(",")}
        key, wanted = found["key"], found["how"] == "in"
        return lambda thing: (_labels(thing).get(key) in values) is wanted
    key, how, value = _comparison(part)
    if how == "=":
        return lambda thing: _labels(thing).get(key) == value
    if how == "!=":
        return lambda thing: _labels(thing).get(key) != value
    if key.startswith("!"):
        return lambda thing: key[1:] not in _labels(thing)
    return lambda thing: key in _labels(thing)


def _field_test(part: str) -> Callable[[Object], bool]:
    key, how, value = _comparison(part)
    if key not in _FIELDS or not how:
        raise Refused(400, f'Unable to find "{key}" that matches label selector, field selector')
    return lambda thing: (_dotted(thing, key) == value) is (how == "=")


def _comparison(part: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"\s*([^=!\s]+|![^=\s]+)\s*(==|!=|=)?\s*(\S*)\s*", part)
    if found is None:
        raise Refused(400, f"unable to parse requirement: {part!r}")
    return found[1], {"==": "="}.get(found[2] or "", found[2] or ""), found[3]


def _labels(thing: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = thing["metadata"].get("labels", {})
    return found


def _dotted(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = thing.get(name, {})
    return thing or ""
