"""A walk over every node, subgraph, function and constant of a model, before ONNX Runtime sees any of it.

Operators must be of a served domain and exist in the opset that the model names; constants must be inside the file;
nesting and node counts are bounded with functions counted as often as they are called, since a few lines of functions
that call each other can stand for more nodes than any machine holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import defs

from roost_runtimes.check_parse import DOMAINS, MICROSOFT, ONNX, domain_of, opset_range, opsets_of
from roost_runtimes.check_tensors import check_sparse, check_tensor
from roost_runtimes.check_verdict import Rejected, field_of, shown

MOST_NODES = 100_000
MOST_TENSORS = 200_000
DEEPEST_NESTING = 16
LONGEST_CALL_CHAIN = 64
_REFUSED_MICROSOFT = frozenset({"EPContext"})  # names a file that an execution provider would load

FunctionKey = tuple[str, str, str]
"""Domain, name, overload."""


@dataclass(slots=True)
class Body:
    """What one graph or function holds, its subgraphs included, functions not yet expanded."""

    nodes: int = 0
    depth: int = 0
    """Deepest nesting of subgraphs."""
    calls: dict[FunctionKey, tuple[int, int]] = field(default_factory=dict)
    """Functions called: how often, and at which depth at most."""


def check_graph(model: onnx.ModelProto, opsets: dict[str, int]) -> None:
    """Raises Rejected naming the node or tensor at fault."""
    if model.training_info:
        raise Rejected("invalid_graph", "the model carries training graphs; export it for inference")
    functions = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
    if len(functions) != len(model.functions):
        raise Rejected("invalid_graph", "the model defines a function twice")
    walk = _Walk(frozenset(functions))
    bodies: dict[FunctionKey, Body] = {}
    for key, function in functions.items():
        label = f"function {shown(function.name)}"
        if key[0] in DOMAINS:
            raise Rejected("invalid_graph", f"{label} stands in for a standard operator", field=field_of(function.name))
        bodies[key] = walk.body(function.node, opsets_of(function.opset_import, label))
        walk.attributes(function.attribute_proto, label)
    walk.constants(model.graph)
    _expand(walk.body(model.graph.node, opsets), bodies)


class _Walk:
    """Visits bodies; keeps the counts that are bounded over the whole model."""

    def __init__(self, functions: frozenset[FunctionKey]) -> None:
        self._functions = functions
        self._nodes = 0
        self._tensors = 0
        self._known: set[tuple[str, str, int]] = set()

    def body(self, nodes: Sequence[onnx.NodeProto], opsets: dict[str, int]) -> Body:
        body = Body()
        pending = [(nodes, 0)]
        while pending:
            level, depth = pending.pop()
            if depth > DEEPEST_NESTING:
                raise _too_deep()
            self._nodes += len(level)
            if self._nodes > MOST_NODES:
                raise _too_many()
            body.nodes += len(level)
            body.depth = max(body.depth, depth)
            for node in level:
                label = label_of(node)  # first of all: it makes sure that the names are text
                self._operator(node, label, opsets, body, depth)
                for graph in self.attributes(node.attribute, label):
                    self.constants(graph)
                    pending.append((graph.node, depth + 1))
        return body

    def constants(self, graph: onnx.GraphProto) -> None:
        """Initializers of one graph, dense and sparse."""
        self._count(len(graph.initializer) + len(graph.sparse_initializer))
        for tensor in graph.initializer:
            check_tensor(tensor, f"initializer {shown(tensor.name)}")
        for sparse in graph.sparse_initializer:
            check_sparse(sparse, f"sparse initializer {shown(sparse.values.name)}")

    def attributes(self, attributes: Sequence[onnx.AttributeProto], label: str) -> list[onnx.GraphProto]:
        """Check the tensors in these attributes, whatever their type says they hold; return their graphs."""
        graphs: list[onnx.GraphProto] = []
        for attribute in attributes:
            owner = f"attribute {shown(attribute.name)} of {label}"
            for tensor in (*_one(attribute, "t"), *attribute.tensors):
                self._count(1)
                check_tensor(tensor, owner)
            for sparse in (*_one(attribute, "sparse_tensor"), *attribute.sparse_tensors):
                self._count(1)
                check_sparse(sparse, owner)
            graphs += (*_one(attribute, "g"), *attribute.graphs)
        return graphs

    def _count(self, more: int) -> None:
        self._tensors += more
        if self._tensors > MOST_TENSORS:
            raise Rejected("invalid_graph", f"the model holds more than {MOST_TENSORS:,} constant tensors")

    def _operator(self, node: onnx.NodeProto, label: str, opsets: dict[str, int], body: Body, depth: int) -> None:
        domain = domain_of(node.domain)
        key = (domain, node.op_type, node.overload)
        if key in self._functions:
            count, deepest = body.calls.get(key, (0, 0))
            body.calls[key] = (count + 1, max(deepest, depth))
            return
        if domain not in DOMAINS:
            raise Rejected(
                "unknown_operator_domain",
                f"{label} is an operator of domain {shown(domain)}; "
                f"only these are served: {', '.join(DOMAINS.values())}",
                field=_name_of(node),
            )
        if domain not in opsets:
            raise Rejected(
                "unsupported_opset",
                f"{label} is of domain {DOMAINS[domain]}, for which the model names no opset",
                field="opset_import",
            )
        self._exists(node, label, domain, opsets[domain])

    def _exists(self, node: onnx.NodeProto, label: str, domain: str, opset: int) -> None:
        if (domain, node.op_type, opset) in self._known:
            return
        if domain == MICROSOFT:
            unknown = node.op_type in _REFUSED_MICROSOFT  # ONNX Runtime knows the others, and says so when it does not
        else:
            unknown = not _in_standard(node.op_type, domain, opset)
        if unknown:
            raise Rejected(
                "unsupported_operator",
                f"{label}: there is no operator {shown(node.op_type)} in opset {opset} of {DOMAINS[domain]}"
                if domain != MICROSOFT
                else f"{label}: operator {shown(node.op_type)} is not served, for it loads files",
                field=_name_of(node),
            )
        self._known.add((domain, node.op_type, opset))


def label_of(node: onnx.NodeProto) -> str:
    """A node for a sentence: by its name, or by what it makes when it has none."""
    if node.name:
        return f"node {shown(node.name)} ({field_of(node.op_type)})"
    made = f", which makes {shown(node.output[0])}" if node.output else ""
    return f"a node ({field_of(node.op_type)}){made}"


def _name_of(node: onnx.NodeProto) -> str:
    return field_of(node.name or (node.output[0] if node.output else node.op_type))


def _one(attribute: onnx.AttributeProto, name: str) -> Iterator[onnx.GraphProto | onnx.TensorProto]:
    if attribute.HasField(name):
        yield getattr(attribute, name)


def warm_up_schemas() -> None:
    """The tables of operators are made when they are first asked."""
    for domain in DOMAINS:
        opset_range(domain)
    _in_standard("Identity", ONNX, opset_range(ONNX)[1])


def _in_standard(op_type: str, domain: str, opset: int) -> bool:
    try:
        defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return False
    return True


def _expand(main: Body, functions: dict[FunctionKey, Body]) -> None:
    """Bound the model as it is once all functions are written out."""
    sizes: dict[FunctionKey, tuple[int, int]] = {}
    open_calls: list[FunctionKey] = []

    def whole(body: Body) -> tuple[int, int]:
        nodes, depth = body.nodes, body.depth
        for key, (count, at_depth) in body.calls.items():
            inner_nodes, inner_depth = of(key)
            nodes += count * inner_nodes
            depth = max(depth, at_depth + inner_depth)
        if nodes > MOST_NODES:
            raise _too_many()
        if depth > DEEPEST_NESTING:
            raise _too_deep()
        return nodes, depth

    def of(key: FunctionKey) -> tuple[int, int]:
        if key in open_calls:
            raise Rejected("invalid_graph", f"function {shown(key[1])} calls itself", field=field_of(key[1]))
        if len(open_calls) >= LONGEST_CALL_CHAIN:
            raise _too_deep()
        if key not in sizes:
            open_calls.append(key)
            sizes[key] = whole(functions[key])
            open_calls.pop()
        return sizes[key]

    whole(main)
    for key in functions:  # those that nobody calls are read by ONNX Runtime all the same
        of(key)


def _too_many() -> Rejected:
    return Rejected("invalid_graph", f"the model has more than {MOST_NODES:,} nodes, its functions written out")


def _too_deep() -> Rejected:
    return Rejected("too_deep", f"graphs are nested more than {DEEPEST_NESTING} deep, or functions call too far")
