"""Artifacts in a bucket, so that several gateways share them; copies and baked models in a folder of this machine.

The key of an artifact is `<prefix>sha256/<ab>/<digest>`: nothing that a client wrote becomes part of one. An object is
there whole or not at all; a copy, too: it is written under another name, its digest is verified, then it is renamed.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

import boto3

from roost_platform.domain.errors import StorageFull, Unavailable
from roost_platform.registry.cache import CacheIndex
from roost_platform.registry.s3_bucket import Found, S3Bucket, S3Limits, S3Place, base64_of
from roost_platform.registry.s3_errors import FAILURES, Meaning, log_failure, meaning_of, plain_error
from roost_platform.registry.s3_transfer import ObjectReader, download
from roost_platform.registry.store import ArtifactReader, DiskStore, artifact_missing, check_digest, make_durable_folder

logger = logging.getLogger(__name__)

_ALL = "sha256/"
_KEY = re.compile(r"sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")


class S3Store(DiskStore):
    """The folder `copies` of a `DiskStore` holds at most `cache_bytes` of copies; baked models are where they always are.

    Copies that were not used for longest go first. One that was located, read or fetched less than `keep_s` ago stays:
    let that be longer than a replica may take to open its file. One that is open can be read after it was removed.
    """

    def __init__(
        self,
        folder: Path,
        place: S3Place,
        *,
        cache_bytes: int,
        keep_s: float,
        limits: S3Limits | None = None,
        session: boto3.session.Session | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks through the folder; does not ask the service for anything. `session`: None = one of its own."""
        super().__init__(folder, artifacts="copies")
        self._limits = limits or S3Limits()
        self._bucket = S3Bucket(place, self._limits, session or boto3.session.Session())
        self._lock = threading.Lock()
        """Around the index and the names of copies; never held while bytes travel."""
        self._index = CacheIndex(limit_bytes=cache_bytes, keep_s=keep_s, clock=clock)
        self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        """One fetch of the same bytes at a time; the next finds what the first one brought."""
        self._coming = folder / "copies" / "coming"
        """Copies on their way in, and on their way out."""
        self._take_over()

    def close(self) -> None:
        self._bucket.close()

    def put(self, path: Path, digest: str) -> None:
        key, sha256 = _key(digest), bytes.fromhex(digest)
        size = path.stat().st_size
        try:
            found = self._bucket.head(key)
            if found is None or not self._is_sound(found, size, sha256):
                self._bucket.put(key, path, sha256, replace=found is not None)
        except FAILURES as error:
            raise plain_error(error) from error
        with self._turn(digest):
            self._keep_copy(path, digest, size)

    def locate(self, digest: str) -> Path | None:
        path = self._file(digest)
        with self._lock:
            return path if self._index.use(digest) else None

    def fetch(self, digest: str) -> Path:
        with self._turn(digest):
            path = self.locate(digest)
            if path is None:
                self._fetch(digest)
                path = self._file(digest)
            return path

    def open(self, digest: str, start: int = 0) -> ArtifactReader:
        if self.locate(digest) is not None:
            return super().open(digest, start)
        try:
            size, body = self._bucket.patience.attempt(self._bucket.get, key=_key(digest), start=start)
        except FAILURES as error:
            raise _error(error) from error
        return ObjectReader(size, body)

    def presign(self, digest: str, *, seconds: int) -> str | None:
        try:
            return self._bucket.presign(_key(digest), seconds=seconds)
        except FAILURES as error:
            log_failure("presign", error)
            raise plain_error(error) from error

    def delete(self, digest: str) -> None:
        try:
            self._bucket.delete(_key(digest))
        except FAILURES as error:
            raise plain_error(error) from error
        with self._lock:
            self._index.discard(digest)
            super().delete(digest)

    def digests(self, *, older_than_s: float = 0) -> set[str]:
        try:
            keys = [item.key for item in self._bucket.list(_ALL) if not older_than_s or item.age_s >= older_than_s]
        except FAILURES as error:
            raise plain_error(error) from error
        return {match[2] for match in map(_KEY.fullmatch, keys) if match}

    def abandon_uploads(self, *, older_than_s: float) -> int:
        try:
            return self._bucket.abandon_uploads(_ALL, older_than_s=older_than_s)
        except FAILURES as error:
            raise plain_error(error) from error

    def _is_sound(self, found: Found, size: int, sha256: bytes) -> bool:
        """Whether an object can be what is to be stored. Of one in parts the service knows no digest of the whole."""
        in_parts = found.sha256 is None and size > self._limits.part_bytes
        return found.size == size and (in_parts or found.sha256 == base64_of(sha256))

    # Copies.

    def _take_over(self) -> None:
        """Know the copies of earlier runs, and remove what came in only in part."""
        make_durable_folder(self._coming)
        for left in self._coming.iterdir():
            left.unlink()
        found = [(self._file(digest).stat(), digest) for digest in super().digests()]
        for status, digest in sorted(found, key=lambda one: one[0].st_mtime):
            self._index.add_found(digest, status.st_size)

    def _fetch(self, digest: str) -> None:
        incoming = self._coming / uuid4().hex
        key = _key(digest)
        try:
            found = download(
                self._bucket, key, incoming, limits=self._limits, make_room=lambda size: self._make_room(digest, size)
            )
            if found != digest:
                logger.error("artifact_damaged", extra={"digest": digest, "found": found})
                raise Unavailable("the stored file of this version is damaged", code="artifact_damaged")
            self._take_in(incoming, digest)
        except FAILURES as error:
            raise _error(error) from error
        finally:
            incoming.unlink(missing_ok=True)
            self._forget_incomplete(digest)

    def _keep_copy(self, path: Path, digest: str, size: int) -> None:
        """What was just uploaded is wanted here soon; that there is no room for it is no failure."""
        try:
            self._make_room(digest, size)
            self._take_in(path, digest)
        except (StorageFull, OSError) as error:
            logger.warning("artifact_not_copied", extra={"digest": digest, "reason": str(error)})
        finally:
            path.unlink(missing_ok=True)
            self._forget_incomplete(digest)

    def _take_in(self, path: Path, digest: str) -> None:
        super().put(path, digest)
        with self._lock:
            self._index.complete(digest)

    def _make_room(self, digest: str, size: int) -> None:
        """Raises StorageFull when what is in use leaves none."""
        with self._lock:
            going = self._index.reserve(digest, size)
            if going is None:
                raise StorageFull("this machine has no room for a copy of the model's file")
            gone = [self._file(name).rename(self._coming / uuid4().hex) for name in going]
        for path in gone:
            path.unlink()

    def _forget_incomplete(self, digest: str) -> None:
        with self._lock:
            self._index.discard_incomplete(digest)

    def _turn(self, digest: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(digest, threading.Lock())


def _key(digest: str) -> str:
    return f"{_ALL}{digest[:2]}/{check_digest(digest)}"


def _error(error: Exception) -> Exception:
    return artifact_missing() if meaning_of(error) is Meaning.MISSING else plain_error(error)
