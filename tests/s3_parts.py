"""A real S3 server (SeaweedFS) for tests, one for all of a run that ask for it, with one bucket; and stores on it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from roost_platform.registry.s3_bucket import S3Limits, S3Place
from roost_platform.registry.s3_store import S3Store
from s3_faults import FaultProxy

BUCKET = "models-of-roost"
ACCESS_KEY, SECRET_KEY = "roost-test", "a secret of no use elsewhere"
PATIENT = S3Limits(connect_s=10, silence_s=10, patience_s=60, transfer_s=100, part_bytes=5 * 1024**2)
"""What a busy machine does not reach."""
_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port",
    "s3.port.grpc",
)  # fmt: skip
_START_S = 60.0


@dataclass(frozen=True)
class S3Server:
    url: str
    session: boto3.session.Session
    """With the right credentials. What it has read of the library's files need not be read again for each store."""

    def client(self) -> Any:
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
        return self.session.client("s3", endpoint_url=self.url, config=config)


@contextmanager
def running_s3() -> Iterator[S3Server]:
    folder = Path(tempfile.mkdtemp(prefix="roost-s3-"))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",  # or two runs on one machine want the same port
        "-volume.max=8",
        "-master.volumeSizeLimitMB=64",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    environment |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", session)
    try:
        _wait_for(server, process, folder / "log")
        yield server
    finally:
        process.send_signal(signal.SIGKILL)  # nothing here is to be kept, and it takes its time to leave
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    deadline = time.monotonic() + _START_S
    while not _has_bucket(client):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _has_bucket(client: Any) -> bool:
    try:
        client.create_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


class S3Bench:
    """One test's own part of the bucket, with a proxy before the server that makes faults."""

    def __init__(self, server: S3Server, proxy: FaultProxy, folder: Path) -> None:
        self.server = server
        self.client = server.client()
        self.proxy = proxy
        self.folder = folder
        self.prefix = f"{uuid4().hex}/"
        self.place = S3Place(bucket=BUCKET, prefix=self.prefix, endpoint_url=proxy.url, region="us-east-1")

    def store(self, name: str = "data", **changes: Any) -> S3Store:
        """With another name, that of another gateway."""
        settings = {"cache_bytes": 10**9, "keep_s": 0, "limits": PATIENT, "session": self.server.session}
        return S3Store(self.folder / name, self.place, **settings | changes)

    def stage(self, content: bytes) -> Path:
        path = self.folder / f"staged-{uuid4().hex}"
        path.write_bytes(content)
        return path

    def put(self, content: bytes) -> str:
        """By another gateway; the digest."""
        self.store("putter").put(self.stage(content), digest_of(content))
        return digest_of(content)

    def objects(self) -> dict[str, int]:
        """Sizes by key under the test's prefix."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix).get("Contents", [])
        return {item["Key"].removeprefix(self.prefix): item["Size"] for item in listed}

    def uploads(self) -> list[str]:
        """Keys of uploads in parts that have not ended."""
        listed = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=self.prefix).get("Uploads", [])
        return [item["Key"] for item in listed]

    def copies(self, name: str = "data") -> list[Path]:
        return [f for f in (self.folder / name / "copies").rglob("*") if f.is_file()]


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path) -> Iterator[S3Bench]:
    with FaultProxy(s3_server.url) as proxy:
        yield S3Bench(s3_server, proxy, tmp_path)


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def key_of(content: bytes) -> str:
    digest = digest_of(content)
    return f"sha256/{digest[:2]}/{digest}"
