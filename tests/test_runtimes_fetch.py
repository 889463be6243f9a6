"""Fetching a model's file from a real artifact door, with what networks do in between; nothing but the whole file counts."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from artifact_parts import IRIS, OTHER, SECRETS, path_of, serving_artifacts
from roost_platform.registry.store import DiskStore
from roost_runtimes.fetch import Artifact, Fetch, FetchError, FetchLimits
from s3_faults import Fault, FaultProxy
from s3_parts import digest_of

CONTENT = os.urandom(1024) * (9 * 1024)
PATIENT = FetchLimits(silence_s=10, patience_s=60, refused_s=60)


class Redirecting(BaseHTTPRequestHandler):
    to: str

    def do_GET(self):
        self.send_response(307)
        self.send_header("location", self.to + self.path)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """The test says what matters."""


@contextmanager
def redirecting_to(url: str) -> Iterator[str]:
    """A server whose every answer is a redirect to the same path at `url`."""
    server = HTTPServer(("127.0.0.1", 0), type("To", (Redirecting,), {"to": url}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """A door with one version, and its store's folder."""
    folder = tmp_path_factory.mktemp("door")
    store = DiskStore(folder)
    (folder / "staged").write_bytes(CONTENT)
    store.put(folder / "staged", digest_of(CONTENT))
    with serving_artifacts(store, {IRIS: [CONTENT, b"not in the store"]}) as url:
        yield url


@pytest.fixture
def proxy(door):
    with FaultProxy(door) as running:
        yield running


def artifact(url: str, content: bytes = CONTENT, **changes) -> Artifact:
    made = Artifact(url + path_of(content), digest_of(content), len(content), SECRETS.of(IRIS))
    return replace(made, **changes)


def failed(fetched: Artifact, folder: Path, limits: FetchLimits = PATIENT) -> FetchError:
    with pytest.raises(FetchError) as raised:
        Fetch(fetched, folder, limits).wait()
    assert not folder.exists() or list(folder.iterdir()) == [], "nothing is left that could be taken for a model"
    return raised.value


def test_a_file_is_fetched_into_its_folder_under_its_digest(proxy, tmp_path):
    path = Fetch(artifact(proxy.url), tmp_path / "new" / "model").wait()
    assert path == tmp_path / "new" / "model" / digest_of(CONTENT)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert proxy.requests == [("GET", path_of(CONTENT))]
    assert proxy.headers[0]["authorization"] == f"Bearer {SECRETS.of(IRIS)}"


def test_a_folder_made_for_it_is_removed_again(proxy):
    fetch = Fetch(artifact(proxy.url), None)
    path = fetch.wait()
    assert path.read_bytes() == CONTENT
    fetch.clean_up()
    assert not path.parent.exists()


def test_a_container_that_starts_again_finds_its_file(proxy, tmp_path):
    (tmp_path / "left.part").write_bytes(b"of a container that was killed")
    for _ in range(2):
        assert Fetch(artifact(proxy.url), tmp_path).wait().read_bytes() == CONTENT
    assert len(proxy.requests) == 1
    assert [f.name for f in tmp_path.iterdir()] == [digest_of(CONTENT)]
    (tmp_path / digest_of(CONTENT)).write_bytes(b"damaged")
    assert Fetch(artifact(proxy.url), tmp_path).wait().read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault",
    [{"reset_after": 2_000_000}, {"stall_after": 2_000_000}, {"answer": (503, "SlowDown")}, {"answer": (500, "x")}],
    ids=["reset", "silence", "503", "500"],
)
def test_a_broken_transfer_goes_on_where_it_broke(proxy, tmp_path, fault):
    proxy.faults.append(Fault("GET", times=3, **fault))
    limits = replace(PATIENT, silence_s=0.5) if "stall_after" in fault else PATIENT
    assert Fetch(artifact(proxy.url), tmp_path, limits).wait().read_bytes() == CONTENT
    assert len(proxy.requests) >= 4
    ranges = [headers.get("range") for headers in proxy.headers]
    assert ranges[0] is None
    if "answer" not in fault:
        assert len(set(ranges)) == len(ranges), "each goes on further"


def test_a_host_that_knows_no_ranges_is_asked_for_all_again(proxy, tmp_path):
    proxy.faults += [Fault("GET", reset_after=2_000_000), Fault("GET", whole=True)]
    assert Fetch(artifact(proxy.url), tmp_path).wait().read_bytes() == CONTENT
    assert len(proxy.requests) == 2


def test_a_gateway_that_hears_of_the_version_a_moment_later_is_asked_again(proxy, tmp_path):
    proxy.faults.append(Fault("GET", answer=(404, "NotFound"), times=3))
    assert Fetch(artifact(proxy.url), tmp_path).wait().read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", ["secret", "none", "version"])
def test_a_refusal_is_told_in_the_gateways_words(door, tmp_path, wrong):
    fetched = artifact(door)
    if wrong == "version":
        fetched = artifact(door, b"not a version of it")
    else:
        fetched = replace(fetched, secret=SECRETS.of(OTHER) if wrong == "secret" else None)
    error = failed(fetched, tmp_path, replace(PATIENT, refused_s=0.2))
    said = "404 there is nothing here" if wrong == "version" else "401 the service's secret is missing or wrong"
    assert (error.code, error.message) == ("artifact_refused", f"the model's file is refused: {said}")


def test_a_store_that_lost_the_file_is_unreachable(door, tmp_path):
    error = failed(artifact(door, b"not in the store"), tmp_path, replace(PATIENT, patience_s=0.3))
    assert error.code == "artifact_unreachable"
    assert "503 the stored file of this version is missing" in error.message


def test_nobody_there_is_unreachable(proxy, tmp_path):
    gone = artifact(proxy.url)
    with FaultProxy(proxy.url) as other:
        gone = artifact(other.url)
    error = failed(gone, tmp_path, replace(PATIENT, patience_s=0.3))
    assert error.code == "artifact_unreachable"
    assert "refused" in error.message


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "nonsense", "http://host:99999/x", "file:///etc/passwd"])
def test_a_url_that_is_none_is_said_at_once(tmp_path, url):
    assert failed(replace(artifact(""), url=url), tmp_path).code == "artifact_unreachable"


@pytest.mark.parametrize(("declared", "said"), [(-1000, "longer"), (1000, "bytes, not"), (0, "sha256")])
def test_a_file_of_another_length_or_digest_is_not_taken(door, tmp_path, declared, said):
    fetched = artifact(door, size=len(CONTENT) + declared)
    if not declared:
        fetched = replace(fetched, digest="0" * 64)
    error = failed(fetched, tmp_path)
    assert error.code == "wrong_digest"
    assert said in error.message


def test_a_full_disk_is_said_plainly(door, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        assert failed(artifact(door), folder).code == "disk_full"
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_cannot_be_written_is_said_plainly(door):
    error = failed(artifact(door), Path("/proc/none"))
    assert error.code == "disk_error"


def test_a_redirect_is_followed_once_and_the_secret_stays_with_the_first_host(s3, tmp_path):
    s3.put(CONTENT)
    with serving_artifacts(s3.store(), {IRIS: [CONTENT]}, redirect=True) as url, FaultProxy(url) as gateway:
        s3.proxy.requests.clear()
        s3.proxy.headers.clear()
        s3.proxy.faults.append(Fault("GET", reset_after=2_000_000))
        assert Fetch(artifact(gateway.url), tmp_path, PATIENT).wait().read_bytes() == CONTENT
    assert [headers["authorization"] for headers in gateway.headers] == [f"Bearer {SECRETS.of(IRIS)}"] * 2
    assert len(s3.proxy.requests) == 2
    assert all("authorization" not in headers for headers in s3.proxy.headers)
    assert "range" in s3.proxy.headers[1]


def test_a_second_redirect_is_a_refusal(tmp_path):
    with redirecting_to("http://127.0.0.1:9") as last, FaultProxy(last) as second, redirecting_to(second.url) as first:
        error = failed(artifact(first), tmp_path, replace(PATIENT, refused_s=0))
    assert (error.code, error.message) == ("artifact_refused", "the model's file is refused: 307")
    assert "authorization" not in second.headers[0]


def test_no_proxy_of_the_environment_is_asked(proxy, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Fetch(artifact(proxy.url), tmp_path).wait().read_bytes() == CONTENT
    assert urlsplit(proxy.url).hostname == "127.0.0.1"
