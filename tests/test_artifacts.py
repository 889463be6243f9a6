"""The internal artifact door: who gets which bytes, whole or in part, and what becomes of those who are slow or gone."""

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from artifact_parts import IRIS, OTHER, SECRETS, bearer, path_of, serving_artifacts
from roost_gateway.artifacts import DownloadLimits
from roost_platform.domain.services import ServiceKey
from roost_platform.registry.store import DiskStore
from s3_faults import Fault
from s3_parts import PATIENT, SECRET_KEY, digest_of

IRIS_1 = b"the first version of iris" * 1000
IRIS_2 = b"the second version of iris"
THEIRS = b"what another tenant uploaded"
LARGE = os.urandom(1024) * (24 * 1024)
SERVICES = {IRIS: [IRIS_1, IRIS_2], OTHER: [THEIRS]}


@pytest.fixture(params=["disk", "bucket", "copy"])
def url(request, tmp_path):
    """A door in front of a folder, of a bucket, and of a bucket's copies."""
    if request.param == "disk":
        store = filled(DiskStore(tmp_path / "data"), tmp_path)
    else:
        s3 = request.getfixturevalue("s3")
        for content in (IRIS_1, IRIS_2, THEIRS):
            s3.put(content)
        store = s3.store()
        if request.param == "copy":
            for content in (IRIS_1, IRIS_2, THEIRS):
                store.fetch(digest_of(content))
    with serving_artifacts(store, SERVICES) as address:
        yield address


def filled(store: DiskStore, folder: Path, *contents: bytes) -> DiskStore:
    for content in contents or (IRIS_1, IRIS_2, THEIRS):
        path = folder / "staged"
        path.write_bytes(content)
        store.put(path, digest_of(content))
    return store


@pytest.fixture
def disk_url(tmp_path):
    with serving_artifacts(filled(DiskStore(tmp_path / "data"), tmp_path), SERVICES) as address:
        yield address


def get(url: str, content: bytes, key: ServiceKey = IRIS, **headers: str) -> httpx.Response:
    return httpx.get(url + path_of(content, key), headers=bearer(key) | headers, timeout=30)


def test_a_service_gets_its_versions(url):
    for content in (IRIS_1, IRIS_2):
        answer = get(url, content)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["etag"] == f'"{digest_of(content)}"'
        assert answer.headers["x-request-id"]
    head = httpx.head(url + path_of(IRIS_1), headers=bearer())
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(IRIS_1)), b"")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("bytes=0-", 0, None), ("bytes=20000-", 20000, None), ("bytes=5-9", 5, 10), ("bytes=24990-99999", 24990, None)],
)
def test_a_part_is_given_for_a_range(url, wanted, start, end):
    answer = get(url, IRIS_1, range=wanted)
    expected = IRIS_1[start:end]
    assert answer.content == expected
    if len(expected) < len(IRIS_1):
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(IRIS_1)}"
    assert answer.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("wanted", ["bytes=1-2,4-5", "bytes=-5", "lines=1-2", "bytes=x-", ""])
def test_a_range_of_no_use_here_gives_all(disk_url, wanted):
    answer = get(disk_url, IRIS_1, range=wanted)
    assert (answer.status_code, answer.content) == (200, IRIS_1)


@pytest.mark.parametrize("wanted", [f"bytes={len(IRIS_1)}-", "bytes=999999-", "bytes=9-5"])
def test_a_range_beyond_the_end_is_416(disk_url, wanted):
    answer = get(disk_url, IRIS_1, range=wanted)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(IRIS_1)}"
    assert set(answer.json()) == {"error", "code", "request_id"}
    assert answer.json()["code"] == "invalid_range"


def test_absent_and_not_yours_are_the_same_answer(disk_url):
    asked = [
        (path_of(THEIRS), bearer()),
        (path_of(b"nothing that was uploaded"), bearer()),
        (path_of(IRIS_1, ServiceKey("acme", "absent")), bearer(ServiceKey("acme", "absent"))),
        (path_of(IRIS_1, ServiceKey("nobody", "iris")), bearer(ServiceKey("nobody", "iris"))),
    ]
    answers = [httpx.get(disk_url + path, headers=headers | {"x-request-id": "r"}) for path, headers in asked]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.content for answer in answers} == {
        b'{"error":"there is nothing here","code":"not_found","request_id":"r"}'
    }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": SECRETS.of(IRIS)},
        {"authorization": "Bearer x"},
        {"authorization": f"Bearer {SECRETS.of(IRIS)[:-1]}"},
        {"authorization": f"Bearer {SECRETS.of(OTHER)}"},
        {"authorization": f"Basic {SECRETS.of(IRIS)}"},
        {"roost-service-secret": SECRETS.of(IRIS)},
    ],
)
def test_without_the_services_secret_nothing_is_given_or_told(disk_url, headers):
    """What is asked for may be there or not: the answer is the same."""
    headers = headers | {"x-request-id": "r"}
    paths = [path_of(IRIS_1), path_of(b"absent"), path_of(IRIS_1, ServiceKey("acme", "absent"))]
    answers = [httpx.get(disk_url + path, headers=headers) for path in paths]
    assert [answer.status_code for answer in answers[:2]] == [401, 401]
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json() == {
        "error": "the service's secret is missing or wrong",
        "code": "unauthenticated",
        "request_id": "r",
    }
    assert answers[0].headers["www-authenticate"] == "Bearer"


def test_a_secret_given_twice_is_none(disk_url):
    twice = [("authorization", f"Bearer {SECRETS.of(IRIS)}")] * 2
    assert httpx.get(disk_url + path_of(IRIS_1), headers=twice).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_there(disk_url, method):
    assert httpx.request(method, disk_url + path_of(IRIS_1), headers=bearer()).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/livez",
        "/metrics",
        "/v1/models",
        "/t/acme/v2/models/iris/infer",
        path_of(IRIS_1) + "/",
        path_of(IRIS_1).upper(),
        path_of(IRIS_1).replace("iris", "%69ris"),
        path_of(IRIS_1).replace("acme", "..%2facme"),
        "/internal/artifacts/acme/iris/../../../etc/passwd",
    ],
)
def test_nothing_else_is_served_here(disk_url, path):
    assert httpx.get(disk_url + path, headers=bearer()).status_code == 404


def test_a_redirect_leads_to_the_bucket_and_holds_no_secret(s3):
    s3.put(IRIS_1)
    with serving_artifacts(s3.store(), SERVICES, redirect=True) as url:
        answer = get(url, IRIS_1)
        assert (answer.status_code, answer.content) == (307, b"")
        location = answer.headers["location"]
        assert location.startswith(s3.proxy.url)
        assert SECRET_KEY not in location
        assert SECRETS.of(IRIS) not in location
        assert httpx.get(location, headers={"range": "bytes=7-"}).content == IRIS_1[7:]
        assert get(url, THEIRS).status_code == 404
        assert httpx.get(url + path_of(IRIS_1)).status_code == 401
        assert httpx.head(url + path_of(IRIS_1), headers=bearer()).status_code == 200


def test_a_folder_has_nowhere_to_redirect_to(tmp_path):
    with serving_artifacts(filled(DiskStore(tmp_path / "data"), tmp_path), SERVICES, redirect=True) as url:
        assert get(url, IRIS_1).content == IRIS_1


# What goes wrong.


def test_a_bucket_out_of_reach_is_said_plainly(s3):
    s3.put(IRIS_1)
    s3.proxy.faults.append(Fault("GET", answer=(503, "SlowDown"), times=1000))
    with serving_artifacts(s3.store(limits=replace(PATIENT, patience_s=0.3)), SERVICES) as url:
        answer = get(url, IRIS_1)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    document = answer.json()
    assert document.pop("request_id")
    assert document == {"error": "the store that holds models cannot be used right now", "code": "artifact_store"}


def test_a_file_that_is_gone_or_not_as_long_as_its_version_is_our_fault(s3):
    key = f"{s3.prefix}sha256/{digest_of(IRIS_1)[:2]}/{digest_of(IRIS_1)}"
    with serving_artifacts(s3.store(), SERVICES) as url:
        missing = get(url, IRIS_1)
        s3.client.put_object(Bucket=s3.place.bucket, Key=key, Body=IRIS_1 + b"more")
        damaged = get(url, IRIS_1)
    assert (missing.status_code, missing.json()["code"]) == (503, "artifact_missing")
    assert (damaged.status_code, damaged.json()["code"]) == (503, "artifact_damaged")


@pytest.mark.parametrize("fault", [{"reset_after": 1_000_000}, {"stall_after": 1_000_000}], ids=["reset", "silence"])
def test_a_transfer_that_breaks_is_cut_and_never_ends_as_if_it_were_whole(s3, fault):
    s3.put(LARGE)
    s3.proxy.faults.append(Fault("GET", **fault))
    with serving_artifacts(s3.store(limits=replace(PATIENT, silence_s=0.5)), {IRIS: [LARGE]}) as url:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            get(url, LARGE)
        assert get(url, LARGE, range="bytes=1000000-").content == LARGE[1_000_000:], "the next one goes on"


class CountingStore(DiskStore):
    """Counts the bytes that are read from it, and the readers that are open."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read = self.opened = 0
        self.closed = threading.Event()

    def open(self, digest, start=0):
        store, reader = self, super().open(digest, start)
        self.opened += 1
        read, close = reader.read, reader.close

        def counted(most):
            piece = read(most)
            store.read += len(piece)
            return piece

        def noted():
            close()
            store.closed.set()

        reader.read, reader.close = counted, noted
        return reader


def idle_reader(url: str) -> socket.socket:
    """A connection that asks and then reads nothing."""
    address = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address[0], int(address[1])))
    head = f"GET {path_of(LARGE)} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer()['authorization']}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def test_a_slow_reader_is_cut_off_and_little_is_read_for_it(tmp_path):
    store = filled(CountingStore(tmp_path / "data"), tmp_path, LARGE)
    with serving_artifacts(store, {IRIS: [LARGE]}, limits=DownloadLimits(send_s=0.3)) as url:
        connection = idle_reader(url)
        assert store.closed.wait(30)
        assert store.read < len(LARGE), "no more than the sockets' buffers and a few chunks"
        received = 0
        while piece := connection.recv(1 << 20):
            received += len(piece)
        assert received < len(LARGE)
        connection.close()


def test_no_more_downloads_than_allowed_and_the_next_is_told_to_come_again(tmp_path):
    store = filled(CountingStore(tmp_path / "data"), tmp_path, LARGE)
    limits = DownloadLimits(at_once=1, wait_s=0.2)
    with serving_artifacts(store, {IRIS: [LARGE, IRIS_2]}, limits=limits) as url:
        connection = idle_reader(url)
        connection.recv(1)
        answer = get(url, LARGE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["code"] == "artifact_busy"
        assert store.opened == 1
        connection.close()
        assert store.closed.wait(30), "who leaves gives up the turn"
        assert get(url, LARGE).content == LARGE
