"""From the bodies of a call to columns of numbers and texts: the Open Inference Protocol v2, JSON and binary.

It reads what a runtime has taken already, so it checks only what it needs; whatever it cannot read raises Unreadable.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from roost_gateway.open_inference import Unreadable, parsed, read_parts, tensors_of
from roost_gateway.predict.headers import Pair
from roost_platform.domain.comparing import Tensor

MOST_ROWS = 64
"""Of one call, the first ones."""
MOST_VALUES = 1024
"""Of a tensor whose elements are told apart: with 64 elements, 16 rows of it."""
MOST_ELEMENTS = 64
"""A row with more elements (an image, a text's tokens) is told by their mean and their deviation."""
_FLOATS = frozenset({"FP16", "FP32", "FP64"})

Values = list[float] | list[str]


@dataclass(frozen=True, slots=True)
class Rows:
    """What one call asked and was answered."""

    rows: int
    columns: dict[str, Values]
    answers: list[float] | list[str] = field(default_factory=list)
    """The first output by row: its only value, or the class of the greatest; empty when it is neither."""


def read_call(
    request: bytes,
    headers: Sequence[Pair],
    answer: bytes,
    answer_headers: Sequence[Pair],
    *,
    skip: Collection[str] = (),
) -> Rows:
    """`skip`: names of inputs and outputs that nobody looks at."""
    inputs = _read(*read_parts(request, headers), "inputs")
    outputs = _read(*read_parts(answer, answer_headers), "outputs")
    return _rows(inputs, outputs, skip)


def read_document(document: bytes, *, skip: Collection[str] = ()) -> Rows:
    """A reference as a file: `inputs`, and `outputs` if wanted, as in a request and its answer, all rows of it."""
    found = parsed(document)
    sides = [_read(found, b"", side) for side in ("inputs", "outputs") if side in found]
    if not sides:
        raise Unreadable("neither inputs nor outputs")
    inputs = sides[0] if "inputs" in found else []
    return _rows(inputs, sides[-1] if "outputs" in found else [], skip, most=None)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    datatype: str
    rows: int
    width: int
    values: Values


def _rows(inputs: list[_Tensor], outputs: list[_Tensor], skip: Collection[str], most: int | None = MOST_ROWS) -> Rows:
    columns: dict[str, Values] = {}
    answers: Values = []
    if most is not None:
        width = max((tensor.width for tensor in (*inputs, *outputs) if tensor.width <= MOST_ELEMENTS), default=1)
        most = min(most, MOST_VALUES // max(width, 1))
    for side, tensors in (("input", inputs), ("output", outputs)):
        for place, tensor in enumerate(tensors):
            if tensor.name in skip:
                continue
            found = dict(_features(tensor, side, tensor.rows if most is None else min(tensor.rows, most)))
            columns |= found
            name = f"{side}.{tensor.name}"
            if side == "output" and place == 0:
                answers = found.get(name) or found.get(f"{name}.class") or []
    first = (inputs or outputs)[:1]
    rows = first[0].rows if first else 0
    return Rows(rows if most is None else min(rows, most), columns, answers)


def _features(tensor: _Tensor, side: str, rows: int) -> Iterator[tuple[str, Values]]:
    name, width, values = f"{side}.{tensor.name}", tensor.width, tensor.values
    if width < 1:
        return
    if width == 1:
        yield name, values[:rows]
        return
    lines = [values[row * width : (row + 1) * width] for row in range(rows)]
    if width <= MOST_ELEMENTS:
        for place in range(width):
            column: Any = [line[place] for line in lines]
            yield f"{name}[{place}]", column
        if side == "output" and tensor.datatype in _FLOATS:
            yield f"{name}.class", [float(max(range(width), key=line.__getitem__)) for line in lines]
    elif tensor.datatype != "BYTES":
        numbers: Any = lines
        yield f"{name}.mean", [fmean(line) for line in numbers]
        yield f"{name}.deviation", [pstdev(line) if all(map(math.isfinite, line)) else math.nan for line in numbers]


def _read(document: dict[str, Any], binary: bytes, member: str) -> list[_Tensor]:
    return [_told(tensor, member) for tensor in tensors_of(document, binary, member)]


def _told(tensor: Tensor, member: str) -> _Tensor:
    rows, width = (tensor.shape[0], math.prod(tensor.shape[1:])) if tensor.shape else (1, 1)
    try:
        return _Tensor(tensor.name, tensor.datatype, rows, width, _values(tensor))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Unreadable(f"no {member} as in the protocol's version 2") from error


def _values(tensor: Tensor) -> Values:
    if tensor.datatype == "BYTES":
        return [str(value) for value in tensor.values]
    return [math.nan if value is None else float(value) for value in tensor.values]
