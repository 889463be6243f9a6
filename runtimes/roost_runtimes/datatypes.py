"""Tensor datatypes: their Open Inference Protocol names, their numpy types and their names in ONNX.

BF16 is not served: neither numpy nor the Python interface of ONNX Runtime has such a type.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np


class Kind(Enum):
    """What JSON may hold for a datatype."""

    BOOL = "true or false"
    INTEGER = "integers"
    FLOAT = "numbers"
    TEXT = "strings"


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype. `size` is bytes per element; 0 for BYTES, whose elements carry their own length."""

    name: str
    kind: Kind
    onnx: str
    numpy: "np.dtype[Any]"
    size: int


def _numeric(name: str, kind: Kind, onnx: str, numpy: str) -> Datatype:
    dtype = np.dtype(numpy)
    return Datatype(name, kind, f"tensor({onnx})", dtype, dtype.itemsize)


_ALL = (
    _numeric("BOOL", Kind.BOOL, "bool", "?"),
    _numeric("UINT8", Kind.INTEGER, "uint8", "<u1"),
    _numeric("UINT16", Kind.INTEGER, "uint16", "<u2"),
    _numeric("UINT32", Kind.INTEGER, "uint32", "<u4"),
    _numeric("UINT64", Kind.INTEGER, "uint64", "<u8"),
    _numeric("INT8", Kind.INTEGER, "int8", "<i1"),
    _numeric("INT16", Kind.INTEGER, "int16", "<i2"),
    _numeric("INT32", Kind.INTEGER, "int32", "<i4"),
    _numeric("INT64", Kind.INTEGER, "int64", "<i8"),
    _numeric("FP16", Kind.FLOAT, "float16", "<f2"),
    _numeric("FP32", Kind.FLOAT, "float", "<f4"),
    _numeric("FP64", Kind.FLOAT, "double", "<f8"),
    Datatype("BYTES", Kind.TEXT, "tensor(string)", np.dtype(object), 0),
)

DATATYPES = {datatype.name: datatype for datatype in _ALL}
"""By Open Inference Protocol name."""

BY_ONNX = {datatype.onnx: datatype for datatype in _ALL}
"""By ONNX type string, such as `tensor(float)`."""
