"""What `/readyz` says: the parts of a running gateway, each with its state and the reason when it is not well.

A part that fails takes the gateway out of rotation; a part that is merely degraded does not, for calls go on without it. Nothing
here waits: a probe is answered from what was last seen. Anybody may ask, so reasons are fixed sentences, without names,
addresses or messages of others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from roost_platform.domain.errors import RoostError

DATABASE_PAUSE_S = 5.0
"""Between two looks at the database."""
DATABASE_SILENT_S = 15.0
"""Three looks without an answer: one that was slow is not worth a word."""


class State(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """Something is missing, and predictions are answered all the same."""
    FAILED = "failed"
    """No prediction would be answered."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    state: State = State.OK
    reason: str = ""
    """A sentence; empty when the state is ok."""

    def to_json(self) -> dict[str, str]:
        return {"state": self.state.value} | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class Readiness:
    """All parts, judged at one moment."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part) -> Self:
        return cls(parts)

    @property
    def ready(self) -> bool:
        return all(part.state is not State.FAILED for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """`status` is `ok` or `not ready`; `parts` by name."""
        return {
            "status": "ok" if self.ready else "not ready",
            "parts": {part.name: part.to_json() for part in self.parts},
        }


def judge_serving(serving: bool) -> Part:
    if serving:
        return Part("serving")
    return Part("serving", State.FAILED, "the gateway is starting or stopping")


def judge_usage(backlog_full: bool) -> Part:
    """Usage that cannot be written down ends all predictions: another gateway, with room, should get them."""
    if backlog_full:
        return Part(
            "usage", State.FAILED, "too much usage waits for the database; predictions are refused until it is taken"
        )
    return Part("usage")


def judge_database(*, answered_at: float, now: float) -> Part:
    """`answered_at`: when it last did, on the clock of `now` (s). Predictions go on without it, for as long as usage has room."""
    silent_s = now - answered_at
    if silent_s < DATABASE_SILENT_S:
        return Part("database")
    return Part(
        "database",
        State.DEGRADED,
        f"the database has not answered for {silent_s:.0f} s; predictions go on, nothing can be changed",
    )


class DatabasePulse:
    """Asks the database now and then whether it is there."""

    def __init__(self, ask: Callable[[], Awaitable[object]], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`ask` returns when the database has answered, and raises a RoostError when it does not."""
        self._ask = ask
        self._clock = clock
        self._answered_at = clock()  # the start has just used it

    def part(self) -> Part:
        return judge_database(answered_at=self._answered_at, now=self._clock())

    async def look(self) -> None:
        try:
            await self._ask()
        except RoostError:
            return
        self._answered_at = self._clock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(DATABASE_PAUSE_S)
            await self.look()
