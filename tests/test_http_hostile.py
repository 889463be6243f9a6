"""What strangers and careless clients send over HTTP (S3, S4, S26, S28, S31, U4, U9): a real server, raw sockets.

After each test the server is the same process, its data folder holds no new file, and its log no secret.
"""

import json
import pickle
import struct
from contextlib import suppress
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Answer, Connection, request
from roost_process import RoostProcess, until

LIMIT = 1 << 20
CHUNKED = b"transfer-encoding: chunked"
PRIVATE = b"what-only-the-body-says"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with RoostProcess(folder, ROOST_LIMIT_UPLOAD_BYTES=str(LIMIT)) as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "one", models.add_one(folder / "one.onnx"), min_scale=1)
        yield server
        assert server.stop() == 0


@pytest.fixture
def server(running):
    before = files(running)
    yield running
    with Connection(running.port) as connection:
        connection.send(request(b"content-length: %d" % len(ADD_ONE), key=running.key, body=ADD_ONE))
        assert json.loads(connection.answer().body)["outputs"][0]["data"] == [2, 3, 4, 5]
    assert not running.events("replica_lost")
    until(lambda: files(running) == before, what="only the files from before")
    log = running.log_file.read_text()
    for secret in (running.key, running.operator_key, PRIVATE.decode()):
        assert secret not in log
    assert "Traceback" not in log
    assert all(json.loads(line)["message"] for line in log.splitlines()), "each line is one event"


def files(server: RoostProcess) -> set[str]:
    """All there is on disk, but for the journal and the database, which calls may write."""
    kept = (path for path in server.data.parent.rglob("*") if path.is_file())
    return {str(path) for path in kept if "journal" not in path.parts and not path.name.startswith("roost.db")}


def ask(server: RoostProcess, data: bytes) -> Answer:
    with Connection(server.port) as connection:
        connection.try_to_send(data)
        return connection.answer()


def code(answer: Answer) -> str:
    document = json.loads(answer.body)
    assert document["request_id"] == answer.headers["x-request-id"]
    for internal in ("Traceback", ".py", "roost_", "/tmp", "0x"):
        assert internal not in document["error"]
    return document["code"]


def upload(name: bytes, *headers: bytes, key: str | None, body: bytes = b"", query: bytes = b"") -> bytes:
    line = b"POST /api/v1/models/%b/versions%b HTTP/1.1" % (name, query)
    return request(*headers, line=line, key=key, body=body)


NAMES = {
    "parent": b"..",
    "dot": b".",
    "parent, encoded": b"%2e%2e%2f%2e%2e%2fetc",
    "parent, encoded twice": b"%252e%252e%252f",
    "parent, overlong UTF-8": b"%c0%ae%c0%ae%c0%af",
    "backslashes": b"..\\..\\x",
    "file URL": b"file:%2f%2f%2fetc%2fpasswd",
    "web URL": b"http:%2f%2f169.254.169.254%2f",
    "NUL": b"a%00b",
    "slash, encoded": b"a%2fb",
    "device of Windows": b"CON",
    "300 characters": b"a" * 300,
    "64 characters": b"a" * 64,
    "emoji": b"%f0%9f%90%93",
    "NFC": b"caf%c3%a9",
    "NFD": b"cafe%cc%81",
    "right-to-left mark": b"a%e2%80%8fb",
    "space": b"a%20b",
    "line end": b"a%0d%0ab",
    "hyphen first": b"-a",
    "hyphen last": b"a-",
    "underscore": b"a_b",
    "upper case": b"Model",
    "template": b"$%7bjndi:ldap:%7d",
    "an allowed character, encoded": b"%61bc",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_s3_u9_a_name_that_is_no_label_is_refused_before_the_body_and_touches_no_file(server, name):
    answer = ask(server, upload(name, b"content-length: 1000", b"expect: 100-continue", key=server.key))
    assert (answer.status, code(answer)) in {(400, "invalid_name"), (400, "invalid_request")}
    for line in (b"GET /api/v1/models/%b HTTP/1.1", b"DELETE /api/v1/models/%b HTTP/1.1"):
        answer = ask(server, request(line=line % name, key=server.key))
        assert answer.status == 400
        code(answer)
    answer = ask(server, request(line=b"GET /t/acme/v2/models/%b HTTP/1.1" % name, key=server.key))
    assert answer.status == 404
    code(answer)
    answer = ask(server, request(line=b"GET /api/v1/models?tenant=%b HTTP/1.1" % name, key=server.operator_key))
    taken = name == b"%61bc"  # in a query, an escape is what it stands for
    assert (answer.status, code(answer)) == ((404, "not_found") if taken else (400, "invalid_name"))


@pytest.mark.parametrize("path", [b"../x", b"x/../../y", b"/etc/passwd", b"a/b"])
def test_s3_a_path_that_climbs_leads_nowhere(server, path):
    answer = ask(server, upload(path, b"content-length: 0", key=server.key))
    assert (answer.status, code(answer)) == (404, "not_found")


@pytest.mark.parametrize(
    "kind", [b"application/x-pickle", b"application/python-pickle", b"application/vnd.python.pickle"]
)
def test_s4_a_pickle_is_never_taken(server, kind):
    content = pickle.dumps({"inputs": PRIVATE})
    headers = (b"content-length: %d" % len(content), b"content-type: " + kind)
    for data in (request(*headers, key=server.key, body=content), upload(b"x", *headers, key=server.key, body=content)):
        answer = ask(server, data)
        assert (answer.status, code(answer)) == (415, "unsupported_media_type")


def test_s4_a_pickle_that_says_it_is_something_else_is_not_read_as_one(server):
    content = pickle.dumps({"inputs": PRIVATE})
    length = b"content-length: %d" % len(content)
    answer = ask(server, request(length, b"content-type: application/json", key=server.key, body=content))
    assert (answer.status, code(answer)) == (400, "invalid_json")
    answer = ask(server, upload(b"x", length, b"content-type: application/octet-stream", key=server.key, body=content))
    assert (answer.status, code(answer)) == (422, "not_onnx")


def test_s4_a_form_is_no_upload_however_long_its_boundary(server):
    for size in (10, 30_000):
        boundary = b"b" * size
        body = b'--%b\r\ncontent-disposition: form-data; name="f"\r\n\r\n%b\r\n--%b--\r\n' % (
            boundary,
            PRIVATE,
            boundary,
        )
        kind = b"content-type: multipart/form-data; boundary=" + boundary
        answer = ask(server, upload(b"x", b"content-length: %d" % len(body), kind, key=server.key, body=body))
        assert (answer.status, code(answer)) == (415, "unsupported_media_type")
    kind = b"content-type: multipart/form-data; boundary=" + b"b" * 1_000_000
    with Connection(server.port) as connection:
        connection.try_to_send(upload(b"x", b"content-length: 0", kind, key=server.key))
        with suppress(ConnectionResetError):  # closed while it was still being sent
            assert code(connection.answer()) == "head_too_large"


@pytest.mark.parametrize("key", [None, "rst_" + "0" * 60], ids=["no key", "wrong key"])
@pytest.mark.parametrize("framing", [b"content-length: 2147483648", CHUNKED], ids=["length", "chunked"])
def test_s26_two_gigabytes_without_a_key_are_refused_from_the_headers(server, key, framing):
    with Connection(server.port) as connection:
        connection.send(upload(b"x", framing, key=key))
        answer = connection.answer()  # not a byte of the body was sent
        assert (answer.status, code(answer)) == (401, "unauthenticated")
        assert answer.headers["connection"] == "close"
        for _ in range(16):
            connection.try_to_send(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        assert not list((server.data / "staging").iterdir())


def test_s28_http2_is_not_spoken(server):
    def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
        return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
    resets = b"".join(frame(1, 5, n, b"\x82\x84\x86") + frame(3, 0, n, bytes(4)) for n in range(1, 20_001, 2))
    continuations = frame(1, 0, 1, b"\x82") + b"".join(frame(9, 0, 1, bytes(100)) for _ in range(10_000))
    for flood in (resets, continuations):
        with Connection(server.port) as connection:
            connection.try_to_send(preface + flood)
            try:
                answer = connection.answer()
            except ConnectionResetError:
                continue
            assert (answer.status, code(answer)) == (400, "bad_http")
            assert connection.is_closed()


INJECTED = {
    "CR LF in a path": request(line=b"GET /api/v1/models/a%0d%0aINJECTED HTTP/1.1"),
    "CR LF in a query": request(line=b"GET /api/v1/models?tenant=a%0d%0aINJECTED HTTP/1.1"),
    "CR LF in a prediction's path": request(line=b"POST /t/acme/v2/models/a%0d%0aINJECTED/infer HTTP/1.1"),
    "ANSI in a path": request(line=b"GET /api/v1/models/%1b[31mINJECTED HTTP/1.1"),
    "ANSI in a request id": request(b"x-request-id: \x1b[31mINJECTED", line=b"GET /api/v1/info HTTP/1.1"),
    "a long request id": request(b"x-request-id: INJECTED" + b"a" * 1000, line=b"GET /api/v1/info HTTP/1.1"),
    "JSON in a request id": request(b'x-request-id: ","event":"INJECTED', line=b"GET /api/v1/info HTTP/1.1"),
    "quotes in an agent": request(b'user-agent: "}\\n{"event":"INJECTED"}', line=b"GET /api/v1/info HTTP/1.1"),
    "a megabyte": request(b"x-a: INJECTED" + b"a" * 1_000_000, line=b"GET /api/v1/info HTTP/1.1"),
    "bare LF": request(b'x-a: b\n{"event":"INJECTED"}', line=b"GET /api/v1/info HTTP/1.1"),
}


@pytest.mark.parametrize("case", INJECTED)
def test_s31_nothing_of_a_client_breaks_a_line_of_the_log_or_a_header(server, case):
    begin = server.log_file.stat().st_size
    data = INJECTED[case].replace(
        b"host: roost\r\n", b"host: roost\r\nauthorization: Bearer %b\r\n" % server.key.encode()
    )
    with Connection(server.port) as connection:
        connection.try_to_send(data)
        try:
            answer = connection.answer()
        except ConnectionResetError:
            assert len(data) > 1_000_000
        else:
            assert answer.status in (200, 400, 404, 431)
            assert "INJECTED" not in "".join(answer.headers) + "".join(answer.headers.values())
    new = server.log_file.read_bytes()[begin:]
    assert b"\x1b" not in new
    assert len(new) < 10_000
    assert not any(line.startswith(b"INJECTED") or b'"event": "INJECTED"' in line for line in new.splitlines())


def test_s31_a_body_that_fails_is_not_in_the_log_or_the_error(server):
    body = b'{"name":"a\\r\\nb\\u001b[31m","scopes":["%b"]}' % PRIVATE
    head = (b"content-length: %d" % len(body), b"content-type: application/json")
    answer = ask(server, request(*head, line=b"POST /api/v1/keys HTTP/1.1", key=server.key, body=body))
    assert answer.status == 400
    code(answer)
    assert PRIVATE not in answer.body
    assert b"\x1b" not in answer.body


def test_u4_a_length_over_the_limit_is_refused_before_the_body(server):
    for size in (LIMIT + 1, (2 << 30) + 1, 2**63 - 1):
        with Connection(server.port) as connection:
            connection.send(upload(b"x", b"content-length: %d" % size, b"expect: 100-continue", key=server.key))
            answer = connection.answer()
            assert (answer.status, code(answer)) == (413, "model_too_large")


def test_u4_a_chunked_upload_is_refused_at_the_limit(server):
    model = Path(server.data.parent / "one.onnx").read_bytes()
    with Connection(server.port) as connection:
        connection.send(upload(b"x", CHUNKED, key=server.key))
        for content in (model, *[bytes(1 << 18)] * 8):
            connection.try_to_send(b"%x\r\n%b\r\n" % (len(content), content))
        answer = connection.answer()
        assert answer.status == 413
        assert code(answer).endswith("too_large")
        assert connection.is_closed()


def test_u4_a_length_that_lies_leaves_nothing(server):
    model = Path(server.data.parent / "one.onnx").read_bytes()
    with Connection(server.port) as connection:  # says more than it sends, and goes
        connection.send(upload(b"x", b"content-length: %d" % (len(model) + 100), key=server.key, body=model))
    answer = ask(server, upload(b"x", b"content-length: 20", key=server.key, body=model))  # says less
    assert answer.status in (400, 422)
    assert ask(server, request(line=b"GET /api/v1/models/x HTTP/1.1", key=server.key)).status == 404
