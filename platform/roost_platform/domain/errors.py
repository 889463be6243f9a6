"""The error tree of the product.

    RoostError
     ├── InvalidRequest          the request is malformed
     ├── Unauthenticated         no key, or one that is not valid
     ├── PermissionDenied        the key is valid but lacks the scope
     ├── NotFound                not yours or absent: the two look the same
     ├── Conflict                it contradicts what is there
     ├── LengthRequired          the size must be said before the body
     ├── TooLarge                over a size limit
     ├── UnsupportedMedia        a body of a kind that is not taken here
     ├── ModelRejected           the uploaded model is not acceptable
     ├── ModelFailed             the model raised on this input
     ├── Throttled               over a quota or a rate; `retry_after` says when
     ├── ReplicaLost             the replica died with the request in flight; safe to try again
     ├── Unavailable             not now; `retry_after` says when
     ├── DeadlineExceeded        too slow
     └── StorageFull             the disk is full

Status codes are not chosen here: the gateway has the one table (`roost_gateway.errors`).
"""

from typing import Any


class RoostError(Exception):
    """Base of all errors that a user may see.

    `message` is a sentence for people, `code` a stable snake_case word for programs, `field` names the part of the
    request at fault. None of them may hold a path, a traceback or an internal name.
    """

    default_code = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequest(RoostError):
    default_code = "invalid_request"


class Unauthenticated(RoostError):
    default_code = "unauthenticated"


class PermissionDenied(RoostError):
    default_code = "permission_denied"


class NotFound(RoostError):
    default_code = "not_found"


class Conflict(RoostError):
    default_code = "conflict"


class LengthRequired(RoostError):
    default_code = "length_required"


class TooLarge(RoostError):
    default_code = "too_large"


class UnsupportedMedia(RoostError):
    default_code = "unsupported_media_type"


class ModelRejected(RoostError):
    default_code = "model_rejected"


class ModelFailed(RoostError):
    default_code = "model_error"


class Throttled(RoostError):
    """`limit` is what is allowed and `used` how much of it is in use, in the quota's own unit. `reset_s`: seconds until
    there is room again if nothing else comes; None when time alone makes none.
    """

    default_code = "throttled"

    def __init__(self, message: str, *, limit: float, used: float, reset_s: float | None = None, **about: Any) -> None:
        """`about` is what every error takes."""
        super().__init__(message, **{"retry_after_s": reset_s} | about)
        self.limit = limit
        self.used = used
        self.reset_s = reset_s


class ReplicaLost(RoostError):
    default_code = "replica_lost"


class Unavailable(RoostError):
    default_code = "unavailable"


class DeadlineExceeded(RoostError):
    default_code = "deadline_exceeded"


class StorageFull(RoostError):
    default_code = "storage_full"
