"""What a bounded folder of copies holds, and which of them go when another one comes: the longest unused first.

Only bookkeeping, a pure function of time; whoever uses it moves the files, and holds a lock around both.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Copy:
    size: int
    used: float
    """When it was last asked for, in seconds of the clock."""
    whole: bool


class CacheIndex:
    """Sizes and last uses by name. What was used less than `keep_s` seconds ago is in use, and so is what comes in."""

    def __init__(self, *, limit_bytes: int, keep_s: float, clock: Callable[[], float]) -> None:
        self._limit_bytes = limit_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._copies: OrderedDict[str, _Copy] = OrderedDict()  # the longest unused first
        self.bytes = 0
        """Of all copies, with those that are coming in."""

    def add_found(self, name: str, size: int) -> None:
        """A whole copy of an earlier run; nobody uses it now. To be called in the order of their last uses."""
        self._copies[name] = _Copy(size, self._clock() - self._keep_s, whole=True)
        self.bytes += size

    def use(self, name: str) -> bool:
        """Whether there is a whole copy; it is in use from now on."""
        copy = self._copies.get(name)
        if copy is None or not copy.whole:
            return False
        copy.used = self._clock()
        self._copies.move_to_end(name)
        return True

    def reserve(self, name: str, size: int) -> list[str] | None:
        """Take room for one that comes in; the names that must go for it, which are forgotten by this.

        None when there is no room even so; nothing has changed then. One that is known already takes no further room.
        """
        if name in self._copies:
            return []
        lacking = self.bytes + size - self._limit_bytes
        going: list[str] = []
        for other, copy in self._copies.items():
            if lacking <= 0:
                break
            if copy.whole and self._clock() - copy.used >= self._keep_s:
                going.append(other)
                lacking -= copy.size
        if lacking > 0:
            return None
        for other in going:
            self.discard(other)
        self._copies[name] = _Copy(size, self._clock(), whole=False)
        self.bytes += size
        return going

    def complete(self, name: str) -> None:
        """What came in is whole; it counts as used now."""
        self._copies[name].whole = True
        self.use(name)

    def discard_incomplete(self, name: str) -> None:
        """It will not come, if it was to; a whole copy stays."""
        if name in self._copies and not self._copies[name].whole:
            self.discard(name)

    def discard(self, name: str) -> None:
        """It is gone; unknown names are fine."""
        copy = self._copies.pop(name, None)
        if copy is not None:
            self.bytes -= copy.size
