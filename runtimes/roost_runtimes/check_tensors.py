"""Constant tensors inside a model: their data must be in the file, and as long as their shape says.

External data is refused whatever it points at: path checks for it have been got round again and again, and ONNX Runtime
takes one reserved location as an address in its own memory. No key of an external-data entry is ever read here.
"""

from math import prod

from onnx import SparseTensorProto, TensorProto

from roost_runtimes.check_verdict import Rejected, field_of

ADDRESS_MARKER = b"_ORT_MEM_ADDR_"
MOST_ELEMENTS = 2**63
_MOST_DIMENSIONS = 64  # numpy's own limit

_RAW_BITS = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    "COMPLEX128": 128,
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"), 8),
}
_BITS = {number: _RAW_BITS[name] for name, number in TensorProto.DataType.items() if name in _RAW_BITS}
_KNOWN = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_CHECKED = frozenset({*_BITS, TensorProto.STRING})
"""Types newer than this table are ONNX Runtime's to judge."""
_TYPED_FIELD = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
"""Where a tensor without raw data keeps its elements, and how many entries each takes; int32_data for all others."""


def check_tensor(tensor: TensorProto, owner: str) -> None:
    """Raises Rejected (external_data, invalid_graph); `owner` names the tensor in the sentence."""
    if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
        raise Rejected(
            "external_data",
            f"{owner} keeps its data outside the file; save the model with all its tensors inside",
            field=field_of(tensor.name or owner),
        )
    count = elements(tensor.dims, owner, tensor.name)
    if tensor.data_type not in _KNOWN:
        raise Rejected("invalid_graph", f"{owner} has no known data type", field=field_of(tensor.name or owner))
    if tensor.data_type in _CHECKED and _held(tensor) != _expected(tensor, count):
        raise Rejected(
            "invalid_graph",
            f"{owner} says shape {list(tensor.dims)[:8]}, but its data has another length",
            field=field_of(tensor.name or owner),
        )


def check_sparse(sparse: SparseTensorProto, owner: str) -> None:
    """Both halves of a sparse tensor, and its dense shape."""
    check_tensor(sparse.values, owner)
    check_tensor(sparse.indices, owner)
    elements(sparse.dims, owner, sparse.values.name)


def elements(dims: list[int], owner: str, name: str) -> int:
    """Product of `dims`. Raises Rejected (invalid_graph) when they are no shape: negative, over 2^63 in all."""
    if len(dims) > _MOST_DIMENSIONS:
        raise Rejected(
            "invalid_graph", f"{owner} has over {_MOST_DIMENSIONS} dimensions", field=field_of(name or owner)
        )
    if any(dim < 0 for dim in dims):
        raise Rejected("invalid_graph", f"{owner} has a negative dimension", field=field_of(name or owner))
    count = prod(dims)
    if count > MOST_ELEMENTS:
        raise Rejected("invalid_graph", f"{owner} has more than 2^63 elements", field=field_of(name or owner))
    return count


def _held(tensor: TensorProto) -> int:
    """Bytes of raw data, or entries of the typed field."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    field, _ = _TYPED_FIELD.get(tensor.data_type, ("int32_data", 1))
    return len(getattr(tensor, field))


def _expected(tensor: TensorProto, count: int) -> int:
    """What `_held` gives for a sound tensor; -1 where there is no such thing (raw strings)."""
    if tensor.data_type == TensorProto.STRING:
        return -1 if tensor.HasField("raw_data") else count
    bits = _BITS[tensor.data_type]
    if tensor.HasField("raw_data") or bits < 8:  # elements under a byte are packed in the typed field, too
        return (count * bits + 7) // 8
    _, entries = _TYPED_FIELD.get(tensor.data_type, ("int32_data", 1))
    return count * entries
