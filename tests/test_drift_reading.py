"""From the bodies of calls to columns: JSON, binary and compressed alike, and what cannot be read says so."""

import gzip
import json
import math
import struct
import zlib

import pytest

from roost_gateway.drift.reading import MOST_ROWS, read_call, read_document
from roost_gateway.open_inference import Unreadable

INPUTS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, None]]}]}
OUTPUTS = {
    "outputs": [
        {"name": "kind", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        {"name": "p", "datatype": "FP32", "shape": [2, 3], "data": [0.1, 0.7, 0.2, 0.5, 0.3, 0.2]},
    ]
}
ANSWER = json.dumps(OUTPUTS).encode()


def read(request: bytes, *headers, answer: bytes = ANSWER, answer_headers=(), skip=()):
    return read_call(request, headers, answer, answer_headers, skip=skip)


def binary(tensors: list[tuple[dict, bytes]]) -> tuple[bytes, tuple[bytes, bytes]]:
    head = json.dumps(
        {"inputs": [{**about, "parameters": {"binary_data_size": len(raw)}} for about, raw in tensors]}
    ).encode()
    return head + b"".join(raw for _, raw in tensors), (b"Inference-Header-Content-Length", b"%d" % len(head))


def test_json_gives_a_column_for_each_element_and_null_is_missing():
    found = read(json.dumps(INPUTS).encode())
    assert (found.rows, found.answers) == (2, ["a", "b"])
    last = found.columns.pop("input.x[1]")
    assert last[0] == 2
    assert math.isnan(last[1])
    assert found.columns == {
        "input.x[0]": [1, 3],
        "output.kind": ["a", "b"],
        "output.p[0]": [0.1, 0.5],
        "output.p[1]": [0.7, 0.3],
        "output.p[2]": [0.2, 0.2],
        "output.p.class": [1, 0],
    }


@pytest.mark.parametrize(
    ("datatype", "form"),
    [("FP16", "e"), ("FP32", "f"), ("FP64", "d"), ("INT8", "b"), ("INT64", "q"), ("UINT16", "H"), ("BOOL", "?")],
)
def test_binary_tensors_are_read_one_after_the_other(datatype, form):
    body, header = binary(
        [
            ({"name": "x", "datatype": datatype, "shape": [3]}, struct.pack(f"<3{form}", 1, 0, 1)),
            ({"name": "s", "datatype": "BYTES", "shape": [2, 1]}, b"\x02\0\0\0hi\0\0\0\0"),
        ]
    )
    columns = read(body, header).columns
    assert (columns["input.x"], columns["input.s"]) == ([1, 0, 1], ["hi", ""])


@pytest.mark.parametrize(("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_answers_are_read(coding, pack):
    zipped = ((b"content-encoding", coding),)
    assert read(json.dumps(INPUTS).encode(), answer=pack(ANSWER), answer_headers=zipped).answers == ["a", "b"]


def test_a_long_row_is_told_by_mean_and_deviation_and_a_long_call_by_its_first_rows():
    data = [0.0, 2.0] * 50 * 70
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [70, 100], "data": data}]}).encode()
    found = read(body)
    assert found.rows == MOST_ROWS
    assert found.columns["input.x.mean"] == [1] * MOST_ROWS
    assert found.columns["input.x.deviation"] == [1] * MOST_ROWS
    assert read_document(body).rows == 70


def test_what_is_skipped_is_in_no_column_and_in_no_answer():
    found = read(json.dumps(INPUTS).encode(), skip=("x", "kind"))
    assert set(found.columns) == {"output.p[0]", "output.p[1]", "output.p[2]", "output.p.class"}
    assert found.answers == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"instances": [[1]]}',
        b'{"inputs": 3}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["a"]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": ["a"], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1e999], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1], 2]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP99", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
    ],
)
def test_what_cannot_be_read_says_so(body):
    with pytest.raises(Unreadable):
        read(body)


def test_a_bomb_is_not_unpacked():
    zipped = gzip.compress(bytes(50_000_000))
    with pytest.raises(Unreadable, match="too large"):
        read(json.dumps(INPUTS).encode(), answer=zipped, answer_headers=((b"content-encoding", b"gzip"),))


def test_strange_shapes_give_no_columns_and_cost_nothing():
    for shape in ([10**12, 0], [-1, -2]):
        tensor = {"name": "x", "datatype": [], "shape": shape, "data": [1] * (2 if shape[0] < 0 else 0)}
        assert read_document(json.dumps({"inputs": [tensor]}).encode()).columns == {}
