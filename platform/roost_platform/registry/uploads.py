"""Receiving a file: streamed to the staging folder with its digest, under a size limit, and gone again at the end."""

import asyncio
import errno
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import uuid4

from roost_platform.domain.errors import InvalidRequest, StorageFull, TooLarge, Unavailable
from roost_platform.registry.finishing import in_thread, to_the_end
from roost_platform.registry.sniffing import HEAD_BYTES, refuse_other_formats

_PIECE_BYTES = 1024**2
"""Written and hashed at once, on a thread: large enough that the hop to the thread costs nothing."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A whole file in the staging folder; whoever moves it away keeps it."""

    path: Path
    size: int
    digest: str
    """sha256, 64 hexadecimal digits."""


@asynccontextmanager
async def receive(
    chunks: AsyncIterator[bytes],
    *,
    folder: Path,
    limit_bytes: int,
    declared_size: int | None = None,
    expected_digest: str | None = None,
) -> AsyncIterator[ReceivedFile]:
    """Read `chunks` to their end into a file that is removed, unless moved, when the context ends, however it ends.

    Raises TooLarge (before the first byte is read when the declared size says so), InvalidRequest (length_mismatch,
    digest_mismatch, invalid_digest), ModelRejected (not_onnx) for what cannot be a model, StorageFull.
    """
    if max(declared_size or 0, 0) > limit_bytes:
        raise _too_large(limit_bytes)
    if expected_digest is not None and not _DIGEST.fullmatch(expected_digest):
        raise InvalidRequest("the sha256 digest must be 64 lower-case hexadecimal digits", code="invalid_digest")
    path = folder / uuid4().hex
    writer = await in_thread(_Writer, path)
    try:
        size = await _stream(chunks, writer, limit_bytes=limit_bytes, declared_size=declared_size)
        if expected_digest not in (None, writer.digest()):
            raise InvalidRequest("the file's sha256 is not the one in the request", code="digest_mismatch")
        yield ReceivedFile(path, size, writer.digest())
    finally:
        await in_thread(writer.discard)


def empty_folder(folder: Path) -> None:
    """Make it if it is not there, and remove all that lies in it. Blocks."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


async def _stream(
    chunks: AsyncIterator[bytes], writer: "_Writer", *, limit_bytes: int, declared_size: int | None
) -> int:
    size = 0
    head: bytes | None = b""
    pieces = _Pieces(writer)
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            if declared_size is not None and size > declared_size:
                raise _wrong_length(declared_size)
            if head is not None:
                head += chunk[:HEAD_BYTES]
                if len(head) >= HEAD_BYTES:
                    refuse_other_formats(head)
                    head = None
            await pieces.take(chunk)
        if declared_size not in (None, size):
            raise _wrong_length(declared_size or 0)
        if head is not None:
            refuse_other_formats(head)
        await pieces.write()
    finally:
        await pieces.settle()
    return size


class _Pieces:
    """What came in, on its way to the disk: one piece is written while the next one comes."""

    def __init__(self, writer: "_Writer") -> None:
        self._writer = writer
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._writing: asyncio.Task[None] | None = None

    async def take(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if self._bytes >= _PIECE_BYTES:
            await self.write()

    async def write(self) -> None:
        """Begin to write what was taken; waits for what was being written before."""
        await self.settle()
        chunks, self._chunks, self._bytes = self._chunks, [], 0
        self._writing = asyncio.create_task(in_thread(self._writer.write, chunks))

    async def settle(self) -> None:
        """Wait until nothing is being written. Raises what writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await to_the_end(writing)


class _Writer:
    """A new file and the digest of what was written to it. Its methods block; call one at a time, on a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        try:
            self._file = FileIO(path, "xb")
        except OSError as error:
            raise _disk_error(error) from error

    def write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            rest = memoryview(piece)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                raise _disk_error(error) from error

    def digest(self) -> str:
        return self._hash.hexdigest()

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the file is larger than the limit of {limit_bytes} bytes")


def _wrong_length(declared_size: int) -> InvalidRequest:
    return InvalidRequest(
        f"the body is not as long as the {declared_size} bytes that the request declared", code="length_mismatch"
    )


def _disk_error(error: OSError) -> StorageFull | Unavailable:
    if error.errno in _FULL:
        return StorageFull("the disk that holds uploads is full")
    return Unavailable("the disk that holds uploads does not work right now", code="storage", retry_after_s=5)
