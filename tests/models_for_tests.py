"""Tiny ONNX models for tests: each function writes one file and returns its path."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Open Inference Protocol name to ONNX element type."""

Shape = Sequence[int | str] | None


def _value(name: str, kind: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _save(path: Path, nodes, inputs, outputs, constants=()) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _constant(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def add_one(path: Path, columns: int = 4) -> Path:
    """x float[N, columns] -> y float[N, columns] = x + 1."""
    return _save(
        path,
        [helper.make_node("Add", ["x", "one"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N", columns])],
        [_value("y", TensorProto.FLOAT, ["N", columns])],
        [_constant("one", np.ones(1, np.float32))],
    )


def iris_like(path: Path) -> Path:
    """input float[N, 4] -> label int64[N], probabilities float[N, 3]: a linear classifier."""
    weights = np.array([[0.5, 0.5, -1], [0.9, -0.3, -0.7], [-1, 0.4, 1.1], [-0.4, -0.8, 1.6]], np.float32)
    return _save(
        path,
        [
            helper.make_node("MatMul", ["input", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [_value("input", TensorProto.FLOAT, ["N", 4])],
        [_value("label", TensorProto.INT64, ["N"]), _value("probabilities", TensorProto.FLOAT, ["N", 3])],
        [_constant("weights", weights)],
    )


def all_types(path: Path) -> Path:
    """One identity per datatype: in_FP32 [N] -> out_FP32 [N], and so on for all names in DATATYPES."""
    return _save(
        path,
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in DATATYPES],
        [_value(f"in_{name}", kind, ["N"]) for name, kind in DATATYPES.items()],
        [_value(f"out_{name}", kind, ["N"]) for name, kind in DATATYPES.items()],
    )


def identity(path: Path, datatype: str, shape: Shape = ("N",)) -> Path:
    """x -> y of one datatype and shape."""
    kind = DATATYPES[datatype]
    return _save(
        path, [helper.make_node("Identity", ["x"], ["y"])], [_value("x", kind, shape)], [_value("y", kind, shape)]
    )


def two_inputs(path: Path) -> Path:
    """a float[N, 2], b int64[N, 2] -> sum float[N, 2], difference float[N, 2]."""
    return _save(
        path,
        [
            helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "c"], ["sum"]),
            helper.make_node("Sub", ["a", "c"], ["difference"]),
        ],
        [_value("a", TensorProto.FLOAT, ["N", 2]), _value("b", TensorProto.INT64, ["N", 2])],
        [_value("sum", TensorProto.FLOAT, ["N", 2]), _value("difference", TensorProto.FLOAT, ["N", 2])],
    )


def strings(path: Path) -> Path:
    """text string[N] -> same string[N]."""
    return _save(
        path,
        [helper.make_node("Identity", ["text"], ["same"])],
        [_value("text", TensorProto.STRING, ["N"])],
        [_value("same", TensorProto.STRING, ["N"])],
    )


def scalar_input(path: Path) -> Path:
    """x float[] -> y float[] = x + 1."""
    return _save(
        path,
        [helper.make_node("Add", ["x", "one"], ["y"])],
        [_value("x", TensorProto.FLOAT, [])],
        [_value("y", TensorProto.FLOAT, [])],
        [_constant("one", np.array(1, np.float32))],
    )


def adds(path: Path, number: float) -> Path:
    """x float[N, 4] -> y = x + number."""
    made = onnx.load(add_one(path))
    made.graph.initializer[0].raw_data = np.float32([number]).tobytes()
    onnx.save(made, path)
    return path


def fails_on_small(path: Path) -> Path:
    """x float[N, 4] -> y float[N, 4], as `add_one`; the run fails for an x whose first number is below 0."""
    return _save(
        path,
        [
            helper.make_node("Slice", ["x", "zero2", "one2"], ["corner"]),
            helper.make_node("Cast", ["corner"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["whole", "flat"], ["index"]),
            helper.make_node("Gather", ["table", "index"], ["picked"]),
            helper.make_node("Add", ["x", "picked"], ["y"]),
        ],
        [_value("x", TensorProto.FLOAT, ["N", 4])],
        [_value("y", TensorProto.FLOAT, ["N", 4])],
        [
            _constant("zero2", np.array([0, 0], np.int64)),
            _constant("one2", np.array([1, 1], np.int64)),
            _constant("flat", np.array([1], np.int64)),
            _constant("table", np.array([1], np.float32)),
        ],
    )


def slow_loop(path: Path) -> Path:
    """trips int64[1] -> y float[64, 64], after so many matrix products: about 150,000 a second on one core."""
    size = 64
    body = helper.make_graph(
        [helper.make_node("MatMul", ["a", "weights"], ["b"]), helper.make_node("Identity", ["go"], ["still"])],
        "body",
        [
            _value("i", TensorProto.INT64, []),
            _value("go", TensorProto.BOOL, []),
            _value("a", TensorProto.FLOAT, [size, size]),
        ],
        [_value("still", TensorProto.BOOL, []), _value("b", TensorProto.FLOAT, [size, size])],
    )
    return _save(
        path,
        [
            helper.make_node("Squeeze", ["trips"], ["count"]),
            helper.make_node("Loop", ["count", "", "weights"], ["y"], body=body),
        ],
        [_value("trips", TensorProto.INT64, [1])],
        [_value("y", TensorProto.FLOAT, [size, size])],
        [_constant("weights", np.eye(size, dtype=np.float32))],
    )


def slow_add_one(path: Path) -> Path:
    """x float[N, 4] -> y = x + 1, after as many matrix products as the first number of x says, 150,000 a second or so."""
    slow = onnx.load(slow_loop(path)).graph
    loop = next(node for node in slow.node if node.op_type == "Loop")
    del loop.output[:]
    loop.output.append("product")
    return _save(
        path,
        [
            helper.make_node("Slice", ["x", "zero2", "one2"], ["corner"]),
            helper.make_node("Squeeze", ["corner"], ["first"]),
            helper.make_node("Cast", ["first"], ["count"], to=TensorProto.INT64),
            loop,
            helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
            helper.make_node("Sum", ["x", "one", "zero"], ["y"]),
        ],
        [_value("x", TensorProto.FLOAT, ["N", 4])],
        [_value("y", TensorProto.FLOAT, ["N", 4])],
        [
            *slow.initializer,
            _constant("zero2", np.array([0, 0], np.int64)),
            _constant("one2", np.array([1, 1], np.int64)),
            _constant("nothing", np.array(0, np.float32)),
            _constant("one", np.array(1, np.float32)),
        ],
    )


def fails_on_negative(path: Path) -> Path:
    """index int64[N] -> y float[N]: picks 10, 20 or 30 by index 0..2; the run fails for an index below -3 or above 2."""
    return _save(
        path,
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [_value("index", TensorProto.INT64, ["N"])],
        [_value("y", TensorProto.FLOAT, ["N"])],
        [_constant("table", np.array([10, 20, 30], np.float32))],
    )


def fails_on_mismatch(path: Path) -> Path:
    """x float[N], shape int64[M] -> y: the run fails when x does not have as many elements as `shape` says."""
    return _save(
        path,
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N"]), _value("shape", TensorProto.INT64, ["M"])],
        [_value("y", TensorProto.FLOAT, ["P"])],
    )


def allocates(path: Path) -> Path:
    """size int64[1] -> y float[size] of zeros: asks for as much memory as its input says."""
    return _save(
        path,
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        [_value("size", TensorProto.INT64, [1])],
        [_value("y", TensorProto.FLOAT, ["N"])],
    )


def infinite(path: Path) -> Path:
    """x float[N] -> y float[N] = 1 / x."""
    return _save(
        path,
        [helper.make_node("Reciprocal", ["x"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N"])],
        [_value("y", TensorProto.FLOAT, ["N"])],
    )


def big_weights(path: Path, megabytes: int = 45) -> Path:
    """x float[N, 512] -> y float[N, 512] through layers whose weights fill so many megabytes."""
    width = 512
    layers = max(1, megabytes * 1024 * 1024 // (width * width * 4))
    random = np.random.default_rng(7)
    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    return _save(
        path,
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)],
        [_value("x", TensorProto.FLOAT, ["N", width])],
        [_value("y", TensorProto.FLOAT, ["N", width])],
        [_constant(f"w{i}", random.standard_normal((width, width), np.float32) / width) for i in range(layers)],
    )
