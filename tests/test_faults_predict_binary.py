"""The binary extension's lies (P7), content headers (P6) and compressed bodies (P9), against a real server."""

import gzip
import json
import struct
import zlib
from itertools import product

import pytest

from faulty_calls import BINARY, JSON, Served, all_kinds, assert_refused, judge, refusal, request, serve, tensor
from http_raw import Connection
from http_raw import request as raw_request

LENGTH = "Inference-Header-Content-Length"
RAW = struct.pack("<4f", 1, 2, 3, 4)
LIMIT = 4 << 20
DECODED_LIMIT = 256 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("binary")
    with serve(folder, all_kinds(folder), ROOST_LIMIT_REQUEST_BYTES=str(LIMIT)) as made:
        yield made


def binary(size: object = 16, **changes) -> bytes:
    return request(tensor(data=None, parameters={"binary_data_size": size}, **changes))


HEAD = binary()
BODY = HEAD + RAW


def send(served: Served, body: bytes, *lengths: object, model: str = "one"):
    return served.infer(model, body, [("content-type", BINARY), *((LENGTH, str(each)) for each in lengths)])


def test_the_body_that_all_these_are_made_from_is_served(served: Served):
    response = send(served, BODY, len(HEAD))
    assert response.json()["outputs"][0]["data"] == [2, 3, 4, 5]


LENGTHS = [
    "abc", "-1", "+5", "1.5", "1e2", "0x10", "", "1_0", "٣", "9" * 30, len(BODY) + 1, 2**31, 2**32, 2**63, 2**64,
    len(HEAD) - 1, len(HEAD) + 1, 1, len(BODY), f"{len(HEAD)}, {len(HEAD)}", f"{len(HEAD)};", f"[{len(HEAD)}]",
]  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS)
def test_p7_a_header_length_that_lies_is_refused(served: Served, length: object):
    headers = [(b"content-type", BINARY.encode()), (LENGTH.encode(), str(length).encode())]
    assert_refused(served.infer("one", BODY, headers))


def test_p7_the_header_twice_or_absent_is_refused(served: Served):
    assert_refused(send(served, BODY, len(HEAD), len(HEAD)))
    assert_refused(send(served, BODY, len(HEAD), 5))
    assert_refused(send(served, BODY))
    assert_refused(send(served, HEAD))


@pytest.mark.parametrize("size", [15, 17, 0, -1, 12, 20, "16", 16.0, True, None, [16], {}, 2**31, 2**63, 2**64, 10**30])
def test_p7_a_binary_size_that_lies_is_refused(served: Served, size: object):
    head = binary(size)
    assert_refused(send(served, head + RAW, len(head)))


def test_p7_what_is_too_short_too_long_or_said_twice_is_refused(served: Served):
    for body in (HEAD, HEAD + RAW[:-1], BODY + b"\0", BODY + RAW, BODY + BODY):
        assert_refused(send(served, body, len(HEAD)))
    both = request(tensor(parameters={"binary_data_size": 16}))
    assert_refused(send(served, both + RAW, len(both)), field="inputs[0]")
    plain = request()
    assert_refused(send(served, plain + RAW, len(plain)), says="16 bytes")


def test_p7_two_inputs_may_not_share_bytes_nor_leave_a_hole(served: Served):
    first = {"name": "a", "datatype": "FP32", "shape": [1, 2]}
    second = {"name": "b", "datatype": "INT64", "shape": [1, 2]}
    data = struct.pack("<2f2q", 1, 2, 10, 20)
    for sizes, tail in product([(8, 16), (16, 8), (8, 8), (24, 0), (0, 24), (8, 17)], [data, data[:16], data + b"\0"]):
        one, two = (
            {**each, "parameters": {"binary_data_size": s}} for each, s in zip((first, second), sizes, strict=True)
        )
        head = request(one, two)
        response = send(served, head + tail, len(head), model="pair")
        if sizes == (8, 16) and tail == data:
            assert [o["data"] for o in response.json()["outputs"]] == [[11, 22], [-9, -18]]
        else:
            assert_refused(response)


TEXTS = {
    "ends inside a length": b"\x01\x00\x00",
    "ends inside an element": b"\x05\x00\x00\x00abcd",
    "length of 4 GB": b"\xff\xff\xff\xff",
    "length of 2 GB": b"\xff\xff\xff\x7fa",
    "not UTF-8": b"\x01\x00\x00\x00\xff",
    "encoded surrogate": b"\x03\x00\x00\x00\xed\xa0\x80",
    "two elements": b"\x01\x00\x00\x00a\x01\x00\x00\x00b",
    "none": b"",
    "big-endian length": b"\x00\x00\x00\x01a",
}


@pytest.mark.parametrize("case", TEXTS)
def test_p7_texts_with_bad_lengths_are_refused(served: Served, case: str):
    raw = TEXTS[case]
    head = request({"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}})
    assert_refused(send(served, head + raw, len(head), model="text"))


def test_p7_every_value_of_half_precision_and_odd_booleans(served: Served):
    raw = struct.pack("<65536H", *range(65536))
    head = request(
        {"name": "x", "datatype": "FP16", "shape": [65536], "parameters": {"binary_data_size": len(raw)}},
        parameters={"binary_data_output": True},
    )
    response = send(served, head + raw, len(head), model="fp16")
    assert judge(response)
    assert response.content[int(response.headers[LENGTH]) :] == raw
    sent = request({"name": "x", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}})
    assert_refused(send(served, sent + b"\0\0", len(sent), model="fp16"), field="outputs", says="FP16|binary")
    for byte in range(256):
        head = request({"name": "x", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}})
        response = send(served, head + bytes([byte]), len(head), model="bool")
        if byte < 2:
            assert response.json()["outputs"][0]["data"] == [bool(byte)]
        else:
            assert_refused(response, says="BOOL")


@pytest.mark.parametrize("size", [0, 1, 3, 15, 16, 17, 32, 4096])
def test_p7_a_raw_body_is_rows_or_refused(served: Served, size: int):
    response = send(served, b"\0" * size, 0)
    if size % 16:
        assert_refused(response, says="[-1, 4]")
    else:
        document = judge(response)
        assert document
        assert document["outputs"][0]["shape"] == [size // 16, 4]
        assert response.content[int(response.headers[LENGTH]) :] == struct.pack("<f", 1.0) * (size // 4)
    assert_refused(send(served, b"\0" * size, 0, model="pair"), says="one input")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 200), (JSON, 200), (JSON.upper(), 200), (f"{JSON}; charset=utf-8", 200), (f'{JSON}; charset="UTF-8"', 200),
        (f"{JSON};charset=us-ascii", 200), (BINARY, 200), ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415), ("text/json", 415), ("", 415), ("json", 415), (f"{JSON}; charset=utf-16", 415),
        (f"{JSON}; charset=latin-1", 415), (f"{JSON}; charset=", 415), (f"{JSON}, {JSON}", 415), (f"{JSON}x", 415),
        ("multipart/form-data; boundary=x", 415), ("application/x-python-pickle", 415), ("application/*", 415),
        ("*/*", 415), ("application/grpc", 415), (f"x{JSON}", 415), ("é".encode().decode("latin-1"), 415),
    ],
)  # fmt: skip
def test_p6_kinds_of_body(served: Served, kind: str | None, status: int):
    """No type at all and curl's form type are taken for JSON on purpose: well-known clients say those."""
    for path in ("/t/acme/v2/models/one/infer", "/t/acme/v1/models/one:predict"):
        body = request() if "v2" in path else b'{"instances":[[1,2,3,4]]}'
        headers = [] if kind is None else [(b"content-type", kind.encode("latin-1"))]
        response = served.post(path, body, headers)
        if status == 200:
            assert judge(response), response.content
        else:
            assert_refused(response, 415, field="content-type")
    assert_refused(served.infer("one", request(), [("content-type", JSON), ("content-type", JSON)]), 415)


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


GOOD = request()
ENCODED = {
    "gzip": ("gzip", gzip.compress(GOOD), 200),
    "deflate": ("deflate", zlib.compress(GOOD), 200),
    "deflate without a head": ("deflate", raw_deflate(GOOD), 200),
    "identity": ("identity", GOOD, 200),
    "in capitals": ("GZIP", gzip.compress(GOOD), 200),
    "cut": ("gzip", gzip.compress(GOOD)[:-1], 400),
    "wrong checksum": ("gzip", gzip.compress(GOOD)[:-8] + b"\0" * 8, 400),
    "bytes behind": ("gzip", gzip.compress(GOOD) + b"x", 400),
    "two streams": ("gzip", gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]), 400),
    "not compressed": ("gzip", GOOD, 400),
    "nothing": ("gzip", b"", 400),
    "the other one": ("deflate", gzip.compress(GOOD), 400),
    "twice in fact": ("gzip", gzip.compress(gzip.compress(GOOD)), 400),
    "twice by word": ("gzip, gzip", gzip.compress(gzip.compress(GOOD)), 415),
    "both": ("deflate, gzip", gzip.compress(zlib.compress(GOOD)), 415),
    "brotli": ("br", GOOD, 415),
    "zstd": ("zstd", GOOD, 415),
    "unknown": ("roost", GOOD, 415),
    "over the limit as sent": ("identity", b" " * (LIMIT + 1), 413),
}


@pytest.mark.parametrize("case", ENCODED)
def test_p9_encodings(served: Served, case: str):
    encoding, body, status = ENCODED[case]
    response = served.infer("one", body, {"content-type": JSON, "content-encoding": encoding})
    if status == 200:
        assert response.json()["outputs"][0]["data"] == [2, 3, 4, 5]
    else:
        assert_refused(response, status)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_p9_a_bomb_is_stopped_at_the_decoded_limit(served: Served, encoding: str):
    encoder = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    chunk = b" " * (1 << 20)
    body = b"".join(encoder.compress(chunk) for _ in range(300)) + encoder.compress(GOOD) + encoder.flush()
    assert len(body) * 900 < 300 << 20
    response = served.infer("one", body, {"content-type": JSON, "content-encoding": encoding})
    assert_refused(response, 413, says=str(DECODED_LIMIT))
    # An answer may be compressed; what it was made from may not grow by it.
    echo = {
        "content-type": JSON,
        "content-encoding": encoding,
        "accept-encoding": "br;q=1, gzip;q=0.1, *;q=nan, deflate;q=x",
    }
    assert served.infer("one", ENCODED[encoding][1], echo).json()["outputs"][0]["data"] == [2, 3, 4, 5]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_p11_other_methods_are_refused_with_the_one_that_works(served: Served, method: str):
    for path in (
        "/t/acme/v2/models/one/infer",
        "/t/acme/v1/models/one:predict",
        "/t/acme/v2/models/one/versions/1/infer",
    ):
        response = served.http.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        if method != "HEAD":
            assert refusal(response)["code"] == "method_not_allowed"


PATHS = [
    "//t/acme/v2/models/one/infer", "/t//acme/v2/models/one/infer", "/t/acme//v2/models/one/infer",
    "/t/acme/./v2/models/one/infer", "/t/acme/v2/models/one/infer/", "/t/acme/v2/models/one/infer//",
    "/t/acme/v2/models/../models/one/infer", "/t/acme/v2/models/%2e%2e/models/one/infer", "/t/acme%2fv2%2f..%2fmodels/one/infer",
    "/t/acme/v2/models/one/infer%00", "/t/acme/v2/models/one/infer;x", "/t/acme/v2/models/ONE/infer",
    "/t/ACME/v2/models/one/infer", "/t/acme/v2/models/one/versions/01/infer", "/t/acme/v2/models/one/versions/0/infer",
    "/t/acme/v2/models/one/versions/-1/infer", "/t/acme/v2/models/one/versions/9999999999/infer",
    "/t/acme/v2/models/one/versions/%31%00/infer", "/t/acme/v3/models/one/infer", "/t/acme/v1/models/one:predict:predict",
    "/t/acme/v2/models/" + "a" * 10_000 + "/infer", "/t/acme/v2/models/one/versions/2/infer",
]  # fmt: skip


def test_p11_paths_that_only_resemble_ours_are_not_found(served: Served):
    headers = (b"content-length: %d" % len(GOOD), b"content-type: application/json")
    for path in PATHS:
        line = b"POST %b HTTP/1.1" % path.encode()
        with Connection(served.server.port) as connection:  # a client library would tidy the path up
            connection.send(raw_request(*headers, line=line, key=served.key, body=GOOD))
            answer = connection.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "not_found"), (path, answer)


def test_a_percent_encoded_path_means_what_it_says(served: Served):
    response = served.post("/t/acme/v2/models/%6Fne/infer", GOOD)
    assert response.status_code == 200, json.loads(response.content)
