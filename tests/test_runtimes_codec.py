"""What a V2 infer body may be, what it may not."""

import math
import struct

import numpy as np
import orjson
import pytest

from roost_runtimes.codec import Call, InferCodec
from roost_runtimes.errors import RequestError
from shown_models import Shown, codec


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | changes


def decode(*tensors, using=None, **document) -> Call:
    return (using or codec()).decode(orjson.dumps({"inputs": tensors} | document), None)


def refused(body: bytes, header: str | None = None, using=None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        (using or codec()).decode(body, header)
    return caught.value


def binary(tail: bytes, size: object, *, header=None, using=None, **changes) -> Call:
    one = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": size}} | changes
    head = orjson.dumps({"inputs": [one]})
    return (using or codec()).decode(head + tail, str(len(head)) if header is None else header)


def test_flat_and_nested_data_mean_the_same():
    flat = decode(tensor(shape=[2, 4], data=[1, 2, 3, 4, 5.5, 6, 7, 8]))
    nested = decode(tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5.5, 6, 7, 8]]))
    assert flat.feeds["x"].dtype == np.float32
    np.testing.assert_array_equal(flat.feeds["x"], nested.feeds["x"])
    assert flat.rows == nested.rows == 2


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"datatype": "FP64"}, "inputs[0].datatype", ["FP32", "FP64"]),
        ({"datatype": None}, "inputs[0].datatype", ["FP32", "none"]),
        ({"datatype": ["FP32"]}, "inputs[0].datatype", ["FP32"]),
        ({"name": "z"}, "inputs[0].name", ["'z'", "'x'"]),
        ({"name": None}, "inputs[0].name", ["name"]),
        ({"name": ["x"]}, "inputs[0].name", ["name"]),
        ({"shape": [4]}, "inputs[0].shape", ["[-1, 4]", "[4]"]),
        ({"shape": [1, 1, 4]}, "inputs[0].shape", ["[-1, 4]", "[1, 1, 4]"]),
        ({"shape": [1, 5], "data": [1, 2, 3, 4, 5]}, "inputs[0].shape", ["[-1, 4]", "[1, 5]"]),
        ({"shape": [2, 4]}, "inputs[0].data", ["[2, 4]", "8", "4"]),
        ({"shape": [-1, 4]}, "inputs[0].shape", ["-1"]),
        ({"shape": [True, 4]}, "inputs[0].shape", ["true"]),
        ({"shape": [1.0, 4]}, "inputs[0].shape", ["1.0"]),
        ({"shape": "1,4"}, "inputs[0].shape", ["list"]),
        ({"shape": None}, "inputs[0].shape", ["list"]),
        ({"shape": [2**31, 4]}, "inputs[0].shape", [str(2**31)]),
        ({"shape": [2**31 - 1, 4]}, "inputs[0].data", ["elements"]),
        ({"shape": [1] * 64}, "inputs[0].shape", ["[-1, 4]"]),
        ({"shape": [1] * 65}, "inputs[0].shape", ["65", "64"]),
        ({"data": None}, "inputs[0].data", ["null"]),
        ({"data": {"0": 1}}, "inputs[0].data", ["an object"]),
        ({"data": 1}, "inputs[0].data", ["1"]),
        ({"data": [1, 2, 3, "4"]}, "inputs[0].data", ["a string", "element 3"]),
        ({"data": [1, None, 3, 4]}, "inputs[0].data", ["null", "element 1"]),
        ({"data": [True, 2, 3, 4]}, "inputs[0].data", ["true", "element 0"]),
        ({"data": [1, 2, 3, 1e39]}, "inputs[0].data", ["FP32", "1e+39", "element 3"]),
        ({"data": [1, 2, 3, {"a": 1}]}, "inputs[0].data", ["an object", "element 3"]),
        ({"data": [[1, 2], [3, 4]]}, "inputs[0].data", ["[1, 4]"]),
        ({"data": [[1, 2, 3], [4]]}, "inputs[0].data", ["[1, 4]"]),
        ({"data": [[1, 2, 3, 4], 5]}, "inputs[0].data", ["[1, 4]"]),
        ({"data": [[[1, 2, 3, 4]]]}, "inputs[0].data", ["[1, 4]"]),
        ({"data": [[1, 2, 3, [4]]]}, "inputs[0].data", ["a list", "element 3"]),
        ({"parameters": []}, "inputs[0].parameters", ["object"]),
        (
            {"parameters": {"shared_memory_region": "r"}},
            "inputs[0].parameters",
            ["shared_memory_region", "not supported"],
        ),
    ],
)
def test_a_wrong_tensor_is_refused_naming_field_expected_and_got(changes, field, words):
    error = refused(orjson.dumps({"inputs": [tensor(**changes)]}))
    assert (error.status, error.field) == (400, field)
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [None]}, "inputs[0]"),
        ({"inputs": [tensor(), tensor()]}, "inputs[1].name"),
        ({"inputs": [tensor(), tensor(name="extra")]}, "inputs[1].name"),
        ({"inputs": [tensor(name=f"n{i}") for i in range(10_000)]}, "inputs[0].name"),
        ({"inputs": [tensor()], "id": 1}, "id"),
        ({"inputs": [tensor()], "id": "i" * 1_000_000}, "id"),
        ({"inputs": [tensor()], "parameters": []}, "parameters"),
        ({"inputs": [tensor()], "parameters": {"p": "v" * 1_000_000}}, "parameters"),
        ({"inputs": [tensor()], "parameters": {f"p{i}": 1 for i in range(1000)}}, "parameters"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "parameters.binary_data_output"),
        ({"inputs": [tensor()], "outputs": {}}, "outputs"),
        ({"inputs": [tensor()], "outputs": [{"name": "nope"}]}, "outputs[0].name"),
        ({"inputs": [tensor()], "outputs": [{"name": "x"}, {"name": "x"}]}, "outputs[1].name"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "x", "parameters": {"classification": 3}}]},
            "outputs[0].parameters",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "x", "parameters": {"binary_data": "yes"}}]},
            "outputs[0].parameters.binary_data",
        ),
    ],
)
def test_a_wrong_document_is_refused_naming_the_field(document, field):
    error = refused(orjson.dumps(document))
    assert (error.status, error.field) == (400, field)


GOOD = orjson.dumps({"inputs": [tensor()]})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD + b"x",
        GOOD.replace(b"[1,2,3,4]", b"[1,2,3,NaN]"),
        GOOD.replace(b"[1,2,3,4]", b"[1,2,3,Infinity]"),
        GOOD.replace(b"[1,2,3,4]", b"[1,2,3,1e999]"),
        GOOD.replace(b"[1,2,3,4]", b"[1,2,3," + b"1" * 100_000 + b"]"),
        GOOD.replace(b"[1,2,3,4]", b"[" * 100_000),
        b"[" * 2_000_000,
        GOOD.replace(b'"x"', b'"\\ud800"'),
        GOOD.replace(b'"x"', b'"\xff"'),
        GOOD[:-1] + b',"inputs":' + GOOD[10:],
        GOOD.replace(b'"shape"', b'"name":"x","shape"'),
        GOOD[:-1] + b',"parameters":{"a":{"b":1,"b":2}}}',
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_refused(body):
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_json")


def test_colons_in_strings_are_not_taken_for_repeated_keys():
    call = decode(tensor(), id="a:b:c", parameters={"note": "x:y", "nested": {"k": 1}})
    assert call.feeds["x"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("datatype", "value", "fits"),
    [
        ("UINT8", 255, True), ("UINT8", 256, False), ("UINT8", -1, False), ("UINT8", 1.0, False), ("UINT8", True, False),
        ("INT8", -128, True), ("INT8", 128, False), ("UINT16", 65536, False), ("INT16", -32769, False),
        ("UINT32", 2**32 - 1, True), ("UINT32", 2**32, False), ("INT32", 2**31, False),
        ("UINT64", 2**64 - 1, True), ("INT64", -(2**63), True), ("INT64", 2**63, False), ("INT64", 1.5, False),
        ("BOOL", True, True), ("BOOL", 1, False), ("BOOL", "true", False),
        ("FP64", 1e308, True), ("FP64", 3, True), ("FP64", False, False), ("FP32", -3.5e38, False), ("FP32", 3.4e38, True),
        ("BYTES", "é", True), ("BYTES", 1, False), ("BYTES", "", True), ("FP16", 1.0, False),
    ],
)  # fmt: skip
def test_json_values_must_fit_the_datatype(datatype, value, fits):
    one = tensor(datatype=datatype, shape=[1], data=[value])
    using = codec(datatype, (-1,))
    if fits:
        assert decode(one, using=using, parameters={"binary_data_output": True}).feeds["x"].tolist() == [
            pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        ]
    else:
        assert refused(orjson.dumps({"inputs": [one]}), using=using).field == "inputs[0].data"


@pytest.mark.parametrize("over", [2**64, 10**400, -(2**63) - 1])
def test_integers_beyond_64_bits_are_refused(over):
    body = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[%d]}]}' % over
    assert refused(body, using=codec("INT64", (-1,))).status == 400


def test_no_elements_are_served_but_not_absurd_shapes():
    assert decode(tensor(shape=[0, 4], data=[])).feeds["x"].shape == (0, 4)
    using = codec("FP32", (-1, -1, -1))
    assert decode(tensor(shape=[1, 0, 3], data=[[]]), using=using).feeds["x"].shape == (1, 0, 3)
    body = orjson.dumps({"inputs": [tensor(shape=[0, 2**31 - 1, 2**31 - 1], data=[])]})
    assert refused(body, using=using).status == 400


RAW = struct.pack("<4f", 1, 2, 3, 4)


@pytest.mark.parametrize("header", ["abc", "-1", "+5", "1e2", "1.5", "", " 5", "5, 5", "٣", "9" * 30, "1_0", "100000"])
def test_a_wrong_binary_header_is_refused(header):
    with pytest.raises(RequestError) as caught:
        binary(RAW, 16, header=header)
    assert caught.value.status == 400


@pytest.mark.parametrize("size", [15, 17, 0, -1, "16", 16.0, True, None, 2**63])
def test_a_wrong_binary_size_is_refused(size):
    with pytest.raises(RequestError) as caught:
        binary(RAW, size)
    assert caught.value.status == 400


def test_binary_data_must_be_there_once_and_alone():
    for tail in (RAW + b"x", RAW[:-1], b""):
        with pytest.raises(RequestError):
            binary(tail, 16)
    with pytest.raises(RequestError, match="not both"):
        binary(RAW, 16, data=[1, 2, 3, 4])
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        decode(without_data())


def without_data():
    one = tensor(parameters={"binary_data_size": 16})
    del one["data"]
    return one


def test_binary_numbers_are_read_in_place_when_they_are_aligned():
    head = orjson.dumps({"inputs": [without_data()]})
    for padding in range(4):
        padded = head + b" " * padding
        body = padded + RAW
        array = codec().decode(body, str(len(padded))).feeds["x"]
        assert array.tolist() == [[1, 2, 3, 4]]
        assert array.flags.aligned
        inside = np.shares_memory(array, np.frombuffer(body, np.uint8))
        address = np.frombuffer(body, np.uint8).__array_interface__["data"][0] + len(padded)
        assert inside == (address % 4 == 0)


@pytest.mark.parametrize("tail", [b"\x00", b"\x05\x00\x00\x00abcd", b"\x01\x00\x00\x00\xff", b"\xff\xff\xff\xff", b""])
def test_broken_binary_texts_are_refused(tail):
    with pytest.raises(RequestError):
        binary(tail, len(tail), datatype="BYTES", shape=[1], using=codec("BYTES", (-1,)))


def test_a_binary_boolean_is_zero_or_one():
    with pytest.raises(RequestError, match="0 or 1"):
        binary(b"\x00\x02", 2, datatype="BOOL", shape=[2], using=codec("BOOL", (-1,)))


def test_json_and_binary_inputs_mix_in_input_order():
    using = InferCodec(Shown([("a", "INT32", (-1,)), ("b", "FP32", (-1,)), ("c", "INT32", (-1,))]))
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "c", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}},
                {"name": "b", "datatype": "FP32", "shape": [2], "data": [1, 2]},
                {"name": "a", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
            ]
        }
    )
    feeds = using.decode(head + struct.pack("<3i", 7, 8, 9), str(len(head))).feeds
    assert {name: array.tolist() for name, array in feeds.items()} == {"a": [8, 9], "b": [1, 2], "c": [7]}


def test_a_header_that_covers_the_whole_body_is_plain_json():
    assert codec().decode(GOOD, str(len(GOOD))).feeds["x"].shape == (1, 4)


def test_a_raw_request_infers_one_unknown_dimension():
    call = codec().decode(RAW * 3, "0")
    assert call.feeds["x"].shape == (3, 4)
    headers, pieces = call.encode([call.feeds["x"]])
    assert dict(headers)["inference-header-content-length"] == str(len(pieces[0]))
    assert bytes(pieces[1]) == RAW * 3


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ([("x", "FP32", (-1, 4))], RAW[:-1]),
        ([("x", "FP32", (-1, -1))], RAW),
        ([("x", "FP32", (2, 4))], RAW),
        ([("x", "FP32", (-1,)), ("y", "FP32", (-1,))], RAW),
        ([("x", "BYTES", (2,))], b"ab"),
    ],
)
def test_a_raw_request_that_cannot_be_understood_is_refused(inputs, body):
    assert refused(body, "0", InferCodec(Shown(inputs))).status == 400


def test_a_raw_text_is_one_element():
    call = codec("BYTES", (-1, 1)).decode("grüß:\n".encode(), "0")
    assert call.feeds["x"].tolist() == [["grüß:\n"]]


def test_outputs_are_selected_and_binary_per_output():
    using = InferCodec(
        Shown([("x", "FP32", (-1, 4))], [("p", "FP32", (-1,)), ("q", "INT64", (-1,)), ("r", "FP16", (-1,))])
    )
    call = decode(
        tensor(),
        using=using,
        id="seven",
        parameters={"binary_data_output": True},
        outputs=[{"name": "q", "parameters": {"binary_data": False}}, {"name": "p"}],
    )
    assert call.outputs == ("q", "p")
    headers, pieces = call.encode([np.array([5]), np.array([1.5], np.float32)])
    assert orjson.loads(pieces[0]) == {
        "model_name": "m",
        "model_version": "3",
        "id": "seven",
        "outputs": [
            {"name": "q", "datatype": "INT64", "shape": [1], "data": [5]},
            {"name": "p", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
        ],
    }
    assert bytes(pieces[1]) == struct.pack("<f", 1.5)
    assert dict(headers)["content-type"] == "application/octet-stream"
    with pytest.raises(RequestError, match="'r' is FP16"):
        decode(tensor(), using=using)


def test_what_is_not_finite_is_null_in_json_and_itself_in_binary():
    values = np.array([1, math.nan, math.inf, -math.inf], np.float32)
    _, pieces = decode(tensor()).encode([values])
    assert orjson.loads(pieces[0])["outputs"][0]["data"] == [1, None, None, None]
    _, pieces = decode(tensor(), parameters={"binary_data_output": True}).encode([values])
    np.testing.assert_array_equal(np.frombuffer(pieces[1], np.float32), values)
