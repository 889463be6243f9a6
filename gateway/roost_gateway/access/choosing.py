"""The choice of a version for a call that names none: rules first, then what sticks, then the next turn of the split."""

import random
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from roost_platform.domain.routing import Routing, Sticky, StickyBy
from roost_platform.domain.services import Revision
from roost_platform.domain.splits import Sticking, turns


class Caller(Protocol):
    """What is looked at of a request's headers; names in lower case."""

    @property
    def forwarded(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def authorization(self) -> Sequence[bytes]: ...
    @property
    def cookies(self) -> Sequence[bytes]: ...


class Chooser:
    """For one model as it is now. Only the turn that comes next ever changes."""

    def __init__(
        self,
        shares: Sequence[tuple[Revision, int]],
        *,
        routing: Routing,
        usable: Mapping[int, Revision],
        start: Callable[[int], int] = random.randrange,
    ) -> None:
        """`shares`: percents that sum to 100. `usable`: the revision that stands for a version, for rules; rules of
        other versions count for nothing. `start`: the first turn, of so many: gateways must not move in step.
        """
        by_version = {str(revision.version): revision for revision, _ in shares}
        percents: dict[str, int] = dict.fromkeys(by_version, 0)
        for revision, percent in shares:
            percents[str(revision.version)] += percent
        order = [by_version[name] for name in turns(percents)]
        self._order = order
        self._turn = start(len(order))
        self._by_version = by_version
        self._sticky = routing.sticky
        self._sticking = Sticking(percents)
        self._rules = tuple(
            ((rule.header.encode(), rule.value.encode()), usable[rule.version])
            for rule in routing.rules
            if rule.version in usable
        )

    def choose(self, caller: Caller | None, *, peek: bool = False) -> Revision:
        """`peek`: the turn is not taken, and the next call is given it again."""
        if caller is not None:
            for pair, revision in self._rules:
                if pair in caller.forwarded:
                    return revision
            if self._sticky is not None:
                key = _key_of(self._sticky, caller)
                if key:
                    return self._by_version[self._sticking.of(key)]
        revision = self._order[self._turn]
        if not peek:
            self._turn = (self._turn + 1) % len(self._order)
        return revision


def _key_of(sticky: Sticky, caller: Caller) -> bytes:
    """What the caller is known by; empty when it does not say."""
    if sticky.by is StickyBy.KEY:
        key = caller.authorization[0].partition(b" ")[2].strip() if caller.authorization else b""
        return sha256(key).digest() if key else b""
    name = sticky.name.encode()
    if sticky.by is StickyBy.HEADER:
        return next((value for header, value in caller.forwarded if header == name), b"")[:_KEY_BYTES]
    for header in caller.cookies:
        for pair in header.split(b";"):
            cookie, _, value = pair.strip().partition(b"=")
            if cookie == name:
                return value[:_KEY_BYTES]
    return b""


_KEY_BYTES = 1024
"""Of a value; the rest does not count."""
