"""What the checker refuses before ONNX Runtime sees it, and in which words."""

import random
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import hostile_models as hostile
from hostile_models import external, float_tensor, identity, value
from roost_runtimes.check_file import inspect_file
from roost_runtimes.check_verdict import Rejected, shown


@pytest.fixture
def judge(tmp_path):
    def run(made):
        file = tmp_path / "model"
        file.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return inspect_file(file)

    return run


def refusal(judge, made) -> Rejected:
    with pytest.raises(Rejected) as raised:
        judge(made)
    assert "/tmp" not in raised.value.message
    return raised.value


def test_a_good_model_gives_its_signature(judge):
    inspected = judge(identity())
    tensor = {"name": "x", "datatype": "FP32", "shape": [1]}
    assert inspected.signature.to_json() == {"inputs": [tensor], "outputs": [tensor | {"name": "y"}]}
    assert (inspected.opset, inspected.ir_version) == ({"ai.onnx": 17}, 8)


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (hostile.with_initializer, "initializer 'w'"),
        (hostile.with_constant, "attribute 'value' of node 'const' (Constant)"),
        (hostile.with_hidden_tensor, "attribute 'odd' of node 'copy' (Identity)"),
        (hostile.with_sparse, "sparse initializer 'w'"),
        (lambda t: hostile.with_sparse(t, part="indices"), "sparse initializer"),
        (hostile.with_subgraph, "initializer 'w'"),
        (hostile.with_function_constant, "attribute 'value'"),
    ],
    ids=["initializer", "constant", "hidden", "sparse-values", "sparse-indices", "subgraph", "function"],
)
def test_external_data_is_refused_wherever_it_hides(judge, place, named):
    error = refusal(judge, place(external("w")))
    assert error.code == "external_data"
    assert named in error.message


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a/../../x", "", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_is_refused_whatever_it_points_at(judge, location):
    error = refusal(judge, hostile.with_initializer(external("w", location, offset="140000000", length="4")))
    assert (error.code, error.field) == ("external_data", "w")


def test_an_external_data_entry_alone_is_enough(judge):
    tensor = external("w", __class__="x", offset="-1")
    tensor.data_location = TensorProto.DEFAULT
    assert refusal(judge, hostile.with_initializer(tensor)).code == "external_data"


def test_the_address_marker_is_refused_even_where_nothing_reads_it(judge):
    made = identity()
    made.doc_string = "*/_ORT_MEM_ADDR_/*"
    assert refusal(judge, made).code == "external_data"


def test_a_foreign_operator_domain_is_refused_by_node_name(judge):
    node = helper.make_node("Steal", ["x"], ["y"], name="thief", domain="com.evil")
    made = hostile.model([node], [value("x", [1])], [value("y", [1])], more_opsets=[("com.evil", 1)])
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unknown_operator_domain", "thief")
    assert "node 'thief' (Steal)" in error.message
    assert "'com.evil'" in error.message


def test_a_foreign_domain_inside_a_subgraph_is_refused(judge):
    made = hostile.with_subgraph(float_tensor("w", [1]))
    made.graph.node[0].attribute[0].g.node[0].domain = "com.evil"
    assert refusal(judge, made).code == "unknown_operator_domain"


def test_an_ep_context_node_is_refused(judge):
    node = helper.make_node("EPContext", ["x"], ["y"], name="ctx", domain="com.microsoft", ep_cache_context="x.bin")
    made = hostile.model([node], [value("x", [1])], [value("y", [1])], more_opsets=[("com.microsoft", 1)])
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_operator", "ctx")


def test_operators_built_into_onnx_runtime_are_let_through(judge):
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    judge(hostile.model([node], [value("x", [1])], [value("y", [1])], more_opsets=[("com.microsoft", 1)]))


def test_local_functions_in_a_domain_of_their_own_are_let_through(judge):
    judge(hostile.function_chain(3))


def test_an_operator_that_no_opset_has_is_refused(judge):
    made = identity()
    made.graph.node[0].op_type = "Frobnicate"
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_operator", "copy")
    assert "'Frobnicate' in opset 17 of ai.onnx" in error.message


def test_an_operator_newer_than_the_opset_is_refused(judge):
    made = identity(opset=17)
    made.graph.node[0].op_type = "Gelu"  # came with opset 20
    assert refusal(judge, made).code == "unsupported_operator"


@pytest.mark.parametrize("opset", [0, 1, 999, -1])
def test_an_opset_out_of_range_is_refused_with_the_range(judge, opset):
    error = refusal(judge, identity(opset=opset))
    assert error.code == "unsupported_opset"
    assert f"supported are 7 to {onnx.defs.onnx_opset_version()}" in error.message


def test_a_missing_opset_is_refused_with_the_range(judge):
    made = identity()
    del made.opset_import[:]
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_opset", "opset_import")
    assert "supported are 7 to" in error.message


def test_a_domain_without_an_opset_is_refused(judge):
    made = identity()
    made.graph.node[0].domain = "ai.onnx.ml"
    made.graph.node[0].op_type = "Scaler"
    assert refusal(judge, made).code == "unsupported_opset"


def test_one_domain_in_two_versions_is_refused(judge):
    assert refusal(judge, identity(more_opsets=[("ai.onnx", 18)])).code == "unsupported_opset"


@pytest.mark.parametrize("ir", [0, 2, 999])
def test_an_ir_version_out_of_range_is_refused_with_the_range(judge, ir):
    error = refusal(judge, identity(ir=ir))
    assert error.code == "unsupported_ir"
    assert f"supported are 3 to {onnx.IR_VERSION}" in error.message


@pytest.mark.parametrize("data", [b"", b"\x08", b"hello", b"\x80\x04\x95pickle", b"PK\x03\x04", b"\x08\x08\x12\x01a"])
def test_what_is_no_model_is_refused(judge, data):
    assert refusal(judge, data).code == "not_onnx"


def test_onnx_runtimes_own_format_is_refused(judge):
    assert "ORT format" in refusal(judge, b"\x20\x00\x00\x00ORTM" + bytes(64)).message


def test_a_file_cut_anywhere_is_refused(judge):
    whole = hostile.with_initializer(float_tensor("w", [1000], bytes(4000))).SerializeToString()
    for size in range(0, len(whole), 97):
        assert refusal(judge, whole[:size]).code in {"not_onnx", "unsupported_opset"}


@pytest.mark.parametrize("depth", [17, 30, 200, 2000])
def test_deep_nesting_is_refused(judge, depth):
    assert refusal(judge, hostile.nested(depth)).code == "too_deep"


def test_nesting_within_the_bound_is_walked(judge):
    assert refusal(judge, hostile.nested(16)).message == "the model has no output"


def test_functions_that_call_each_other_in_a_ring_are_refused(judge):
    error = refusal(judge, hostile.recursive_functions())
    assert error.code == "invalid_graph"
    assert "calls itself" in error.message


def test_a_long_chain_of_functions_is_refused(judge):
    assert refusal(judge, hostile.function_chain(65)).code == "too_deep"


def test_functions_that_stand_for_too_many_nodes_are_refused(judge):
    assert "more than 100,000 nodes" in refusal(judge, hostile.doubling_functions()).message


def test_a_function_that_replaces_a_standard_operator_is_refused(judge):
    made = identity(functions=[hostile.function("Identity", [helper.make_node("Relu", ["a"], ["b"])], domain="")])
    assert "stands in for a standard operator" in refusal(judge, made).message


def test_absurd_node_counts_are_refused(judge):
    assert "more than 100,000 nodes" in refusal(judge, hostile.many_nodes(1_000_000)).message


def test_training_graphs_are_refused(judge):
    made = identity()
    made.training_info.add()
    assert "training" in refusal(judge, made).message


def test_a_model_without_outputs_is_refused(judge):
    made = identity()
    del made.graph.output[:]
    assert "no output" in refusal(judge, made).message


def test_a_scikit_learn_zipmap_is_refused_with_advice(judge):
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    made = identity()
    made.graph.output.append(helper.make_value_info("output_probability", kind))
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_type", "output_probability")
    assert "zipmap=False" in error.message


@pytest.mark.parametrize("kind", ["COMPLEX64", "COMPLEX128", "FLOAT8E4M3FN", "INT4", "BFLOAT16", "UNDEFINED"])
def test_types_that_the_protocol_lacks_are_refused_by_name(judge, kind):
    made = identity()
    made.graph.input[0].type.tensor_type.elem_type = getattr(TensorProto, kind)
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_type", "x")
    assert kind in error.message


@pytest.mark.parametrize("kind", ["optional", "sequence"])
def test_inputs_that_are_no_tensors_are_refused(judge, kind):
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    made = identity()
    made.graph.input.append(helper.make_value_info("odd", getattr(helper, f"make_{kind}_type_proto")(inner)))
    error = refusal(judge, made)
    assert (error.code, error.field) == ("unsupported_type", "odd")
    assert kind in error.message


def test_dynamic_and_zero_dimensions_are_taken(judge):
    made = identity()
    made.graph.input[0].CopyFrom(value("x", ["N", None, 0, 3]))
    assert judge(made).signature.inputs[0].shape == (-1, -1, 0, 3)


@pytest.mark.parametrize("shape", [[-1], [-(2**40)], [2**32, 2**32], [1] * 65])
def test_impossible_shapes_are_refused(judge, shape):
    made = identity()
    made.graph.input[0].CopyFrom(value("x", shape))
    error = refusal(judge, made)
    assert (error.code, error.field) == ("invalid_graph", "x")


def test_an_input_without_a_shape_is_refused_and_an_output_is_not(judge):
    made = identity()
    made.graph.output[0].CopyFrom(value("y", None))
    assert judge(made).signature.outputs[0].shape is None
    made.graph.input[0].CopyFrom(value("x", None))
    error = refusal(judge, made)
    assert (error.code, error.field) == ("invalid_graph", "x")
    assert "their number must be known" in error.message


@pytest.mark.parametrize(
    "tensor",
    [
        float_tensor("w", [-1]),
        float_tensor("w", [2**62, 4]),
        float_tensor("w", [1000]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10**9]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0, 2.0]),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], raw_data=b"x"),
        TensorProto(name="w", data_type=0, dims=[1], raw_data=b"x"),
        TensorProto(name="w", data_type=77, dims=[1], raw_data=b"x"),
    ],
)
def test_constants_that_are_not_what_they_say_are_refused(judge, tensor):
    error = refusal(judge, hostile.with_initializer(tensor))
    assert (error.code, error.field) == ("invalid_graph", "w")


@pytest.mark.parametrize("kind", [k for k in TensorProto.DataType.values() if k != 0])
def test_sound_constants_of_every_type_are_taken(judge, kind):
    made = identity()
    made.graph.initializer.append(helper.make_tensor("typed", kind, [3], [b"a"] * 3 if kind == 8 else [1, 0, 1]))
    judge(made)


def test_names_given_twice_are_refused(judge):
    made = identity()
    made.graph.input.append(value("x", [1]))
    assert "two of the model's inputs are named 'x'" in refusal(judge, made).message


def test_initializers_listed_as_inputs_are_no_inputs(judge):
    made = hostile.with_initializer(float_tensor("w", [1]), ir=3)
    made.graph.input.append(value("w", [1]))
    assert [t.name for t in judge(made).signature.inputs] == ["x"]


def test_names_are_shown_short_and_without_control_characters():
    assert shown("a\x1b[2J\nb\u202e") == "'a?[2J?b?'"
    assert len(shown("x" * 10_000)) < 100


@pytest.mark.parametrize("name", [b"copy", b"Identity", b"x"])
def test_names_that_are_no_text_are_refused(judge, name):
    data = identity().SerializeToString().replace(name, b"\xff" * len(name))
    assert "not UTF-8" in refusal(judge, data).message


def test_mutated_files_are_taken_or_refused_but_never_an_accident(judge):
    """The same 3,000 mutations on every run."""
    chance = random.Random(22)
    seeds = [
        m.SerializeToString()
        for m in (
            identity(),
            hostile.endless_loop(),
            hostile.function_chain(3),
            hostile.with_subgraph(float_tensor("w", [1])),
        )
    ]
    for _ in range(3_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(data))
            if chance.random() < 0.8:
                data[at] = chance.randrange(256)
            else:
                data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 4))
        try:
            judge(bytes(data))
        except Rejected as error:
            assert error.message.isprintable()  # noqa: PT017  most are refused, some are not


def test_every_model_that_travels_with_onnx_is_judged_without_an_accident():
    """Many real small files: each is taken, or refused for a reason that is written down."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    codes = Counter(_code(file) for file in folder.rglob("*.onnx"))
    assert codes["taken"] > 20
    expected = {"taken", "unsupported_type", "unsupported_opset", "unknown_operator_domain"}
    assert set(codes) <= expected


def _code(file: Path) -> str:
    try:
        inspect_file(file)
    except Rejected as error:
        return error.code
    return "taken"
