"""Where artifacts live, by digest; and beside them the models baked from them, by build and digest."""

import errno
import hashlib
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from io import FileIO
from pathlib import Path

from roost_platform.domain.errors import StorageFull, Unavailable

BAKED_MODEL = "model.onnx"
"""The file of a baked model to open; its weights lie beside it."""
BAKED_SUMS = "SHA256SUMS"
"""Beside them, as sha256sum writes and checks it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BUILD_KEY = re.compile(r"[0-9a-f]{16}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ArtifactReader(ABC):
    """An artifact that is being read, from some byte to its end. Its methods block; call one at a time."""

    size: int
    """Bytes of the whole artifact."""

    @abstractmethod
    def read(self, most: int) -> bytes:
        """The next bytes, at most so many; none at the end. Raises Unavailable."""

    @abstractmethod
    def close(self) -> None:
        """Nothing may be called after."""


class ArtifactStore(ABC):
    """Immutable files by digest, the same for all who share the store; and what was baked from them on this machine.

    What was put is whole and durable. All methods but `locate*` may block on a disk or a network. Whatever concerns
    artifacts raises Unavailable (artifact_store) while the store is out of reach.
    """

    @abstractmethod
    def flush(self, path: Path) -> None:
        """Write out a file that `put` may take soon, so that it need not then. Raises StorageFull."""

    @abstractmethod
    def put(self, path: Path, digest: str) -> None:
        """Take the file at `path`, whose sha256 is `digest`, away into the store. A digest that is there stays.

        Returns when it would survive a power cut. Raises StorageFull; then nothing of it is in the store.
        """

    @abstractmethod
    def locate(self, digest: str) -> Path | None:
        """A readable file with these bytes on this machine, or None when `fetch` must be asked. Quick.

        The file stays for as long as the start of a replica may take; one that is open stays readable in any case.
        """

    @abstractmethod
    def fetch(self, digest: str) -> Path:
        """Bring an artifact to this machine, its digest verified, if it is not there; then as `locate`.

        Raises Unavailable (artifact_missing, artifact_damaged) or StorageFull.
        """

    @abstractmethod
    def open(self, digest: str, start: int = 0) -> ArtifactReader:
        """Read an artifact from this byte on, without fetching it. Raises Unavailable (artifact_missing)."""

    @abstractmethod
    def presign(self, digest: str, *, seconds: int) -> str | None:
        """A URL that gives this artifact to anybody for so long, or None where the store has no such thing."""

    @abstractmethod
    def delete(self, digest: str) -> None:
        """Remove an artifact, and everything baked from it here; unknown digests are fine."""

    @abstractmethod
    def digests(self, *, older_than_s: float = 0) -> set[str]:
        """All that is held and was put at least so long ago."""

    @abstractmethod
    def abandon_uploads(self, *, older_than_s: float) -> int:
        """Remove what is left of uploads that began at least so long ago and never ended; how many."""

    @abstractmethod
    def close(self) -> None:
        """Give up waiting for what is out of reach: this process ends. What is on this machine can still be used."""

    @abstractmethod
    def put_baked(self, folder: Path, digest: str, build_key: str) -> None:
        """Take a folder with a baked model away into the store, in place of one that is there. Raises StorageFull.

        Until it is sealed it is for this run only: the next `sweep_baked` removes it.
        """

    @abstractmethod
    def seal_baked(self, digest: str, build_key: str) -> None:
        """Make a baked model durable, with the digests of its files beside it. Raises StorageFull; gone is fine."""

    @abstractmethod
    def locate_baked(self, digest: str, build_key: str) -> Path | None:
        """The baked model to open, its weights beside it, or None when this build has none."""

    @abstractmethod
    def was_baked(self, digest: str, build_key: str) -> bool:
        """Whether baking was tried here: what was put may be a folder without a model, for one that cannot be baked."""

    @abstractmethod
    def verify_baked(self, digest: str, build_key: str) -> bool:
        """Remove a baked model that is not what was put; whether it was sound (one that is not there is)."""

    @abstractmethod
    def sweep_baked(self, build_key: str | None, keep: set[str]) -> int:
        """Remove baked models of other builds (None = whatever the build), of other artifacts, and those that were never
        sealed; how many went.
        """

    @abstractmethod
    def baked_digests(self) -> set[str]:
        """All artifacts that something was baked from."""

    @abstractmethod
    def delete_baked(self, digest: str) -> None:
        """Remove everything baked from an artifact; unknown digests are fine."""


class DiskStore(ArtifactStore):
    """A folder: `artifacts/sha256/ab/<digest>` and `baked/<build key>/<digest>/`, on one file system with staging."""

    def __init__(self, folder: Path, *, artifacts: str = "artifacts") -> None:
        """`artifacts`: the name of the folder in it for the files themselves."""
        self._artifacts = folder / artifacts / "sha256"
        self._baked = folder / "baked"

    def flush(self, path: Path) -> None:
        try:
            _sync(path)
        except OSError as error:
            raise full_or_same(error) from error

    def put(self, path: Path, digest: str) -> None:
        target = self._file(digest)
        if target.exists():
            path.unlink()
            return
        try:
            make_durable_folder(target.parent)
            path.chmod(0o400)
            _sync(path)
            path.rename(target)
            _sync(target.parent)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise full_or_same(error) from error

    def locate(self, digest: str) -> Path | None:
        target = self._file(digest)
        return target if target.exists() else None

    def fetch(self, digest: str) -> Path:
        path = self.locate(digest)
        if path is None:
            raise artifact_missing()
        return path

    def open(self, digest: str, start: int = 0) -> ArtifactReader:
        try:
            return _FileReader(self._file(digest), start)
        except FileNotFoundError:
            raise artifact_missing() from None

    def presign(self, digest: str, *, seconds: int) -> str | None:
        return None

    def delete(self, digest: str) -> None:
        self._file(digest).unlink(missing_ok=True)
        self.delete_baked(digest)

    def digests(self, *, older_than_s: float = 0) -> set[str]:
        files = (file for prefix in _entries(self._artifacts) for file in _entries(prefix))
        if not older_than_s:
            return {file.name for file in files}
        before = time.time() - older_than_s
        return {file.name for file in files if file.stat().st_mtime <= before}

    def abandon_uploads(self, *, older_than_s: float) -> int:
        return 0  # they are under another name until they have ended, and those are swept at start

    def close(self) -> None:
        """Nothing here waits."""

    def put_baked(self, folder: Path, digest: str, build_key: str) -> None:
        target = self._baked_folder(digest, build_key)
        try:
            make_durable_folder(target.parent)
            for file in folder.iterdir():
                file.chmod(0o400)
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
        except OSError as error:
            raise full_or_same(error) from error

    def seal_baked(self, digest: str, build_key: str) -> None:
        folder = self._baked_folder(digest, build_key)
        try:
            files = sorted(file for file in _entries(folder) if file.name != BAKED_SUMS)
            for file in files:
                _sync(file)
            _sync(folder)
            unsealed = folder / f"{BAKED_SUMS}.new"
            unsealed.write_text("".join(f"{_sum_of(file)}  {file.name}\n" for file in files))
            _sync(unsealed)
            unsealed.rename(folder / BAKED_SUMS)
            _sync(folder)
            _sync(folder.parent)
        except FileNotFoundError:  # deleted meanwhile, with its model
            return
        except OSError as error:
            raise full_or_same(error) from error

    def locate_baked(self, digest: str, build_key: str) -> Path | None:
        target = self._baked_folder(digest, build_key) / BAKED_MODEL
        return target if target.exists() else None

    def was_baked(self, digest: str, build_key: str) -> bool:
        return self._baked_folder(digest, build_key).exists()

    def verify_baked(self, digest: str, build_key: str) -> bool:
        folder = self._baked_folder(digest, build_key)
        try:
            lines = (folder / BAKED_SUMS).read_text().splitlines()
        except FileNotFoundError:  # there is no bake, or it goes right now
            return True
        try:
            sound = all(_sum_of(folder / name) == value for value, name in (line.split("  ", 1) for line in lines))
        except (OSError, ValueError):
            sound = False
        if not sound:
            shutil.rmtree(folder, ignore_errors=True)
        return sound

    def sweep_baked(self, build_key: str | None, keep: set[str]) -> int:
        removed = 0
        for build in _entries(self._baked):
            for model in _entries(build):
                sealed = (model / BAKED_SUMS).exists()
                if not sealed or model.name not in keep or build_key not in (None, build.name):
                    shutil.rmtree(model, ignore_errors=True)
                    removed += 1
            if build_key not in (None, build.name):
                shutil.rmtree(build, ignore_errors=True)
        return removed

    def baked_digests(self) -> set[str]:
        return {model.name for build in _entries(self._baked) for model in _entries(build)}

    def delete_baked(self, digest: str) -> None:
        for build in _entries(self._baked):
            shutil.rmtree(build / check_digest(digest), ignore_errors=True)

    def _file(self, digest: str) -> Path:
        return self._artifacts / digest[:2] / check_digest(digest)

    def _baked_folder(self, digest: str, build_key: str) -> Path:
        if not _BUILD_KEY.fullmatch(build_key):
            raise ValueError("not a build key")
        return self._baked / build_key / check_digest(digest)


class _FileReader(ArtifactReader):
    def __init__(self, path: Path, start: int) -> None:
        self._file = FileIO(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self._file.seek(start)

    def read(self, most: int) -> bytes:
        try:
            return self._file.read(most) or b""
        except OSError as error:
            raise Unavailable("the disk that holds models does not work right now", code="storage") from error

    def close(self) -> None:
        self._file.close()


def artifact_missing() -> Unavailable:
    """There is a version with these bytes, and the bytes are gone: nothing that its owner did."""
    return Unavailable("the stored file of this version is missing", code="artifact_missing")


def check_digest(digest: str) -> str:
    """Digests become paths and keys: nothing else may. Raises ValueError."""
    if not _DIGEST.fullmatch(digest):
        raise ValueError("not a sha256 digest")
    return digest


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_durable_folder(folder: Path) -> None:
    """Make a folder of ours alone, with those above it, that survives a power cut."""
    if folder.is_dir():
        return
    make_durable_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def full_or_same(error: OSError) -> Exception:
    """StorageFull when that is what the disk said."""
    return StorageFull("the disk that holds models is full") if error.errno in _FULL else error
