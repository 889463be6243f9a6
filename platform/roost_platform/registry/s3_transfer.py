"""Reading an object: as a stream, or into a file with its digest, going on where a broken transfer ended."""

import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any

from roost_platform.domain.errors import Unavailable
from roost_platform.registry.s3_bucket import S3Bucket, S3Limits
from roost_platform.registry.s3_errors import FAILURES, Meaning, log_failure, meaning_of, plain_error
from roost_platform.registry.store import ArtifactReader, full_or_same

_PIECE_BYTES = 1024**2


class ObjectReader(ArtifactReader):
    """The rest of an answer that has begun. One that breaks is not asked for again: whoever reads knows how far it was."""

    def __init__(self, size: int, body: Any) -> None:
        """`body` as botocore streams it."""
        self.size = size
        self._body = body

    def read(self, most: int) -> bytes:
        try:
            return bytes(self._body.read(most))
        except FAILURES as error:
            log_failure("read", error)
            raise plain_error(error) from error

    def close(self) -> None:
        self._body.close()


def download(
    bucket: S3Bucket,
    key: str,
    path: Path,
    *,
    limits: S3Limits,
    make_room: Callable[[int], None],
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Write an object to a new file; its sha256 in hexadecimal. `make_room` is told its size before the first byte.

    Raises `s3_errors.FAILURES`, StorageFull, Unavailable (artifact_store) when it takes too long, and what `make_room`
    raises; the file is then there in part.
    """
    with _open(path) as file:
        return _Download(bucket, key, file, limits=limits, make_room=make_room, clock=clock).run()


class _Download:
    def __init__(
        self,
        bucket: S3Bucket,
        key: str,
        file: FileIO,
        *,
        limits: S3Limits,
        make_room: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._file = file
        self._make_room = make_room
        self._clock = clock
        self._end = clock() + limits.transfer_s
        self._size: int | None = None
        self._hash = hashlib.sha256()
        self._done = 0
        self._tries = 0
        self._ahead_at = clock()
        """When the last byte came."""

    def run(self) -> str:
        while self._done != self._size:
            try:
                self._go_on()
            except FAILURES as error:
                passing = meaning_of(error) is Meaning.PASSING
                if not passing or not self._bucket.patience.pause(self._tries, self._ahead_at):
                    log_failure("download", error)
                    raise
                self._tries += 1
        return self._hash.hexdigest()

    def _go_on(self) -> None:
        """One answer, from where the last one ended to its end. That it ends early is raised by the library."""
        size, body = self._bucket.get(self._key, self._done)
        with closing(body):
            if self._size is None:
                self._make_room(size)
                self._size = size
            while piece := body.read(_PIECE_BYTES):
                self._write(piece)
                self._tries, self._ahead_at = 0, self._clock()
                if self._ahead_at > self._end:
                    raise Unavailable("fetching the model's file takes too long", code="artifact_store")

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _disk_error(error) from error
        self._hash.update(piece)
        self._done += len(piece)


def _open(path: Path) -> FileIO:
    try:
        return FileIO(path, "xb")
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> Exception:
    """Never an `OSError`: those are the network's here."""
    found = full_or_same(error)
    if found is error:
        return Unavailable("the disk that holds models does not work right now", code="storage", retry_after_s=5)
    return found
