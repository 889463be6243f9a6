"""Predictions made up by a machine: what is right is served exactly, what is damaged is 200 or a clear 4xx, never ours."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from faulty_calls import BINARY, JSON, Served, all_kinds, judge, request, serve, tensor

TINY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
RANGES = {
    "INT8": st.integers(-128, 127),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BOOL": st.booleans(),
}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**64, -1, 0, 1, 10**40])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["x", "y", "FP32", "BYTES", "FP16", "inputs", "data", "shared_memory_region", "binary_data_size"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    with serve(folder, all_kinds(folder)) as made:
        yield made


@TINY
@given(data=st.data(), datatype=st.sampled_from(sorted(RANGES)), binary=st.booleans())
def test_numbers_come_back_exactly(served: Served, data: st.DataObject, datatype: str, binary: bool):
    values = data.draw(st.lists(RANGES[datatype], min_size=1, max_size=300))
    dtype = {"FP64": "<f8", "BOOL": "?"}.get(datatype, datatype.lower())
    raw = np.array(values, dtype).tobytes()
    one: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [len(values)]}
    if binary:
        head = request(one | {"parameters": {"binary_data_size": len(raw)}}, parameters={"binary_data_output": True})
        headers = {"content-type": BINARY, "inference-header-content-length": str(len(head))}
        response = served.infer(datatype.lower(), head + raw, headers)
        assert judge(response), response.content
        assert response.content[int(response.headers["inference-header-content-length"]) :] == raw
    else:
        response = served.infer(datatype.lower(), request(one | {"data": values}))
        document = judge(response)
        assert document, response.content
        assert np.array(document["outputs"][0]["data"], dtype).tobytes() == raw
    by_column = judge(served.predict(datatype.lower(), json.dumps({"inputs": values}).encode()))
    assert by_column == {"outputs": values}


@TINY
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_texts_come_back_exactly(served: Served, texts: list[str]):
    one = {"name": "text", "datatype": "BYTES", "shape": [len(texts)]}
    answer = judge(served.infer("text", request(one | {"data": texts})))
    assert answer
    assert answer["outputs"][0]["data"] == texts
    raw = b"".join(struct.pack("<I", len(each)) + each for each in (text.encode() for text in texts))
    head = request(one | {"parameters": {"binary_data_size": len(raw)}})
    headers = {"content-type": BINARY, "inference-header-content-length": str(len(head))}
    answer = judge(served.infer("text", head + raw, headers))
    assert answer
    assert answer["outputs"][0]["data"] == texts


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def change(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = change(node[path[0]], path[1:], value)
    return copy


WHOLE = {
    "id": "1", "parameters": {"p": 1}, "inputs": [tensor(parameters={"q": True})],
    "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
}  # fmt: skip
ROWS = {"instances": [{"x": [1, 2, 3, 4]}, {"x": [5, 6, 7, 8]}], "signature_name": "s", "parameters": {}}


def expected(document: Any) -> list[float] | None:
    """What `one` answers to this, as a reader that knows nothing of Roost understands the protocol; None = nothing."""
    try:
        (one,) = document["inputs"]
        flat = np.array(one["data"], float).ravel()
        plain = {"name": "x", "datatype": "FP32"}.items() <= one.items() and math.prod(one["shape"]) == len(flat)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (flat.astype("f4") + np.float32(1)).tolist() if plain else None


@settings(TINY, max_examples=400)
@given(data=st.data(), v1=st.booleans())
def test_a_document_with_junk_in_some_place_is_served_right_or_refused(served: Served, data: st.DataObject, v1: bool):
    document: Any = ROWS if v1 else WHOLE
    for _ in range(data.draw(st.integers(1, 2))):
        document = change(document, data.draw(st.sampled_from(places(document))), data.draw(JUNK))
    body = json.dumps(document).encode()
    if v1:
        judge(served.predict("one", body))
        return
    answer = judge(served.infer("one", body))
    if answer is not None:
        (output,) = answer["outputs"]
        # The same FP32 numbers: their shortest text may stand for another number to a reader of doubles.
        wanted = expected(document)
        assert wanted is not None, document
        assert np.array(output["data"], "f4").tolist() == wanted, document


@settings(TINY, max_examples=400)
@given(data=st.data(), pair=st.booleans())
def test_a_body_with_damaged_bytes_is_answered_or_refused(served: Served, data: st.DataObject, pair: bool):
    if pair:
        sizes = ("a", "FP32", 8), ("b", "INT64", 16)
        head = request(
            *({"name": n, "datatype": t, "shape": [1, 2], "parameters": {"binary_data_size": s}} for n, t, s in sizes)
        )
        body = bytearray(head + struct.pack("<2f2q", 1, 2, 3, 4))
    else:
        head = json.dumps(WHOLE).encode()
        body = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        length = data.draw(st.sampled_from([0, 1, 1, 2, 8]))
        body[at : at + length] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"]", b",", b"\xff", b"1e9", b"-"])
        )
    claimed = data.draw(
        st.sampled_from([len(head), len(head), 0, len(body), len(body) + 1, 2**64]) | st.integers(0, 400)
    )
    headers = {"content-type": BINARY if pair else JSON} | (
        {"inference-header-content-length": str(claimed)} if pair else {}
    )
    judge(served.infer("pair" if pair else "one", bytes(body), headers))


@TINY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["content-type", "content-encoding", "accept-encoding", "inference-header-content-length",
                             "x-request-id", "traceparent", "expect", "te", "accept", "x-anything", "roost-service-secret"]),
            st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b >= 32 and b != 127).strip()),
        ),
        max_size=6,
    )
)  # fmt: skip
@example([("accept-encoding", b"gzip;q=nan, deflate;q=inf")])
@example([("content-encoding", b"\xc3\xa9")])
def test_headers_of_any_bytes_are_taken_or_refused(served: Served, headers: list[tuple[str, bytes]]):
    sent = [(name.encode(), value) for name, value in headers]
    response = served.infer("one", request(), sent)
    if response.status_code != 417:
        judge(response)
