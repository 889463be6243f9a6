"""Models that must be refused, built by hand: each does one thing that a good model does not."""

import struct

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64


def value(name: str, shape, kind: int = FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=(), *, opset=17, ir=8, functions=(), more_opsets=(), sparse=()) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights), sparse_initializer=list(sparse))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in more_opsets)]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = ir
    return made


def identity(**changes) -> ModelProto:
    """A good one."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"], name="copy")], [value("x", [1])], [value("y", [1])], **changes
    )


def external(name: str, location: str = "../../etc/passwd", **keys: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def with_initializer(tensor: TensorProto, **changes) -> ModelProto:
    add = helper.make_node("Add", ["x", tensor.name], ["y"], name="add")
    return model([add], [value("x", [1])], [value("y", [1])], [tensor], **changes)


def with_constant(tensor: TensorProto) -> ModelProto:
    nodes = [helper.make_node("Constant", [], ["c"], name="const"), helper.make_node("Add", ["x", "c"], ["y"])]
    nodes[0].attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=tensor))
    return model(nodes, [value("x", [1])], [value("y", [1])])


def with_hidden_tensor(tensor: TensorProto) -> ModelProto:
    """In a list of tensors, in an attribute that says it is a float."""
    made = identity()
    made.graph.node[0].attribute.append(AttributeProto(name="odd", type=AttributeProto.FLOAT, tensors=[tensor]))
    return made


def with_sparse(tensor: TensorProto, *, part: str = "values") -> ModelProto:
    values = helper.make_tensor("w", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", INT64, [1], [0])
    sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=[4])
    getattr(sparse, part).CopyFrom(tensor)
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [4])], [value("y", [4])], sparse=[sparse])


def with_subgraph(tensor: TensorProto) -> ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Identity", [tensor.name], ["t"])], "then", [], [value("t", [1])], [tensor]
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "else", [], [value("e", [1])])
    node = helper.make_node("If", ["b"], ["y"], name="choose", then_branch=branch, else_branch=other)
    return model([node], [value("b", [], TensorProto.BOOL), value("x", [1])], [value("y", [1])])


def function(name: str, nodes, domain: str = "my.functions", imports=(("", 17), ("my.functions", 1))):
    opsets = [helper.make_opsetid(d, v) for d, v in imports]
    return helper.make_function(domain, name, ["a"], ["b"], nodes, opsets)


def calling(functions, first: str) -> ModelProto:
    node = helper.make_node(first, ["x"], ["y"], name="call", domain="my.functions")
    return model([node], [value("x", [1])], [value("y", [1])], functions=functions, more_opsets=[("my.functions", 1)])


def with_function_constant(tensor: TensorProto) -> ModelProto:
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=tensor))
    return calling([function("F", [constant, helper.make_node("Add", ["a", "c"], ["b"])])], "F")


def call(name: str, source: str, target: str) -> NodeProto:
    return helper.make_node(name, [source], [target], domain="my.functions")


def recursive_functions() -> ModelProto:
    return calling([function("A", [call("B", "a", "b")]), function("B", [call("A", "a", "b")])], "A")


def doubling_functions(levels: int = 40) -> ModelProto:
    """F0 calls F1 twice, which calls F2 twice …: 2^levels nodes in a few lines."""
    made = [function(f"F{n}", [call(f"F{n + 1}", "a", "m"), call(f"F{n + 1}", "m", "b")]) for n in range(levels)]
    return calling([*made, function(f"F{levels}", [helper.make_node("Relu", ["a"], ["b"])])], "F0")


def function_chain(length: int) -> ModelProto:
    made = [function(f"F{n}", [call(f"F{n + 1}", "a", "b")]) for n in range(length)]
    return calling([*made, function(f"F{length}", [helper.make_node("Relu", ["a"], ["b"])])], "F0")


def nested(depth: int) -> bytes:
    """`depth` If nodes inside each other, written as bytes: protobuf's own Python refuses to build it."""

    def field(number: int, payload: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(payload)) + payload

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + _varint(20 << 3) + _varint(AttributeProto.GRAPH)
        graph = field(1, field(1, b"b") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    opset = field(8, _varint(2 << 3) + _varint(17))
    return _varint(1 << 3) + _varint(8) + field(7, graph) + opset


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def many_nodes(count: int) -> bytes:
    made = identity()
    node = helper.make_node("Relu", ["x"], ["r"])
    graph = GraphProto(node=[node] * count)
    made.graph.MergeFrom(graph)
    return made.SerializeToString()


def memory_bomb(elements: int = 25_000_000_000) -> ModelProto:
    """Makes 100 GB out of eight bytes."""
    shape = helper.make_tensor("s", INT64, [1], [elements])
    fill = helper.make_node("ConstantOfShape", ["s"], ["big"])
    return model([fill, helper.make_node("Add", ["big", "x"], ["y"])], [value("x", [1])], [value("y", [None])], [shape])


def expand_bomb(elements: int = 25_000_000_000) -> ModelProto:
    shape = helper.make_tensor("s", INT64, [1], [elements])
    return model([helper.make_node("Expand", ["x", "s"], ["y"])], [value("x", [1])], [value("y", [None])], [shape])


def endless_loop() -> ModelProto:
    """2^62 trips."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["more"]),
            helper.make_node("Add", ["v", "v"], ["w"]),
        ],
        "body",
        [value("n", [], INT64), value("go", [], TensorProto.BOOL), value("v", [1])],
        [value("more", [], TensorProto.BOOL), value("w", [1])],
    )
    weights = [helper.make_tensor("trips", INT64, [], [2**62]), helper.make_tensor("yes", TensorProto.BOOL, [], [1])]
    loop = helper.make_node("Loop", ["trips", "yes", "x"], ["y"], name="for-ever", body=body)
    return model([loop], [value("x", [1])], [value("y", [1])], weights)


def float_tensor(name: str, dims, data: bytes = struct.pack("<f", 1.0)) -> TensorProto:
    return TensorProto(name=name, data_type=FLOAT, dims=dims, raw_data=data)
