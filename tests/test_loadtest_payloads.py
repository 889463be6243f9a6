"""Payloads made from a signature, read by the codec that serves models."""

import json

import numpy as np
import pytest

from roost_loadtest.payloads import from_file, generated
from shown_models import codec

DATATYPES = ["BOOL", "BYTES", "FP32", "FP64", *(f"{s}INT{n}" for s in ("", "U") for n in (8, 16, 32, 64))]


def decoded(payload, datatype, shape=(-1, 4)):
    """What the runtime makes of each body."""
    length = payload.headers.get("Inference-Header-Content-Length")
    return [codec(datatype, shape).decode(body, length).feeds["x"] for body in payload.bodies]


def signature(datatype="FP32", shape=(-1, 4)):
    return [{"name": "x", "datatype": datatype, "shape": list(shape)}]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", [*DATATYPES, "FP16"])
def test_the_runtime_reads_what_is_made_of_every_datatype(datatype, binary):
    if datatype == "FP16" and not binary:
        with pytest.raises(ValueError, match="x is FP16, which JSON cannot carry: use --binary"):
            generated(signature(datatype))
        return
    found = decoded(generated(signature(datatype), binary=binary, batch=3), datatype)
    assert {tensor.shape for tensor in found} == {(3, 4)}
    assert len({tensor.tobytes() for tensor in found}) > 1, "not all the same"


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_binary_tensors_and_json_hold_the_same_numbers(datatype):
    as_json, as_binary = (generated(signature(datatype), seed=3, binary=binary) for binary in (False, True))
    for one, other in zip(decoded(as_json, datatype), decoded(as_binary, datatype), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_makes_the_same_bodies_and_another_one_others():
    assert generated(signature(), seed=1) == generated(signature(), seed=1)
    assert generated(signature(), seed=1).bodies != generated(signature(), seed=2).bodies


def test_one_header_tells_where_all_binary_bodies_have_their_tensors():
    """Words differ in length, and with them the figures in the JSON head: it is filled up with blanks."""
    payload = generated([*signature("BYTES", (40,)), {"name": "y", "datatype": "BF16", "shape": [2]}], binary=True)
    length = int(payload.headers["Inference-Header-Content-Length"])
    heads = [json.loads(body[:length]) for body in payload.bodies]
    assert all(head["parameters"] == {"binary_data_output": True} for head in heads)
    for head, body in zip(heads, payload.bodies, strict=True):
        assert sum(each["parameters"]["binary_data_size"] for each in head["inputs"]) == len(body) - length


def test_large_tensors_get_fewer_bodies():
    assert len(generated(signature("BOOL", (1_000_000,)), binary=True).bodies) == 2
    assert len(generated(signature("BOOL", (3_000_000,)), binary=True).bodies) == 1


def test_a_datatype_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="input x has a datatype FP8"):
        generated(signature("FP8"))


def test_a_file_is_one_request_or_one_a_line(tmp_path):
    one, lines = tmp_path / "one.json", tmp_path / "many.jsonl"
    one.write_text('{\n"inputs": []\n}')
    lines.write_text('{"inputs":[1]}\n\n{"inputs":[2]}\n')
    assert from_file(one).bodies == (b'{\n"inputs": []\n}',)
    assert from_file(lines).bodies == (b'{"inputs":[1]}', b'{"inputs":[2]}')
    assert from_file(lines).headers == {"Content-Type": "application/json"}
    assert from_file(lines).source == "many.jsonl"


@pytest.mark.parametrize(("name", "content", "says"), [("a.json", "x", "request 1 is no JSON"), ("a.jsonl", "", "no request"), ("b.jsonl", "{}\n{", "request 2 is")])  # fmt: skip
def test_a_file_that_is_no_request_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=says):
        from_file(tmp_path / name)
