"""What an S3 service's failures mean, and trying again what may pass: with jitter, and never past a deadline.

Nothing that a caller sees names a bucket, a key or an address; the log has what the operator needs.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeVar

from botocore import exceptions as boto

from roost_platform.domain.errors import RoostError, StorageFull, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

FAILURES = (boto.ClientError, boto.BotoCoreError, OSError)
"""All that a call of boto3 raises for what happened outside of this process."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class Meaning(Enum):
    PASSING = auto()
    """The service or the way to it stumbled: the same call may succeed in a moment."""
    MISSING = auto()
    EXISTS = auto()
    """It was to be put only if it is not there, and it is."""
    UNSUPPORTED = auto()
    """The service has no such call, or no such condition."""
    FULL = auto()
    REFUSED = auto()
    """Wrong credentials, no right, no such bucket: trying again changes nothing, and only the operator can."""


_BY_CODE = {
    "NoSuchKey": Meaning.MISSING,
    "NoSuchUpload": Meaning.MISSING,
    "PreconditionFailed": Meaning.EXISTS,
    "NotImplemented": Meaning.UNSUPPORTED,
    "NoSuchBucket": Meaning.REFUSED,
    "QuotaExceeded": Meaning.FULL,
    "XMinioStorageFull": Meaning.FULL,
    # Refusals by their status that are none: the bytes were damaged on their way, took too long, or met another call.
    "BadDigest": Meaning.PASSING,
    "XAmzContentChecksumMismatch": Meaning.PASSING,
    "IncompleteBody": Meaning.PASSING,
    "RequestTimeout": Meaning.PASSING,
    "ConditionalRequestConflict": Meaning.PASSING,
    "OperationAborted": Meaning.PASSING,
}
_BY_STATUS = {
    404: Meaning.MISSING,
    412: Meaning.EXISTS,
    429: Meaning.PASSING,
    501: Meaning.UNSUPPORTED,
    507: Meaning.FULL,
}
_FINAL = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.ParamValidationError,
    boto.SSLError,
)


def meaning_of(error: Exception) -> Meaning:
    """Of one of `FAILURES`."""
    if not isinstance(error, boto.ClientError):
        return Meaning.REFUSED if isinstance(error, _FINAL) else Meaning.PASSING
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    known = _BY_CODE.get(_code(error)) or _BY_STATUS.get(status)
    return known or (Meaning.PASSING if status >= 500 else Meaning.REFUSED)


def plain_error(error: Exception) -> RoostError:
    """What a caller is told. The whole of it is in the log."""
    if meaning_of(error) is Meaning.FULL:
        return StorageFull("the store that holds models is full")
    return Unavailable("the store that holds models cannot be used right now", code="artifact_store", retry_after_s=5)


class Patience:
    """Tries steps again while they fail in passing. `close` ends all waiting of all threads."""

    def __init__(self, *, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`patience_s`: how long one step is tried; a try that has begun may end later, by its own time limits."""
        self._patience_s = patience_s
        self._clock = clock
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    def attempt(self, step: Callable[..., T], **arguments: Any) -> T:
        """`step(**arguments)`, again while that may help. Raises the last of `FAILURES`, whatever it means."""
        begun = self._clock()
        tries = 0
        while True:
            try:
                return step(**arguments)
            except FAILURES as error:
                if meaning_of(error) is not Meaning.PASSING or not self.pause(tries, begun):
                    log_failure(getattr(step, "__name__", "step"), error)
                    raise
            tries += 1

    def pause(self, tries: int, since: float) -> bool:
        """Wait before the next try, a random while that grows with their number; False when patience has run out.

        `since`: when the step began or last got ahead, in seconds of the clock.
        """
        pause_s = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries))  # noqa: S311 - spreads load
        if self._clock() + pause_s > since + self._patience_s:
            return False
        return not self._closed.wait(pause_s)


def log_failure(step: str, error: Exception) -> None:
    """Tell the operator of what is not an answer to a question."""
    meaning = meaning_of(error)
    if meaning in (Meaning.MISSING, Meaning.EXISTS, Meaning.UNSUPPORTED):
        return
    code = _code(error) if isinstance(error, boto.ClientError) else type(error).__name__
    logger.warning("artifact_store_failed", extra={"step": step, "reason": code, "meaning": meaning.name.lower()})


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
