"""Fetching the file to serve, by digest, from the gateway: with the standard library alone, so that it can begin before
anything is imported.

The file is written under another name and hashed on its way; it gets its own once its digest is what it must be. A broken
transfer goes on where it broke. What answers may send the fetch elsewhere once; the secret goes to the first host only.
"""

import errno
import hashlib
import http.client
import json
import os
import random
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

_PIECE_BYTES = 1024**2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429})
"""Refusals that are none: come again."""


class FetchError(Exception):
    """There is no file to serve. `code`: artifact_unreachable, artifact_refused, wrong_digest, disk_full or disk_error."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Artifact:
    url: str
    digest: str
    """sha256, 64 hexadecimal digits."""
    size: int
    """Bytes; not one more is written."""
    secret: str | None
    """What the host of the URL asks for."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    silence_s: float = 15.0
    """A host that does not answer, or sends nothing, for so long is tried anew."""
    patience_s: float = 120.0
    """How long it is tried anew without a byte of the file having come."""
    refused_s: float = 10.0
    """How long a refusal is not believed: a gateway beside the one that deployed this may hear of it a moment later."""


class Fetch:
    """A fetch on a thread of its own, which ends with the process."""

    def __init__(self, artifact: Artifact, folder: Path | None, limits: FetchLimits | None = None) -> None:
        """`folder`: where the file shall be; None = a new one for temporary files."""
        self._work = _Work(artifact, folder, limits or FetchLimits())
        self._path: Path | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self._thread.start()

    def wait(self) -> Path:
        """The file, whole and verified. Raises FetchError."""
        self._thread.join()
        if self._path is None:
            raise self._error or AssertionError("neither a file nor an error")
        return self._path

    def clean_up(self) -> None:
        """Remove what came in part, and a folder that was made for it."""
        self._work.clean_up()

    def _run(self) -> None:
        try:
            self._path = self._work.run()
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self._error = error


class _Refused(Exception):
    """The host says no."""


class _Again(Exception):
    """It did not work this time."""


class _Work:
    def __init__(self, artifact: Artifact, folder: Path | None, limits: FetchLimits) -> None:
        self._artifact = artifact
        self._limits = limits
        self._made = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="roost-model-"))
        self._target = self._folder / artifact.digest
        self._part = self._folder / f"{artifact.digest}.{os.getpid()}.part"
        self._hash = hashlib.sha256()
        self._done = 0
        self._ahead_at = time.monotonic()
        """When the last byte came."""

    def run(self) -> Path:
        if self._is_there():  # the container was started again, its folder is the pod's
            return self._target
        try:
            with self._open() as file:
                self._fetch(file)
            if self._hash.hexdigest() != self._artifact.digest:
                raise _wrong_digest(f"what was fetched has sha256 {self._hash.hexdigest()}")
            self._part.rename(self._target)
        except FetchError:
            self.clean_up()
            raise
        return self._target

    def clean_up(self) -> None:
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
            if self._made:
                self._target.unlink(missing_ok=True)
                self._folder.rmdir()

    def _is_there(self) -> bool:
        with suppress(OSError):
            for left in self._folder.glob("*.part"):
                left.unlink()
        try:
            with self._target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self._artifact.digest
        except OSError:
            return False

    def _open(self) -> FileIO:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return FileIO(self._part, "w")
        except OSError as error:
            raise _disk_error(error) from error

    def _fetch(self, file: FileIO) -> None:
        tries = 0
        refused_at: float | None = None
        while self._done < self._artifact.size:
            done = self._done
            try:
                self._try(file)
            except _Refused as refusal:
                refused_at = refused_at or time.monotonic()
                if time.monotonic() - refused_at >= self._limits.refused_s:
                    raise FetchError(f"the model's file is refused: {refusal}", code="artifact_refused") from None
                reason = str(refusal)
            except (_Again, OSError, http.client.HTTPException) as error:
                refused_at = None
                reason = str(error) or type(error).__name__
            else:
                continue
            tries = 0 if self._done > done else tries + 1
            self._pause(tries, reason)

    def _pause(self, tries: int, reason: str) -> None:
        """Wait a random while that grows with the number of tries. Raises FetchError when patience has run out."""
        pause_s = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries))  # noqa: S311 - spreads load
        if time.monotonic() + pause_s > self._ahead_at + self._limits.patience_s:
            raise FetchError(f"the model's file cannot be fetched: {reason}", code="artifact_unreachable")
        time.sleep(pause_s)

    def _try(self, file: FileIO) -> None:
        """One answer, from where the last one ended to its end."""
        first = urlsplit(self._artifact.url)
        with (
            closing(_connect(first, self._limits.silence_s)) as connection,
            self._ask(connection, first, self._artifact.secret) as answer,
        ):
            if answer.status not in _REDIRECTS:
                self._take(answer, file)
                return
            second = urlsplit(urljoin(self._artifact.url, answer.getheader("location", "")))
        # Whoever it is, the URL that we were given is what lets us in there.
        with (
            closing(_connect(second, self._limits.silence_s)) as connection,
            self._ask(connection, second, None) as answer,
        ):
            self._take(answer, file)

    def _ask(
        self, connection: http.client.HTTPConnection, url: SplitResult, secret: str | None
    ) -> http.client.HTTPResponse:
        headers = {"accept": "application/octet-stream", "accept-encoding": "identity"}
        if secret is not None:
            headers["authorization"] = f"Bearer {secret}"
        if self._done:
            headers["range"] = f"bytes={self._done}-"
        connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers=headers)
        return connection.getresponse()

    def _take(self, answer: http.client.HTTPResponse, file: FileIO) -> None:
        self._check(answer)
        if answer.status == 200 and self._done:  # all of it, though only the rest was asked for
            file.seek(0)
            file.truncate()
            self._hash, self._done = hashlib.sha256(), 0
        while piece := answer.read1(_PIECE_BYTES):
            if self._done + len(piece) > self._artifact.size:
                raise _wrong_digest(f"it is longer than {self._artifact.size} bytes")
            _write(file, piece)
            self._hash.update(piece)
            self._done += len(piece)
            self._ahead_at = time.monotonic()
        if self._done < self._artifact.size:
            if answer.length == 0:
                raise _wrong_digest(f"it has {self._done} bytes, not {self._artifact.size}")
            raise _Again("the connection ended early")

    def _check(self, answer: http.client.HTTPResponse) -> None:
        """Raises _Again or _Refused unless what follows are the bytes asked for."""
        status = answer.status
        if status == 206 and (answer.getheader("content-range") or "").startswith(f"bytes {self._done}-"):
            return
        if status == 200:
            return
        said = f"{status} {_error_of(answer)}".strip()
        if status >= 500 or status in _BUSY:
            raise _Again(said)
        raise _Refused(said)


def _connect(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    """Straight to the host: no proxy that the environment names is asked. Raises FetchError for a URL that is none."""
    try:
        port = url.port
    except ValueError:
        port = -1
    if url.scheme not in ("http", "https") or not url.hostname or port == -1:
        raise FetchError("the model's file has no http or https URL", code="artifact_unreachable")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(url.hostname, port, timeout=timeout_s)


def _error_of(answer: http.client.HTTPResponse) -> str:
    """What the gateway says, when it is the gateway; nothing that is not plain text."""
    try:
        said = json.loads(answer.read(65536))["error"]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return ""
    return said[:200] if isinstance(said, str) and said.isprintable() else ""


def _write(file: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> FetchError:
    if error.errno in _FULL:
        return FetchError("the disk for the model's file is full", code="disk_full")
    return FetchError(f"the model's file cannot be written: {error.strerror}", code="disk_error")


def _wrong_digest(what: str) -> FetchError:
    return FetchError(f"the model's file is not the one expected: {what}", code="wrong_digest")
