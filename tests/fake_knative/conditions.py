"""Conditions as Knative's controllers keep them: a living set whose `Ready` follows from the others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fake_kubernetes.registry import now

Object = dict[str, Any]


class Condition(NamedTuple):
    status: str
    reason: str = ""
    message: str = ""


TRUE = Condition("True")
UNKNOWN = Condition("Unknown")


def false(reason: str, message: str) -> Condition:
    return Condition("False", reason, message)


def unknown(reason: str, message: str = "") -> Condition:
    return Condition("Unknown", reason, message)


def living_set(parts: Mapping[str, Condition]) -> dict[str, Condition]:
    """The parts with their sum: `Ready` is False when one is, else Unknown when one is, with that one's words."""
    for status in ("False", "Unknown"):
        for part in parts.values():
            if part.status == status:
                return {**parts, "Ready": part}
    return {**parts, "Ready": TRUE}


def written(conditions: Mapping[str, Condition], before: Object, *, info: Sequence[str] = ()) -> list[Object]:
    """As in a status, by type; the time of a transition stays until the status is another."""
    old = {entry["type"]: entry for entry in before.get("conditions", ())}
    result = []
    for type_, condition in sorted(conditions.items()):
        entry: Object = {"type": type_, "status": condition.status}
        entry |= {"reason": condition.reason} if condition.reason else {}
        entry |= {"message": condition.message} if condition.message else {}
        entry |= {"severity": "Info"} if type_ in info else {}
        same = type_ in old and old[type_]["status"] == condition.status
        entry["lastTransitionTime"] = old[type_]["lastTransitionTime"] if same else now()
        result.append(entry)
    return result


def condition_of(thing: Object, type_: str) -> Condition:
    """What a status says; Unknown when it says nothing, or speaks of an older generation."""
    status = thing.get("status", {})
    if status.get("observedGeneration") == thing["metadata"]["generation"]:
        for entry in status.get("conditions", ()):
            if entry["type"] == type_:
                return Condition(entry["status"], entry.get("reason", ""), entry.get("message", ""))
    return UNKNOWN
