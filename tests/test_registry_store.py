"""Every store: what is put is whole, read-only and found again; digests alone become paths and keys."""

import os
import subprocess

import pytest

from roost_platform.domain.errors import StorageFull, Unavailable
from roost_platform.registry.store import DiskStore
from s3_parts import digest_of

A, B = digest_of(b"model"), "b" * 64
BUILD, OTHER_BUILD = "0" * 16, "1" * 16


@pytest.fixture(params=["disk", "s3"])
def open_store(request, tmp_path):
    """Opens the store again, as another run would."""
    if request.param == "disk":
        return lambda: DiskStore(tmp_path / "data")
    return request.getfixturevalue("s3").store


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def made(tmp_path):
    def make(content=b"model"):
        path = tmp_path / "staged"
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def baked(tmp_path):
    def make(content=b"baked"):
        folder = tmp_path / "staged.baked"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(content)
        (folder / "weights.bin").write_bytes(b"weights")
        return folder

    return make


def test_an_artifact_is_found_by_its_digest_and_is_read_only(store, made, tmp_path):
    path = made()
    store.put(path, A)
    assert not path.exists()
    located = store.locate(A)
    assert located.relative_to(tmp_path / "data").parts[1:] == ("sha256", A[:2], A)
    assert located.read_bytes() == b"model"
    assert located.stat().st_mode & 0o777 == 0o400
    assert store.digests() == {A}


def test_what_was_put_is_there_for_the_next_run(open_store, made):
    open_store().put(made(), A)
    again = open_store()
    assert again.locate(A).read_bytes() == b"model"
    assert again.fetch(A) == again.locate(A)


def test_it_is_read_from_any_byte_on(store, made):
    store.put(made(), A)
    for start in (0, 2, 4):
        reader = store.open(A, start)
        assert (reader.size, reader.read(2)) == (5, b"model"[start : start + 2])
        assert reader.read(10) == b"model"[start + 2 :]
        assert reader.read(10) == b""
        reader.close()


def test_what_was_put_a_moment_ago_is_not_old(store, made):
    store.put(made(), A)
    assert store.digests(older_than_s=3600) == set()
    assert store.digests() == {A}
    assert store.abandon_uploads(older_than_s=0) == 0


def test_a_digest_that_is_missing_is_told_so_plainly(store):
    for use in (store.fetch, store.open):
        with pytest.raises(Unavailable, match="missing") as raised:
            use(A)
        assert raised.value.code == "artifact_missing"


def test_putting_the_same_bytes_again_keeps_the_first(store, made):
    store.put(made(), A)
    inode = store.locate(A).stat().st_ino
    path = made()
    store.put(path, A)
    assert store.locate(A).stat().st_ino == inode
    assert not path.exists()


def test_what_is_not_there_is_none_and_deleting_it_is_fine(store):
    assert store.locate(A) is None
    assert store.locate_baked(A, BUILD) is None
    assert store.digests() == set()
    store.delete(A)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_nothing_but_a_digest_becomes_a_path(store, made, digest):
    putting = (lambda d: store.put(made(), d), lambda d: store.locate_baked(d, BUILD))
    for use in (store.locate, store.fetch, store.open, store.delete, *putting):
        with pytest.raises(ValueError, match="digest"):
            use(digest)
    with pytest.raises(ValueError, match="build key"):
        store.locate_baked(A, "../x")


def test_a_baked_model_is_found_for_its_build_only(store, baked):
    store.put_baked(baked(), A, BUILD)
    located = store.locate_baked(A, BUILD)
    assert located.read_bytes() == b"baked"
    assert (located.parent / "weights.bin").read_bytes() == b"weights"
    assert store.locate_baked(A, OTHER_BUILD) is None


def test_baking_again_replaces(store, baked):
    store.put_baked(baked(b"old"), A, BUILD)
    store.put_baked(baked(b"new"), A, BUILD)
    assert store.locate_baked(A, BUILD).read_bytes() == b"new"


@pytest.mark.parametrize("damage", ["changed", "missing", "sums"])
def test_a_baked_model_that_is_not_what_was_put_is_removed(store, baked, damage):
    store.put_baked(baked(b"baked"), A, BUILD)
    store.seal_baked(A, BUILD)
    assert store.verify_baked(A, BUILD)
    model = store.locate_baked(A, BUILD)
    target = model.with_name("SHA256SUMS") if damage == "sums" else model
    target.chmod(0o600)
    if damage == "missing":
        target.unlink()
    else:
        target.write_bytes(b"Baked")
    assert store.verify_baked(A, BUILD) is False
    assert store.locate_baked(A, BUILD) is None
    assert store.verify_baked(A, BUILD), "what is not there is not damaged"


def test_a_baked_model_that_was_never_sealed_does_not_outlive_the_run(store, baked):
    """It may be on the disk in part: nothing waited for that."""
    store.put_baked(baked(), A, BUILD)
    store.put_baked(baked(), B, BUILD)
    store.seal_baked(B, BUILD)
    assert store.locate_baked(A, BUILD) is not None
    assert store.sweep_baked(BUILD, {A, B}) == 1
    assert store.locate_baked(A, BUILD) is None
    assert store.verify_baked(B, BUILD)


def test_sealing_what_was_deleted_meanwhile_is_fine(store, baked):
    store.put_baked(baked(), A, BUILD)
    store.delete(A)
    store.seal_baked(A, BUILD)
    assert store.locate_baked(A, BUILD) is None
    assert not store.was_baked(A, BUILD)


def test_that_a_model_cannot_be_baked_is_remembered(store, baked):
    folder = baked()
    for file in folder.iterdir():
        file.unlink()
    store.put_baked(folder, A, BUILD)
    store.seal_baked(A, BUILD)
    store.sweep_baked(BUILD, {A})
    assert store.locate_baked(A, BUILD) is None
    assert store.was_baked(A, BUILD)
    assert store.verify_baked(A, BUILD)


def test_deleting_an_artifact_deletes_what_was_baked_from_it(store, made, baked):
    store.put(made(), A)
    store.put_baked(baked(), A, BUILD)
    store.delete(A)
    assert store.locate(A) is None
    assert store.locate_baked(A, BUILD) is None


def test_sweeping_keeps_only_this_build_and_the_named_artifacts(store, baked):
    for digest, build in ((A, BUILD), (B, BUILD), (A, OTHER_BUILD)):
        store.put_baked(baked(), digest, build)
        store.seal_baked(digest, build)
    assert store.sweep_baked(BUILD, {A}) == 2
    assert store.locate_baked(A, BUILD) is not None
    assert store.locate_baked(B, BUILD) is None
    assert store.locate_baked(A, OTHER_BUILD) is None


def test_sweeping_without_a_build_keeps_every_build_of_the_named_artifacts(store, baked):
    for digest, build in ((A, BUILD), (B, BUILD), (A, OTHER_BUILD)):
        store.put_baked(baked(), digest, build)
        store.seal_baked(digest, build)
    assert store.sweep_baked(None, {A}) == 1
    assert store.locate_baked(A, BUILD) is not None
    assert store.locate_baked(A, OTHER_BUILD) is not None


def test_a_disk_without_room_for_another_name_is_full(tmp_path, made):
    """A file system that has no inode left: the rename has no folder to go to."""
    folder = tmp_path / "data"
    folder.mkdir()
    options = "size=1m,nr_inodes=3"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        path = folder / "staged"
        path.write_bytes(b"model")
        with pytest.raises(StorageFull):
            DiskStore(folder).put(path, A)
        assert DiskStore(folder).digests() == set()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_is_private(store, made, tmp_path):
    os.umask(old := os.umask(0))
    store.put(made(), A)
    assert store.locate(A).is_relative_to(tmp_path / "data")
    for folder in store.locate(A).parents[:3]:
        assert folder.stat().st_mode & 0o077 == 0
    assert old == os.umask(old)
