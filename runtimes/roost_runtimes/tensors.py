"""Tensor data to arrays and back: JSON lists, raw little-endian bytes, and the checks that make them safe to run.

All functions raise RequestError naming the field, what was expected and what was got.
"""

import struct
from array import array
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from roost_runtimes.datatypes import DATATYPES, Datatype, Kind
from roost_runtimes.errors import RequestError
from roost_runtimes.long_lists import Numbers
from roost_runtimes.model import Array, TensorSpec

Buffer = bytes | bytearray | memoryview

MAX_RANK = 64
_MAX_DIM = 2**31 - 1
_FP32_MAX = float(np.finfo(np.float32).max)
_FEW = 32
"""Up to so many numbers, comparing them costs less than having numpy watch for overflow."""
_MANY = 256
"""From so many numbers on, looking at each one's type costs more than the array itself."""
_ARRAY_CODES = {Kind.FLOAT: "d", Kind.INTEGER: "q"}
_ALLOWED: dict[Kind, frozenset[type]] = {
    Kind.BOOL: frozenset({bool}),
    Kind.INTEGER: frozenset({int}),
    Kind.FLOAT: frozenset({float, int}),
    Kind.TEXT: frozenset({str}),
}
_JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}
_LENGTH = struct.Struct("<I")


class Input:
    """One input of a model, with everything that decoding needs looked up ahead."""

    __slots__ = ("allowed", "checks_overflow", "datatype", "name", "shape", "spec")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.shape = spec.shape
        self.datatype: Datatype = DATATYPES[spec.datatype]
        self.allowed = _ALLOWED[self.datatype.kind]
        self.checks_overflow = self.datatype.name == "FP32"


def check_shape(spec: Input, shape: Any, field: str) -> int:
    """The number of elements of this shape, after checking it against the signature.

    ONNX Runtime shows an input of unknown rank as one of rank 0, so rank 0 in the signature lets every shape pass; it
    refuses a wrong one itself.
    """
    if type(shape) is not list:
        raise RequestError(f"expected a list of integers as shape of input {spec.name!r}", field=field)
    declared = spec.shape
    if len(shape) > MAX_RANK:
        raise RequestError(f"input {spec.name!r} has {len(shape)} dimensions, more than {MAX_RANK}", field=field)
    for dim in shape:
        if type(dim) is not int or not 0 <= dim <= _MAX_DIM:
            raise RequestError(f"a dimension is an integer from 0 to {_MAX_DIM}, got {_show(dim)}", field=field)
    if declared:
        if len(shape) != len(declared):
            raise _shape_mismatch(spec, shape, field)
        for dim, wanted in zip(shape, declared, strict=True):
            if wanted not in (-1, dim):
                raise _shape_mismatch(spec, shape, field)
    count = prod(shape)
    if count == 0 and prod(dim for dim in shape if dim) > _MAX_DIM:
        raise RequestError(f"the dimensions of input {spec.name!r} are too large", field=field)
    return count


def _shape_mismatch(spec: Input, shape: Sequence[int], field: str) -> RequestError:
    return RequestError(f"input {spec.name!r} expects shape {list(spec.shape)}, got {list(shape)}", field=field)


def from_json(spec: Input, shape: Sequence[int], count: int, data: Any, field: str) -> Array:
    """An array from the flat or nested list `data`; nested lists must have exactly this shape.

    `data` may be Numbers. A refusal of those means no more than that they must be read the ordinary way.
    """
    if type(data) is Numbers:
        return _from_numbers(spec, shape, count, data, field)
    if type(data) is not list:
        raise RequestError(f"expected a list as data of input {spec.name!r}, got {_show(data)}", field=field)
    datatype = spec.datatype
    if datatype.name == "FP16":
        raise RequestError(f"input {spec.name!r} is FP16, which is sent as binary data only", field=field)
    if data and type(data[0]) is list:
        data = _flatten(spec, shape, data, field)
    if len(data) == count and count > _MANY:
        numbers = _many_numbers(spec, data)
        if numbers is not None:
            return numbers.reshape(shape)
    if not set(map(type, data)) <= spec.allowed:
        raise _wrong_element(spec, data, field)
    if len(data) != count:
        raise RequestError(
            f"input {spec.name!r} has shape {list(shape)}, which is {count} elements, but {len(data)} were sent",
            field=field,
        )
    numbers = _few_numbers(spec, data, field)
    return numbers if len(shape) == 1 else numbers.reshape(shape)


def _few_numbers(spec: Input, data: list[Any], field: str) -> Array:
    """A list that holds nothing but what the datatype allows as an array; refuses what is out of its range."""
    dtype = spec.datatype.numpy
    try:
        if not spec.checks_overflow or (0 < len(data) <= _FEW and -_FP32_MAX <= min(data) <= max(data) <= _FP32_MAX):
            return np.array(data, dtype)
        with np.errstate(over="raise"):
            return np.array(data, dtype)
    except (OverflowError, FloatingPointError):
        raise _out_of_range(spec, data, field) from None


def _from_numbers(spec: Input, shape: Sequence[int], count: int, data: Numbers, field: str) -> Array:
    values = None if spec.datatype.name == "FP16" else data.array(spec.datatype, shape, count)
    numbers = None if values is None else _narrow(spec, values)
    if numbers is None:
        raise RequestError(f"the data of input {spec.name!r} must be read number by number", field=field)
    return numbers.reshape(shape)


def _many_numbers(spec: Input, data: list[Any]) -> Array | None:
    """A long list of numbers as an array; None when it needs a closer look, for what it holds or to say what is wrong.

    `array` takes numbers only, but takes `true` for one: those are found among the ones.
    """
    code = _ARRAY_CODES.get(spec.datatype.kind)
    if code is None:
        return None
    try:
        values = np.frombuffer(array(code, data), code)
        ones = np.flatnonzero((values == 1) | (values == 0))
        if len(ones) > len(data) // 4 or any(type(data[i]) is bool for i in ones.tolist()):
            return None
    except (TypeError, OverflowError):
        return None
    return _narrow(spec, values)


def _narrow(spec: Input, values: Array) -> Array | None:
    """64-bit numbers as this input's datatype; None when one is out of its range."""
    with np.errstate(over="ignore"):
        numbers = values.astype(spec.datatype.numpy, copy=False)
    if numbers.dtype.kind == "f":
        return numbers if np.isfinite(numbers).all() else None
    if values.dtype.kind == "i" and numbers.dtype.kind == "u" and (values < 0).any():
        return None
    return numbers if numbers is values or (numbers == values).all() else None


def _flatten(spec: Input, shape: Sequence[int], data: list[Any], field: str) -> list[Any]:
    """The elements of nested lists, row by row, after checking that the nesting is exactly this shape."""
    if not shape or len(data) != shape[0]:
        raise _nested_mismatch(spec, shape, field)
    for length in shape[1:]:
        if set(map(type, data)) != {list} or set(map(len, data)) != {length}:
            raise _nested_mismatch(spec, shape, field)
        data = list(chain.from_iterable(data))
        if not data:
            break
    return data


def _nested_mismatch(spec: Input, shape: Sequence[int], field: str) -> RequestError:
    return RequestError(f"the nested data of input {spec.name!r} does not have the shape {list(shape)}", field=field)


def _wrong_element(spec: Input, data: list[Any], field: str) -> RequestError:
    index, value = next((i, v) for i, v in enumerate(data) if type(v) not in spec.allowed)
    datatype = spec.datatype
    if datatype.kind is Kind.INTEGER and type(value) is float:
        got = f"{value!r}, which is not an integer or is out of range"
    else:
        got = _show(value)
    return RequestError(
        f"input {spec.name!r} is {datatype.name} and takes {datatype.kind.value}, got {got} at element {index}",
        field=field,
    )


def _out_of_range(spec: Input, data: list[Any], field: str) -> RequestError:
    dtype = spec.datatype.numpy
    low, high = (
        (float(np.finfo(dtype).min), float(np.finfo(dtype).max))
        if spec.datatype.kind is Kind.FLOAT
        else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    )
    index, value = next(((i, v) for i, v in enumerate(data) if not low <= v <= high), (0, data[0]))
    return RequestError(
        f"input {spec.name!r} is {spec.datatype.name}, whose values are from {low} to {high}, "
        f"got {value} at element {index}",
        field=field,
    )


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return _JSON_NAMES.get(type(value), "something else")


def from_binary(spec: Input, shape: Sequence[int], count: int, raw: memoryview, field: str) -> Array:
    """An array over raw little-endian bytes, without a copy where they are aligned. It is read-only then.

    A misaligned array would be undefined behaviour in the compiled kernels that read it, so that one is copied.
    """
    datatype = spec.datatype
    if datatype.kind is Kind.TEXT:
        return _texts(spec, count, raw, field).reshape(shape)
    expected = count * datatype.size
    if len(raw) != expected:
        raise RequestError(
            f"input {spec.name!r} of shape {list(shape)} and type {datatype.name} is {expected} bytes, got {len(raw)}",
            field=field,
        )
    if count == 0:
        return np.empty(shape, datatype.numpy)
    numbers = np.frombuffer(raw, datatype.numpy)
    if datatype.kind is Kind.BOOL and numbers.view(np.uint8).max() > 1:
        raise RequestError(f"input {spec.name!r} is BOOL: every byte is 0 or 1", field=field)
    if not numbers.flags.aligned:
        numbers = numbers.copy()
    return numbers.reshape(shape)


def _texts(spec: Input, count: int, raw: memoryview, field: str) -> Array:
    elements: list[str] = []
    position, end = 0, len(raw)
    while position < end:
        start = position + 4
        if start > end:
            raise RequestError(f"the binary data of input {spec.name!r} ends inside a length", field=field)
        position = start + _LENGTH.unpack_from(raw, start - 4)[0]
        if position > end:
            raise RequestError(f"the binary data of input {spec.name!r} ends inside an element", field=field)
        elements.append(text(spec, raw[start:position], field))
    if len(elements) != count:
        raise RequestError(
            f"input {spec.name!r} needs {count} elements, its binary data holds {len(elements)}", field=field
        )
    return np.array(elements, dtype=object)


def text(spec: Input, raw: memoryview, field: str) -> str:
    """One BYTES element. ONNX strings are UTF-8, so other bytes are refused."""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise RequestError(f"input {spec.name!r} takes text in UTF-8", field=field) from None


def to_binary(array: Array) -> Buffer:
    """The raw little-endian bytes of an output, without a copy for numbers."""
    if array.dtype.hasobject:
        pieces: list[bytes] = []
        for element in array.ravel().tolist():
            encoded = element.encode() if isinstance(element, str) else bytes(element)
            pieces += (_LENGTH.pack(len(encoded)), encoded)
        return b"".join(pieces)
    flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return flat


def to_json(array: Array) -> Any:
    """What orjson can write with OPT_SERIALIZE_NUMPY, flat. Infinity and NaN become null: JSON has no word for them."""
    return array.ravel().tolist() if array.dtype.hasobject else array.ravel()
