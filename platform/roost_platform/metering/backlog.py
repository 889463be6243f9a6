"""How much usage waits on this disk for the ledger, and when that is too much to take more calls on.

While the database is away calls go on and the journal grows. It must not grow for ever: at a limit, calls are refused before
any work is done for them. At about 270 bytes a call, 1 GiB holds four million: over an hour at a thousand a second.
"""

from roost_platform.domain.errors import Unavailable

LIMIT_BYTES = 1024**3
_NOT_NOW = Unavailable(
    "usage waits for the database, and there is no room to write down more of it", code="usage_backlog", retry_after_s=5
)


class Backlog:
    """Measured by the shipper about once a second; so it may grow over its limit by what a second or two bring."""

    __slots__ = ("bytes", "full", "limit_bytes")

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        """Written but not yet in the ledger, when last measured."""
        self.full = False

    def measured(self, waiting_bytes: int) -> None:
        self.bytes = waiting_bytes
        self.full = waiting_bytes >= self.limit_bytes

    def require_room(self) -> None:
        """Raises Unavailable when nothing more may be taken on."""
        if self.full:
            raise _NOT_NOW
