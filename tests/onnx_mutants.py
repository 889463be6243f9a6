"""Damaged models without end: valid ONNX files of many kinds, changed at random but the same for the same seed.

Half of the changes are made to the bytes, as a bad disk or a clumsy attacker would; the others to single fields of the
parsed file, so that most of it stays sound and the change gets deeper into whoever reads it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

import hostile_models as hostile
from hostile_models import model, value

_NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 13, 17, 64, 255, 999, 2**20, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
_NAMES = ("", "x", "y", "w", "Add", "If", "Loop", "Constant", "ai.onnx.ml", "com.microsoft", "com.evil", "é", "a" * 600)
_WORDS = (*_NAMES, "EPContext", "Scan", "Gather", "Reshape", "MatMul", "SequenceAt", "ConstantOfShape", "\x1b[2J", "\n")
_BYTES = (b"", b"\0", b"\xff" * 7, b"\x80" * 11, b"*/_ORT_MEM_ADDR_/*")
_REAL = (0.0, -1.0, 1e308, float("inf"), float("nan"))
_INTEGERS = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
    | {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_ENUM}
)


@dataclass(frozen=True)
class Mutant:
    """One damaged file, and how it was made."""

    number: int
    story: str
    data: bytes


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """`count` files; the n-th is the same whenever the seed is, whatever the count."""
    sources = {name: made.SerializeToString() for name, made in models().items()}
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        name = chance.choice(sorted(sources))
        change = _change_bytes if chance.random() < 0.4 else _change_fields
        story, data = change(chance, sources[name])
        yield Mutant(number, f"{name}: {story}", data)


def models() -> dict[str, ModelProto]:
    """The valid files that everything is made from."""
    return {
        "mlp": _mlp(),
        "conv": _conv(),
        "trees": _trees(),
        "strings": _strings(),
        "if": hostile.with_subgraph(hostile.float_tensor("w", [1])),
        "loop": _loop(),
        "functions": hostile.function_chain(3),
        "sparse": hostile.with_sparse(helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])),
        "quantised": _quantised(),
        "shapes": _shapes(),
    }


# Bytes


def _change_bytes(chance: random.Random, source: bytes) -> tuple[str, bytes]:
    data = bytearray(source)
    told = []
    for _ in range(chance.randint(1, 4)):
        change = chance.choice((_flip, _cut, _insert, _stretch, _lengthen, _repeat))
        told.append(change.__name__[1:])
        change(chance, data)
        if not data:
            break
    return " ".join(told), bytes(data)


def _flip(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def _insert(chance: random.Random, data: bytearray) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice((*_BYTES, chance.randbytes(chance.randint(1, 20))))


def _stretch(chance: random.Random, data: bytearray) -> None:
    """A number that goes on and on."""
    at = chance.randrange(len(data))
    data[at : at + 1] = b"\xff" * chance.randint(1, 12)


def _lengthen(chance: random.Random, data: bytearray) -> None:
    """A length that is off by a little."""
    at = chance.randrange(len(data))
    data[at] = (data[at] + chance.choice((-3, -2, -1, 1, 2, 3))) % 256


def _repeat(chance: random.Random, data: bytearray) -> None:
    first = chance.randrange(len(data))
    piece = data[first : first + chance.randint(1, 60)]
    at = chance.randrange(len(data) + 1)
    data[at:at] = piece * chance.choice((1, 1, 2, 50))


# Fields


def _change_fields(chance: random.Random, source: bytes) -> tuple[str, bytes]:
    made = ModelProto.FromString(source)
    told = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice((_any_field, _any_field, _any_field, *_STRUCTURAL))
        try:
            told.append(change(chance, made))
        except (ValueError, IndexError, DecodeError, TypeError) as error:  # a value that the field cannot hold
            told.append(f"not {type(error).__name__}")
    return ", ".join(told), made.SerializeToString()


def _any_field(chance: random.Random, made: ModelProto) -> str:
    """Change one field of one message, wherever it is in the file."""
    message = chance.choice(list(_inside(made)))
    field = chance.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        _change_list(chance, made, message, field)
    elif field.message_type is not None:
        alike = [m for m in _inside(made) if m.DESCRIPTOR is field.message_type]
        getattr(message, field.name).CopyFrom(_copy(chance.choice(alike)))
    elif chance.random() < 0.3:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(chance, field))
    return f"{message.DESCRIPTOR.name}.{field.name}"


def _change_list(chance: random.Random, made: ModelProto, message: Message, field: FieldDescriptor) -> None:
    items = getattr(message, field.name)
    what = chance.choice(("drop", "double", "turn", "add", "change"))
    if what == "drop":
        del items[chance.randrange(len(items))]
    elif what == "double":
        items.append(_copy(items[chance.randrange(len(items))]))
    elif what == "turn":
        kept = [_copy(item) for item in items]
        chance.shuffle(kept)
        del items[:]
        items.extend(kept)
    elif field.message_type is not None:
        alike = [m for m in _inside(made) if m.DESCRIPTOR is field.message_type]
        items.append(_copy(chance.choice(alike)))
    elif what == "add":
        items.append(_scalar(chance, field))
    else:
        items[chance.randrange(len(items))] = _scalar(chance, field)


def _scalar(chance: random.Random, field: FieldDescriptor) -> Any:
    if field.cpp_type in _INTEGERS:
        return chance.choice((*_NUMBERS, chance.randrange(30)))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice(_BYTES)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return chance.choice(_WORDS)
    return chance.choice(_REAL)


def _copy(item: Any) -> Any:
    """Detached, for a message may not be copied into itself."""
    return type(item).FromString(item.SerializeToString()) if isinstance(item, Message) else item


def _inside(message: Message) -> Iterator[Message]:
    """It, and every message below it."""
    yield message
    for field, held in message.ListFields():
        if field.message_type is not None:
            for inner in held if field.is_repeated else (held,):
                yield from _inside(inner)


def _external(chance: random.Random, made: ModelProto) -> str:
    tensors = [m for m in _inside(made) if isinstance(m, TensorProto)]
    keys = {"location": chance.choice(("../../etc/passwd", "/dev/zero", "", "*/_ORT_MEM_ADDR_/*")), "offset": "-1"}
    tensor = chance.choice(tensors)
    for key, text in (keys | {"length": str(2**62), "__class__": "x"}).items():
        tensor.external_data.add(key=key, value=text)
    if chance.random() < 0.7:
        tensor.data_location = TensorProto.EXTERNAL
    return "external data"


def _ring(chance: random.Random, made: ModelProto) -> str:
    node = chance.choice(made.graph.node)
    last = chance.choice(made.graph.node)
    node.input[chance.randrange(len(node.input))] = last.output[0]
    return "a cycle"


def _same_names(chance: random.Random, made: ModelProto) -> str:
    node = chance.choice(made.graph.node)
    node.output[0] = chance.choice([v.name for v in (*made.graph.input, *made.graph.initializer)])
    return "a name twice"


def _huge_shape(chance: random.Random, made: ModelProto) -> str:
    tensor = chance.choice([m for m in _inside(made) if isinstance(m, TensorProto)])
    tensor.dims.extend(chance.choices((2**62, 2**31, 65536, 0, -1), k=chance.randint(1, 4)))
    if chance.random() < 0.5:
        tensor.ClearField("raw_data")
    return "a huge shape"


def _swap_attributes(chance: random.Random, made: ModelProto) -> str:
    attributes = [m for m in _inside(made) if isinstance(m, AttributeProto)]
    a, b = chance.choice(attributes), chance.choice(attributes)
    name = a.name
    a.CopyFrom(_copy(b))
    a.name = name
    return "attributes swapped"


def _nest(chance: random.Random, made: ModelProto) -> str:
    """The graph inside one of its own nodes, some times over."""
    for _ in range(chance.randint(1, 5)):
        graph = type(made.graph)()
        graph.CopyFrom(made.graph)
        chance.choice(made.graph.node).attribute.append(helper.make_attribute("body", graph))
    return "graphs nested"


def _versions(chance: random.Random, made: ModelProto) -> str:
    if chance.random() < 0.5:
        made.ir_version = chance.choice((0, 1, 2, 3, 4, 7, 10, 13, 14, 999))
    else:
        chance.choice(made.opset_import).version = chance.choice((0, 1, 6, 7, 8, 11, 13, 21, 26, 27, 999))
    return "versions"


def _operators(chance: random.Random, made: ModelProto) -> str:
    node = chance.choice(made.graph.node)
    node.op_type = chance.choice(
        [n.op_type for m in models().values() for n in m.graph.node] + ["Where", "Tile", "Pad"]
    )
    return f"operator {node.op_type}"


_STRUCTURAL: Sequence[Callable[[random.Random, ModelProto], str]] = (
    _external, _ring, _same_names, _huge_shape, _swap_attributes, _nest, _versions, _operators,
)  # fmt: skip


# Valid files


def _constant(name: str, numbers: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(numbers), name)


def _mlp() -> ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", alpha=1.0, transB=0),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]
    weights = [
        _constant("w1", np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)),
        _constant("b1", np.zeros(8, np.float32)),
        helper.make_tensor("w2", TensorProto.FLOAT, [8, 3], np.linspace(0, 1, 24).tolist()),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], weights)


def _conv() -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], group=1),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[1, 1], ceil_mode=1),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["n"], epsilon=1e-3),
        helper.make_node("GlobalAveragePool", ["n"], ["y"]),
    ]
    weights = [
        _constant("w", np.ones((4, 3, 3, 3), np.float32)),
        *(_constant(k, np.ones(4, np.float32)) for k in "sbmv"),
    ]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 4, 1, 1])], weights)


def _trees() -> ModelProto:
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, post_transform="NONE",
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
    )  # fmt: skip
    return model([trees], [value("x", ["N", 2])], [value("y", ["N", 1])], more_opsets=[("ai.onnx.ml", 3)])


def _strings() -> ModelProto:
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["n"], case_change_action="LOWER", stopwords=["the"], locale="C"),
        helper.make_node(
            "LabelEncoder", ["n"], ["y"], domain="ai.onnx.ml", keys_strings=["a", "b"], values_int64s=[1, 2]
        ),
    ]
    kinds = value("x", ["N"], TensorProto.STRING), value("y", ["N"], TensorProto.INT64)
    return model(nodes, [kinds[0]], [kinds[1]], more_opsets=[("ai.onnx.ml", 3)])


def _loop() -> ModelProto:
    made = hostile.endless_loop()
    made.graph.initializer[0].CopyFrom(helper.make_tensor("trips", TensorProto.INT64, [], [3]))
    return made


def _quantised() -> ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    weights = [
        _constant("scale", np.float32(0.1)),
        _constant("zero", np.uint8(128)),
        _constant("w", np.arange(12, dtype=np.int8).reshape(4, 3)),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], weights)


def _shapes() -> ModelProto:
    """What computes lengths, and so memory."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["z"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        helper.make_node("Tile", ["z", "twice"], ["t"]),
        helper.make_node("Pad", ["t", "edge"], ["p"], mode="constant"),
        helper.make_node("Slice", ["p", "from", "to"], ["l"]),
        helper.make_node("Gather", ["l", "from"], ["y"], axis=0),
    ]
    weights = [
        _constant("twice", np.array([2, 2], np.int64)),
        _constant("edge", np.array([0, 1, 0, 1], np.int64)),
        _constant("from", np.array([0], np.int64)),
        _constant("to", np.array([2], np.int64)),
    ]
    return model(nodes, [value("x", ["N", 3])], [value("y", None)], weights)
