"""The models of the benchmark and the bodies sent to them: made here, from fixed seeds, with onnx.helper.

tiny   logistic regression on 4 features (0.4 kB)     image  channel means of 1x3x224x224 (602 kB of tensor, hardly any work)
cnn    residual network on 3x32x32 (45 MB)            mlp    three dense layers (96 MiB)
slow   a chain of products on 4 numbers (2 MB), some 25 ms a run
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from in_process import open_session
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
JSON, BINARY = "json", "binary"

_SLOW_PRODUCTS = 76
"""Of 256x256 matrices: some 25 ms on a core of the machine that docs/benchmarks.md has figures of."""


@dataclass(frozen=True)
class Body:
    """What is posted: in memory for our own clients, in a file for wrk."""

    content: bytes
    file: Path
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Model:
    """An ONNX file with one input `x`, a sample of it, and what onnxruntime answers to the sample."""

    name: str
    file: Path
    sample: np.ndarray
    expected: dict[str, np.ndarray]
    bodies: dict[str, Body]

    def is_right(self, answer: bytes) -> bool:
        """Whether an Open Inference Protocol answer in JSON holds the expected outputs."""
        got = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
        return got.keys() == self.expected.keys() and all(
            np.allclose(np.ravel(got[name]), value.ravel(), rtol=1e-3, atol=1e-4)
            for name, value in self.expected.items()
        )


def build(folder: Path) -> dict[str, Model]:
    """Write models and bodies into `folder`; a second call writes the same again."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20)
    samples = {
        "tiny": np.array([[5.1, 3.5, 1.4, 0.2]], np.float32),
        "cnn": random.random((1, 3, 32, 32), np.float32),
        "image": random.random((1, 3, 224, 224), np.float32),
        "mlp": random.random((1, 1024), np.float32),
        "slow": np.array([[5.1, 3.5, 1.4, 0.2]], np.float32),
    }
    makers = {"tiny": _tiny, "cnn": _cnn, "image": _image, "mlp": _mlp, "slow": chain}
    return {name: _finish(folder, name, makers[name](), sample) for name, sample in samples.items()}


def _finish(folder: Path, name: str, model: onnx.ModelProto, sample: np.ndarray) -> Model:
    onnx.checker.check_model(model)
    file = folder / f"{name}.onnx"
    onnx.save(model, file)
    session = open_session(file)
    np.save(folder / f"{name}.npy", sample)
    outputs = [output.name for output in session.get_outputs()]
    expected = dict(zip(outputs, session.run(outputs, {"x": sample}), strict=True))
    tensor: dict[str, Any] = {"name": "x", "shape": list(sample.shape), "datatype": "FP32"}
    data = [float(f"{value:.6g}") for value in sample.ravel()]
    head = _compact({"inputs": [{**tensor, "parameters": {"binary_data_size": sample.nbytes}}]})
    bodies = {
        JSON: (_compact({"inputs": [{**tensor, "data": data}]}), (("Content-Type", "application/json"),)),
        BINARY: (
            head + sample.tobytes(),
            (("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(len(head)))),
        ),
    }
    written = {}
    for kind, (content, headers) in bodies.items():
        target = folder / f"{name}.{kind}"
        target.write_bytes(content)
        written[kind] = Body(content, target, headers)
    return Model(name, file, sample, expected, written)


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _model(
    name: str, nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[int], **outputs: Any
) -> onnx.ModelProto:
    """`outputs`: name → (element type, shape without the batch)."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(output, kind, ["N", *dims]) for output, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _tiny() -> onnx.ModelProto:
    random = np.random.default_rng(1)
    weights = {"w": random.standard_normal((4, 3), np.float32), "b": random.standard_normal(3, np.float32)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    return _model("tiny", nodes, weights, (4,), label=(TensorProto.INT64, ()), probabilities=(TensorProto.FLOAT, (3,)))


def _image() -> onnx.ModelProto:
    node = helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0)
    return _model("image", [node], {}, (3, 224, 224), means=(TensorProto.FLOAT, (3,)))


def _mlp() -> onnx.ModelProto:
    random = np.random.default_rng(2)
    weights, nodes, source = {}, [], "x"
    for index, (rows, columns) in enumerate(((1024, 4096), (4096, 4096), (4096, 1024))):
        weights[f"w{index}"] = random.standard_normal((rows, columns), np.float32) / np.float32(rows**0.5)
        nodes += [
            helper.make_node("MatMul", [source, f"w{index}"], [f"sum{index}"]),
            helper.make_node("Tanh", [f"sum{index}"], [f"layer{index}"]),
        ]
        source = f"layer{index}"
    nodes.append(helper.make_node("Identity", [source], ["y"]))
    return _model("mlp", nodes, weights, (1024,), y=(TensorProto.FLOAT, (1024,)))


def chain(products: int = _SLOW_PRODUCTS, *, seed: int = 4) -> onnx.ModelProto:
    """Works in a core's own cache: two runs beside each other hardly disturb one another."""
    random, side = np.random.default_rng(seed), 256
    weights = {
        "spread": random.standard_normal((4, side * side), np.float32),
        "square": np.array([-1, side, side], np.int64),
        "gather": random.standard_normal((side, 3), np.float32),
    }
    weights |= {f"w{index}": random.standard_normal((side, side), np.float32) / np.float32(16) for index in range(4)}
    nodes = [
        helper.make_node("MatMul", ["x", "spread"], ["flat"]),
        helper.make_node("Reshape", ["flat", "square"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{index}", f"w{index % 4}"], [f"product{index + 1}"])
            for index in range(products)
        ),
        helper.make_node("ReduceMean", [f"product{products}"], ["means"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["means", "gather"], ["y"]),
    ]
    return _model("slow", nodes, weights, (4,), y=(TensorProto.FLOAT, (3,)))


class _Layers:
    """Collects convolutions and the ReLUs and sums between them."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(seed)

    def add(self, kind: str, *sources: str, **attributes: Any) -> str:
        output = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(sources), [output], **attributes))
        return output

    def weight(self, *shape: int) -> str:
        key = f"weight{len(self.weights)}"
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        self.weights[key] = self._random.standard_normal(shape, np.float32) * scale
        return key

    def conv(self, source: str, channels: tuple[int, int], *, size: int, stride: int) -> str:
        """A convolution from channels[0] to channels[1] that keeps height and width but for the stride."""
        kernel = self.weight(channels[1], channels[0], size, size)
        return self.add("Conv", source, kernel, strides=[stride, stride], pads=[size // 2] * 4)

    def block(self, source: str, channels: tuple[int, int], *, stride: int) -> str:
        """Two convolutions and the way around them."""
        inner = self.add("Relu", self.conv(source, channels, size=3, stride=stride))
        outer = self.conv(inner, (channels[1], channels[1]), size=3, stride=1)
        around = source if stride == 1 else self.conv(source, channels, size=1, stride=stride)
        return self.add("Relu", self.add("Add", outer, around))


def _cnn() -> onnx.ModelProto:
    layers = _Layers(seed=3)
    here = layers.add("Relu", layers.conv("x", (3, 64), size=3, stride=1))
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
        here = layers.block(here, (before, after), stride=after // before)
        here = layers.block(here, (after, after), stride=1)
    flat = layers.add("Flatten", layers.add("GlobalAveragePool", here))
    scores = layers.add("Gemm", flat, layers.weight(10, 512), transB=1)
    layers.nodes.append(helper.make_node("Identity", [scores], ["scores"]))
    return _model("cnn", layers.nodes, layers.weights, (3, 32, 32), scores=(TensorProto.FLOAT, (10,)))
