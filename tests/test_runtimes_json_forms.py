"""A short request like an earlier one skips what was checked then; it must mean what it means to a codec that saw none."""

import json
from itertools import count, product

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from json_bodies import ordinary, whole
from roost_runtimes.codec import InferCodec
from roost_runtimes.forms import MOST_BYTES
from shown_models import Shown, codec

TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}


def knows(using: InferCodec, body: bytes) -> bool:
    return using._forms.find(body) is not None


def known(body: bytes, using: InferCodec | None = None) -> InferCodec:
    using = using or codec()
    assert whole(using, body)[0] == "served"
    assert knows(using, body)
    return using


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1.5, 2, 3, 4]]])
@pytest.mark.parametrize("order", [["name", "shape", "datatype", "data"], ["data", "datatype", "name", "shape"]])
def test_a_second_request_of_the_same_form_is_recognised(separators, data, order) -> None:
    tensor = {name: (TENSOR | {"data": data})[name] for name in order}
    documents = [
        {"inputs": [tensor]},
        {"inputs": [tensor], "outputs": [{"name": "x"}]},
        {"parameters": {"binary_data_output": True}, "inputs": [tensor]},
        {"parameters": {"note": "a:b", "list": [1]}, "inputs": [tensor | {"parameters": {"data_type": 1}}]},
    ]
    for document in documents:
        using = known(json.dumps(document, separators=separators).encode())
        tensor["data"] = [[9, 8, 7, 6.25]] if data[0] != 1 else [9, 8, 7, 6.25]
        second = json.dumps(document, separators=separators).encode()
        assert knows(using, second)
        assert whole(using, second) == ordinary(using, second)
        tensor["data"] = data


BASE = orjson.dumps({"inputs": [TENSOR], "outputs": [{"name": "x"}]})
VALUE = b"[5.1,3.5,1.4,0.2]"
WITH_ID = b'{"id":"one",' + BASE[1:]


@pytest.mark.parametrize(
    "value",
    [
        b"[1,2,3]", b"[1,2,3,4,5]", b"[]", b"null", b"1", b"{}", b"", b" ", b"[1,2,3,true]", b"[1,2,3,null]", b'[1,2,3,"4"]',
        b"[1,2,3,1e39]", b"[1,2,3,1e999]", b"[1,2,3,NaN]", b"[1,2,3,4],", b'[1,2,3,4],"data":[1,2,3,4]', b"[1,2,3,4]]", b"[[1,2,3,4]",
        b'[1,2,3,4],"name":"x"', b'[1,2,3,{"a":1,"a":2}]', b"[1,2,3,[4]]", b"[[1,2,3,4]]", b"[[1,2],[3,4]]", b" [1,2,3,4]\n",
        b'[1,2,3,4]}],"inputs":[{"data":[1,2,3,4]', b"[1,2,3,\xff]", b"[" * 2000, b"[1,2,3,4]/**/", b"[1,2,3," + b"1" * 1000 + b"]",
        b"[-0,0,-0.0,1e-999]",
    ],
    ids=count(),
)  # fmt: skip
def test_a_value_in_a_known_form_is_judged_like_any_other(value: bytes) -> None:
    body = BASE.replace(VALUE, value)
    using = known(BASE)
    assert whole(using, body) == ordinary(codec(), body)


def test_text_lists_have_forms_too() -> None:
    using = codec("BYTES", (-1,))
    body = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[2],"data":["a","b"]}]}'
    known(body, using)
    for value in (b'["]","\\"]}]}"]', b'["a","b\\ud800"]', b'["a"]', b'["a","b"]}],"id":"', b'["\\"data\\":[",""]'):
        second = body.replace(b'["a","b"]', value)
        assert whole(using, second) == ordinary(using, second)


def test_what_only_looks_like_the_list_of_the_input_is_no_form() -> None:
    decoys = [
        b'{"parameters":{"data":[1]},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data" :[1,2,3,4]}]}',
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data" :[1,2,3,4],"parameters":{"data":[1]}}]}',
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data" :[1,2,3,4]}],"parameters":{"p":"\\"data\\":[1]"}}',
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"\\"data":[1]},"d\\u0061ta":[1,2,3,4]}]}',
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4],"parameters":{"p":null}}]}',
    ]
    for body in decoys:
        using = codec()
        assert whole(using, body)[0] == "served"
        for second in (body, body.replace(b"[1]", b"[9,9,9,9]"), body.replace(b"[1,2,3,4]", b"[4,3,2,1]")):
            assert not knows(using, second)
            assert whole(using, second) == ordinary(codec(), second)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_id_that_comes_first_is_each_requests_own(separators) -> None:
    using = known(json.dumps({"id": "one", "inputs": [TENSOR]}, separators=separators).encode())
    assert not knows(using, json.dumps({"inputs": [TENSOR]}, separators=separators).encode())
    for request_id in ("two", "", " ", "a:b", "{}", "d" * 1024, "5f0a-77", "null"):
        body = json.dumps({"id": request_id, "inputs": [TENSOR]}, separators=separators).encode()
        assert knows(using, body)
        meaning = whole(using, body)
        assert meaning == ordinary(using, body)
        assert orjson.loads(meaning[5][0])["id"] == request_id
    for request_id in ("d" * 1025, "é", 'a"b', "a\\b", "\n", "\x7f", '"data":[1]', 5, None, [], {}):
        body = json.dumps({"id": request_id, "inputs": [TENSOR]}, separators=separators, ensure_ascii=False).encode()
        assert not knows(using, body)
        assert whole(using, body) == ordinary(using, body)
    for raw in (b"\x01", b"\xff", b"\xc3", b"\t", b"\\", b"\\u0041", b'","id":"'):
        body = (
            json.dumps({"id": "IDENTITY", "inputs": [TENSOR]}, separators=separators).encode().replace(b"IDENTITY", raw)
        )
        assert not knows(using, body)
        assert whole(using, body) == ordinary(using, body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"',
        b'{"id": "',
        b'{"id":"a',
        b'{"id":"a"}',
        b'{"id":"data":',
        b'{"id":"data":[1]}',
        b'"data":',
        b'"data":[1]',
        b"",
    ],
)
def test_a_body_that_ends_early_is_refused_as_ever(body: bytes) -> None:
    using = known(BASE, known(WITH_ID))
    assert whole(using, body) == ordinary(codec(), body)


def test_another_id_than_a_plain_one_in_front_makes_no_form() -> None:
    for body in (
        orjson.dumps({"parameters": {}, "id": "one", "inputs": [TENSOR]}),
        orjson.dumps({"inputs": [TENSOR], "id": "one"}),
        orjson.dumps({"id": "é", "inputs": [TENSOR]}),
        b'{ "id":"one",' + orjson.dumps({"inputs": [TENSOR]})[1:],
    ):
        using = codec()
        assert whole(using, body)[0] == "served"
        assert not knows(using, body)


def test_several_inputs_and_long_bodies_are_not_remembered() -> None:
    using = codec()
    long = orjson.dumps({"inputs": [TENSOR | {"parameters": {"note": "n" * 4000}}], "parameters": {"note": "n" * 4000}})
    assert len(long) > MOST_BYTES
    assert whole(using, long)[0] == "served"
    assert not knows(using, long)
    two = InferCodec(Shown([("x", "FP32", (-1, 4)), ("y", "FP32", (-1, 4))]))
    body = orjson.dumps({"inputs": [TENSOR, TENSOR | {"name": "y"}]})
    assert whole(two, body)[0] == "served"
    assert not knows(two, body)


def test_only_so_many_forms_are_kept() -> None:
    using = codec()
    bodies = [orjson.dumps({"parameters": {"n": n}, "inputs": [TENSOR]}) for n in range(100)]
    for body in bodies:
        assert whole(using, body)[0] == "served"
    assert [knows(using, body) for body in bodies] == [True] * 32 + [False] * 68
    for body in bodies:
        assert whole(using, body) == ordinary(using, body)
    without = codec()
    for n in range(100):
        assert whole(without, orjson.dumps({"parameters": {}, "id": str(n), "inputs": [TENSOR]}))[0] == "served"
    assert whole(without, bodies[0])[0] == "served"
    assert not knows(without, bodies[0])


def test_a_refused_request_leaves_no_form() -> None:
    using = codec()
    for changes in ({"shape": [2, 4]}, {"data": [1, 2, 3]}, {"datatype": "FP64"}, {"name": "y"}):
        body = orjson.dumps({"inputs": [TENSOR | changes]})
        assert whole(using, body)[0] == "refused"
        assert not knows(using, body)


@given(data=st.data(), base=st.sampled_from([BASE, WITH_ID]))
def test_no_change_of_a_few_bytes_means_something_else(data: st.DataObject, base: bytes) -> None:
    using = known(BASE, known(WITH_ID))
    piece = st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b'"data":[', b'"data":', b"]", b"[", b"null", b",", b'"', b"}", b":", b"1", b"-", b"\\", b" ", VALUE, b'"id":', b'{"id":"']),
    )  # fmt: skip
    text = bytearray(base)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 20))] = data.draw(piece)
    body = bytes(text)
    first = whole(using, body)
    assert first == ordinary(codec(), body)
    assert whole(using, body) == first


def test_answers_of_forms_do_not_mix() -> None:
    using = InferCodec(Shown([("x", "FP32", (-1, 4))], [("x", "FP32", (-1, 4)), ("y", "FP32", (-1, 4))]))
    outputs = ([{"name": "y"}], [{"name": "x", "parameters": {"binary_data": True}}], [{"name": "y"}, {"name": "x"}])
    bodies = [orjson.dumps({"inputs": [TENSOR], "outputs": one}) for one in outputs]
    for first, second in product(bodies, repeat=2):
        for body in (first, second):
            call, fresh = using.decode(body, None), InferCodec._decode_document(using, orjson.loads(body), body, None)
            assert call.outputs == fresh.outputs
            arrays = [call.feeds["x"]] * len(call.outputs)
            assert [bytes(piece) for piece in call.encode(arrays)[1]] == [
                bytes(piece) for piece in fresh.encode(arrays)[1]
            ]
