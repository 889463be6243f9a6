"""Receiving files: limits, lengths, digests, full disks; and nothing is ever left in the staging folder."""

import asyncio
import hashlib
import subprocess
import threading

import pytest

from registry_parts import adding, body
from roost_platform.domain.errors import InvalidRequest, ModelRejected, StorageFull, TooLarge, Unavailable
from roost_platform.registry.finishing import KeyedLocks, in_thread
from roost_platform.registry.uploads import receive

LARGE = adding(1) + bytes(3_000_000)


def receiving(data, folder, **options):
    chunks = body(data) if isinstance(data, bytes) else data
    return receive(chunks, folder=folder, **{"limit_bytes": 10_000_000, **options})


@pytest.mark.parametrize("data", [adding(1), LARGE], ids=["small", "large"])
async def test_a_file_is_received_whole_and_removed_afterwards(tmp_path, data):
    digest = hashlib.sha256(data).hexdigest()
    async with receiving(data, tmp_path, declared_size=len(data), expected_digest=digest) as received:
        assert received.path.read_bytes() == data
        assert (received.size, received.digest) == (len(data), digest)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_was_moved_away_stays(tmp_path):
    async with receiving(LARGE, tmp_path) as received:
        received.path.rename(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == LARGE


async def refused(kind, data, folder, **options):
    with pytest.raises(kind) as raised:
        async with receiving(data, folder, **options):
            pytest.fail("it was taken")
    assert list(folder.iterdir()) == []
    return raised.value


async def test_a_declared_size_over_the_limit_is_refused_before_reading(tmp_path):
    async def untouchable():
        pytest.fail("a byte was read")
        yield b""

    await refused(TooLarge, untouchable(), tmp_path, limit_bytes=100, declared_size=101)


async def test_a_file_over_the_limit_is_refused_at_the_limit(tmp_path):
    read = []

    async def counted():
        async for chunk in body(LARGE):
            read.append(chunk)
            yield chunk

    await refused(TooLarge, counted(), tmp_path, limit_bytes=200_000)
    assert sum(map(len, read)) < 300_000


async def test_a_file_as_large_as_the_limit_is_taken(tmp_path):
    async with receiving(LARGE, tmp_path, limit_bytes=len(LARGE)) as received:
        assert received.size == len(LARGE)


@pytest.mark.parametrize("difference", [-1, 1, -200, 10_000])
async def test_a_lying_length_is_refused(tmp_path, difference):
    data = adding(1)
    error = await refused(InvalidRequest, data, tmp_path, declared_size=max(len(data) + difference, 0))
    assert error.code == "length_mismatch"


async def test_another_digest_is_refused(tmp_path):
    error = await refused(InvalidRequest, adding(1), tmp_path, expected_digest="0" * 64)
    assert error.code == "digest_mismatch"


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64])
async def test_what_is_no_digest_is_refused(tmp_path, digest):
    error = await refused(InvalidRequest, adding(1), tmp_path, expected_digest=digest)
    assert error.code == "invalid_digest"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(1000), "ZIP"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x80\x04\x95", "pickle"),
        (b"<!doctype html>", "HTML"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"----boundary", "multipart"),
        (b"\x20\x00\x00\x00ORTM", "ORT format"),
        (b"a/b" + bytes(254) + b"ustar", "tar"),
        (b"just some text", "does not begin"),
        (b"x", "does not begin"),
    ],
)
async def test_files_of_other_formats_are_refused_by_name(tmp_path, data, named):
    error = await refused(ModelRejected, data, tmp_path)
    assert error.code == "not_onnx"
    assert named in error.message


async def test_another_format_is_refused_at_its_first_bytes_however_they_arrive(tmp_path):
    async def endless():
        while True:
            yield b"PK\x03\x04"

    error = await refused(ModelRejected, endless(), tmp_path, limit_bytes=2**60)
    assert error.code == "not_onnx"


async def test_a_client_that_goes_away_leaves_nothing(tmp_path):
    async def broken():
        yield LARGE
        raise ConnectionResetError

    await refused(ConnectionResetError, broken(), tmp_path)


async def test_a_cancelled_upload_leaves_nothing(tmp_path):
    waiting = asyncio.Event()

    async def stalled():
        yield LARGE
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(refused(InvalidRequest, stalled(), tmp_path))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_an_error_of_whoever_uses_the_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        async with receiving(adding(1), tmp_path):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_is_said_and_its_space_given_back(small_disk):
    await refused(StorageFull, LARGE, small_disk)
    async with receiving(LARGE[:500_000], small_disk) as received:
        assert received.size == 500_000


async def test_a_staging_folder_that_is_gone_is_not_the_clients_fault(tmp_path):
    with pytest.raises(Unavailable):
        async with receiving(adding(1), tmp_path / "absent"):
            pass


async def test_work_on_a_thread_is_over_when_a_cancelled_caller_goes_on():
    started, go_on = threading.Event(), threading.Event()
    done = []

    def work():
        started.set()
        go_on.wait()
        done.append(True)

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # twice: still not left behind
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_locks_are_per_key_and_forgotten_when_free():
    locks = KeyedLocks()
    order = []

    async def use(key, name):
        async with locks.hold(key):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(use("k", "a"), use("k", "b"), use("other", "c"))
    assert order.index("a out") < order.index("b in")
    assert order.index("c in") < order.index("a out")
    assert locks._locks == {}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; needs the right to mount."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
