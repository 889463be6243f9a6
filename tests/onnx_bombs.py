"""ONNX models that are harmless on zeros and not on what they are asked for; each function writes one file.

All take `n` INT64[1]: how much of it. None is refused by the checker, and none can be without running it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_N = helper.make_tensor_value_info("n", TensorProto.INT64, [1])


def _save(path: Path, nodes, outputs, constants=()) -> Path:
    graph = helper.make_graph(nodes, "bomb", [_N], outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _summed(path: Path, nodes, constants=()) -> Path:
    """`y` FLOAT[1]: the sum of `n` ones that the nodes make as `ones`."""
    nodes = [*nodes, helper.make_node("ReduceSum", ["ones"], ["y"], keepdims=1)]
    return _save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], constants)


def _one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32), "one")


def constant_of_shape(path: Path) -> Path:
    return _summed(path, [helper.make_node("ConstantOfShape", ["n"], ["ones"], value=_one())])


def expand(path: Path) -> Path:
    return _summed(path, [helper.make_node("Expand", ["one", "n"], ["ones"])], [_one()])


def tile(path: Path) -> Path:
    return _summed(path, [helper.make_node("Tile", ["one", "n"], ["ones"])], [_one()])


def range_(path: Path) -> Path:
    """As many ones as there are numbers below n: each is equal to itself."""
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("zero", 0), ("step", 1))]
    nodes = [
        helper.make_node("Squeeze", ["n"], ["end"]),
        helper.make_node("Range", ["zero", "end", "step"], ["numbers"]),
        helper.make_node("Equal", ["numbers", "numbers"], ["same"]),
        helper.make_node("Cast", ["same"], ["ones"], to=TensorProto.FLOAT),
    ]
    return _summed(path, nodes, constants)


MEMORY: dict[str, Callable[[Path], Path]] = {
    "ConstantOfShape": constant_of_shape, "Expand": expand, "Tile": tile, "Range": range_,
}  # fmt: skip


def long_answer(path: Path) -> Path:
    """`y` FLOAT[n]: n ones."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["k"])
    return _save(path, [helper.make_node("ConstantOfShape", ["n"], ["y"], value=_one())], [output])


def endless_loop(path: Path) -> Path:
    """`y` INT64[]: n, found by counting up to it: n trips through a loop."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["condition_out"]),
            helper.make_node("Add", ["count", "step"], ["count_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count_out", TensorProto.INT64, []),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(True), "go_on"),
        numpy_helper.from_array(np.array(0, np.int64), "start"),
        numpy_helper.from_array(np.array(1, np.int64), "step"),
    ]
    nodes = [
        helper.make_node("Squeeze", ["n"], ["trips"]),
        helper.make_node("Loop", ["trips", "go_on", "start"], ["y"], body=body),
    ]
    return _save(path, nodes, [helper.make_tensor_value_info("y", TensorProto.INT64, [])], constants)
