"""Copies of a bucket's artifacts on this machine: bounded, whole, fetched once; and which store a URL means."""

import os
import subprocess
import threading

import pytest

from roost_platform.domain.errors import InvalidRequest, StorageFull
from roost_platform.registry.s3_store import S3Store
from roost_platform.registry.store import DiskStore
from roost_platform.registry.stores import make_store
from s3_parts import ACCESS_KEY, BUCKET, SECRET_KEY, digest_of, key_of

SMALL = b"a small model"
LARGE = os.urandom(1024) * (11 * 1024)


def filled(s3, count: int, **changes) -> tuple[S3Store, list[str]]:
    """A store that holds so many files of 1000 bytes."""
    store = s3.store(**changes)
    contents = [bytes([n]) * 1000 for n in range(count)]
    for content in contents:
        store.put(s3.stage(content), digest_of(content))
    return store, [digest_of(content) for content in contents]


def here(store, digests) -> list[bool]:
    """Which are on the disk; asks the disk, for asking the store would count as a use."""
    return [store._file(digest).exists() for digest in digests]


def test_the_longest_unused_copies_go_when_others_come(s3):
    store, digests = filled(s3, 3, cache_bytes=3000)
    assert store.locate(digests[0])
    content = b"x" * 1500
    store.put(s3.stage(content), digest_of(content))
    assert here(store, [*digests, digest_of(content)]) == [True, False, False, True]
    assert store.locate(digests[1]) is None
    assert store.fetch(digests[1]).read_bytes() == b"\1" * 1000
    assert here(store, [*digests, digest_of(content)]) == [False, True, False, True]


def test_what_is_in_use_stays_and_what_is_open_can_be_read_on(s3):
    now = [0.0]
    store, digests = filled(s3, 2, cache_bytes=2000, keep_s=300, clock=lambda: now[0])
    content = b"x" * 1000
    reader = store.open(digests[0])
    store.put(s3.stage(content), digest_of(content))
    assert here(store, [*digests, digest_of(content)]) == [True, True, False], "an upload need not have a copy"
    with pytest.raises(StorageFull, match="room"):
        store.fetch(digest_of(content))
    now[0] = 300
    assert store.locate(digests[1])
    store.fetch(digest_of(content))
    assert here(store, [*digests, digest_of(content)]) == [False, True, True]
    assert reader.read(2000) == b"\0" * 1000
    reader.close()


def test_copies_of_an_earlier_run_are_known_and_counted(s3):
    _, digests = filled(s3, 2, cache_bytes=2000)
    (s3.folder / "data" / "copies" / "coming" / "half").write_bytes(b"x")
    again = s3.store(cache_bytes=2000, keep_s=300)
    assert not (s3.folder / "data" / "copies" / "coming" / "half").exists()
    os.utime(again._file(digests[0]), (2, 2))
    os.utime(again._file(digests[1]), (1, 1))
    again = s3.store(cache_bytes=2000, keep_s=300)
    content = b"x" * 1000
    again.put(s3.stage(content), digest_of(content))
    assert here(again, digests) == [True, False]


def test_the_same_file_wanted_by_many_is_fetched_once(s3):
    s3.put(LARGE)
    store = s3.store("other")
    before = s3.proxy.count("GET")
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(store.fetch(digest_of(LARGE)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8
    assert s3.proxy.count("GET") == before + 1


def test_a_disk_that_fills_up_while_fetching_is_storage_full_and_leaves_nothing(s3):
    s3.put(LARGE)
    folder = s3.folder / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        store = s3.store("small")
        with pytest.raises(StorageFull):
            store.fetch(digest_of(LARGE))
        assert store.locate(digest_of(LARGE)) is None
        assert not any(f.is_file() for f in folder.rglob("*"))
        store.put(s3.stage(LARGE), digest_of(LARGE))
        assert store.locate(digest_of(LARGE)) is None, "it is in the bucket, which is what counts"
    finally:
        subprocess.run(["umount", folder], check=True)


# Which store a URL means.


def test_a_url_names_bucket_and_prefix(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    url = f"s3://{BUCKET}/{s3.prefix}deeper/"
    store = make_store(s3.folder / "data", url=url, endpoint_url=s3.server.url, region="us-east-1")
    store.put(s3.stage(SMALL), digest_of(SMALL))
    assert list(s3.objects()) == [f"deeper/{key_of(SMALL)}"]
    assert type(make_store(s3.folder)) is DiskStore


@pytest.mark.parametrize("url", ["http://bucket/x", "s3:///x", "bucket", "s3://key@bucket/x", "s3://bucket/x?y=z", ""])
def test_another_url_is_refused(tmp_path, url):
    with pytest.raises(InvalidRequest, match="s3://bucket/prefix"):
        make_store(tmp_path, url=url)
