"""What a model takes and gives, in Open Inference Protocol terms."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto

from roost_runtimes.check_tensors import elements
from roost_runtimes.check_verdict import Rejected, field_of, shown

DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}
_MOST_TENSORS = 1_000
"""Of inputs, and of outputs."""
_LONGEST_NAME = 512


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...] | None
    """-1 = any length; None = the file does not even say how many dimensions (outputs only)."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape or ())}

    def with_shape(self, dims: Sequence[Any]) -> "Tensor":
        """The same with ONNX Runtime's spelling of a shape: numbers, and names or None for what is not known."""
        return replace(self, shape=tuple(d if isinstance(d, int) and d >= 0 else -1 for d in dims))


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_json(self) -> dict[str, Any]:
        return {"inputs": [t.to_json() for t in self.inputs], "outputs": [t.to_json() for t in self.outputs]}


def read_signature(graph: onnx.GraphProto) -> Signature:
    """Raises Rejected (unsupported_type, invalid_graph) naming the input or output at fault."""
    for values, kind in ((graph.input, "inputs"), (graph.output, "outputs")):
        if len(values) > _MOST_TENSORS + len(graph.initializer):
            raise Rejected("invalid_graph", f"the model has more than {_MOST_TENSORS:,} {kind}")
    constants = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
    _unique(constants, "initializer")
    given = frozenset(constants)  # before IR 4, initializers had to be listed as inputs, too
    inputs = tuple(_tensor(value, "input") for value in graph.input if value.name not in given)
    outputs = tuple(_tensor(value, "output") for value in graph.output)
    if not outputs:
        raise Rejected("invalid_graph", "the model has no output")
    _unique([value.name for value in graph.input], "input")
    _unique([t.name for t in outputs], "output")
    return Signature(inputs, outputs)


def _tensor(value: onnx.ValueInfoProto, kind: str) -> Tensor:
    owner = f"{kind} {shown(value.name)}"
    if len(value.name) > _LONGEST_NAME:
        raise Rejected("invalid_graph", f"{owner} has a name of over {_LONGEST_NAME} characters", field=kind)
    what = value.type.WhichOneof("value")
    if what != "tensor_type":
        raise Rejected("unsupported_type", _not_a_tensor(owner, what, kind), field=field_of(value.name))
    tensor = value.type.tensor_type
    datatype = DATATYPES.get(tensor.elem_type)
    if datatype is None:
        known = TensorProto.DataType.values()
        name = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in known else "unknown"
        raise Rejected(
            "unsupported_type",
            f"{owner} is of type {name}; inputs and outputs can be {', '.join(DATATYPES.values())}",
            field=field_of(value.name),
        )
    return Tensor(value.name, datatype, _shape(value, owner, kind))


def _shape(value: onnx.ValueInfoProto, owner: str, kind: str) -> tuple[int, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        if kind == "output":
            return None
        raise Rejected(
            "invalid_graph", f"{owner} has no shape; dimensions may be dynamic, but their number must be known",
            field=field_of(value.name),
        )  # fmt: skip
    dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else -1 for d in value.type.tensor_type.shape.dim]
    said = [d.dim_value for d in value.type.tensor_type.shape.dim if d.WhichOneof("value") == "dim_value"]
    if -1 in said:
        raise Rejected("invalid_graph", f"{owner} has a negative dimension", field=field_of(value.name))
    elements([1 if d == -1 else d for d in dims], owner, value.name)
    return tuple(dims)


def _not_a_tensor(owner: str, what: str | None, kind: str) -> str:
    if what is None:
        return f"{owner} has no type"
    said = f"{owner} is a {what.removesuffix('_type').replace('_', ' ')}, not a tensor"
    if kind == "output" and what == "sequence_type":
        return f"{said}; a scikit-learn classifier must be exported with zipmap=False"
    return said


def _unique(names: Sequence[str], kind: str) -> None:
    if "" in names:
        raise Rejected("invalid_graph", f"an {kind} has no name", field=kind)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Rejected("invalid_graph", f"two of the model's {kind}s are named {shown(name)}", field=field_of(name))
        seen.add(name)
