"""From the bodies of a call to columns of numbers and texts: the Open Inference Protocol v2, JSON and binary.

It reads what a runtime has taken already, so it checks only what it needs; whatever it cannot read raises Unreadable.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

import orjson

from roost_gateway.predict.headers import Pair

MOST_ROWS = 64
"""Of one call, the first ones."""
MOST_VALUES = 1024
"""Of a tensor whose elements are told apart: with 64 elements, 16 rows of it."""
MOST_ELEMENTS = 64
"""A row with more elements (an image, a text's tokens) is told by their mean and their deviation."""
_UNZIPPED_BYTES = 1 << 20
_FORMATS = {
    "FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "BOOL": "?",
}  # fmt: skip
_FLOATS = frozenset({"FP16", "FP32", "FP64"})

Values = list[float] | list[str]


class Unreadable(Exception):
    """Not in a form that can be looked at."""


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
    inputs = _tensors(request, headers, "inputs")
    outputs = _tensors(answer, answer_headers, "outputs")
    return _rows(inputs, outputs, skip)


def read_document(document: bytes, *, skip: Collection[str] = ()) -> Rows:
    """A reference as a file: `inputs`, and `outputs` if wanted, as in a request and its answer, all rows of it."""
    found = _parsed(document)
    sides = [_members(found, b"", side) for side in ("inputs", "outputs") if side in found]
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


def _tensors(body: bytes, headers: Sequence[Pair], member: str) -> list[_Tensor]:
    length = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-encoding":
            body = _unzipped(body, value.lower())
        if lower == b"inference-header-content-length":
            length = int(value)
    return _members(_parsed(body[:length]), b"" if length is None else body[length:], member)


def _unzipped(body: bytes, coding: bytes) -> bytes:
    if coding == b"identity":
        return body
    if coding not in (b"gzip", b"deflate"):
        raise Unreadable("compressed in another way")
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)  # by its first bytes, either
    try:
        plain = unzip.decompress(body, _UNZIPPED_BYTES)
    except zlib.error as error:
        raise Unreadable("not compressed as it says") from error
    if not unzip.eof:
        raise Unreadable("too large once decompressed")
    return plain


def _parsed(document: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _members(document: dict[str, Any], binary: bytes, member: str) -> list[_Tensor]:
    made, at = [], 0
    try:
        for tensor in document[member]:
            shape = [int(size) for size in tensor["shape"]]
            rows, width = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            if size is None:
                values = _plain(tensor["data"], tensor["datatype"])
            else:
                values = _unpacked(binary[at : at + size], tensor["datatype"])
                at += size
            if len(values) != rows * width:
                raise Unreadable("another number of values than its shape says")
            made.append(_Tensor(str(tensor["name"]), str(tensor["datatype"]), rows, width, values))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError, struct.error) as error:
        raise Unreadable(f"no {member} as in the protocol's version 2") from error
    return made


def _plain(data: Any, datatype: str) -> Values:
    flat: list[Any] = data if isinstance(data, list) else [data]
    while flat and isinstance(flat[0], list):
        flat = [value for line in flat for value in line]
    if datatype == "BYTES":
        return [str(value) for value in flat]
    return [math.nan if value is None else float(value) for value in flat]


def _unpacked(raw: bytes, datatype: str) -> Values:
    if datatype != "BYTES":
        form = _FORMATS[datatype]
        return [float(value) for value in struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw)]
    texts, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + size].decode("utf-8", "replace"))
        at += 4 + size
    return texts
