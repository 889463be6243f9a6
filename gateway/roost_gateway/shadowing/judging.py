"""From the bodies of two answers to what they agree in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from roost_gateway.open_inference import read_parts, read_tensors
from roost_gateway.predict.headers import Pair
from roost_gateway.shadowing.json_paths import Find
from roost_platform.domain.comparing import (
    Agreement,
    Comparison,
    compare_found,
    compare_outputs,
    compare_statuses,
)


class Answered(NamedTuple):
    """What a version answered."""

    status: int
    headers: Sequence[Pair]
    body: bytes


def judge(served: Answered, copied: Answered, how: Comparison, find: Find | None) -> Agreement:
    """`find`: what the comparison's path finds; None where it has none. Raises Unreadable."""
    if served.status != 200 or copied.status != 200:
        return compare_statuses(served.status, copied.status)
    if find is None:
        return compare_outputs(_outputs(served), _outputs(copied), how)
    return compare_found(_found(served, find), _found(copied, find), how)


def _outputs(answered: Answered) -> list[Any]:
    return read_tensors(answered.body, answered.headers, "outputs")


def _found(answered: Answered, find: Find) -> list[Any]:
    document, _ = read_parts(answered.body, answered.headers)
    return find(document)
