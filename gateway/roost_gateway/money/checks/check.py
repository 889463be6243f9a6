"""The words of reconciling: a check compares pairs of numbers that must be equal, and keeps the pairs that are not."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from roost_platform.billing.prices import PriceBooks
from roost_platform.database.connection import Database

MOST_FINDINGS = 100
"""Of one check that are named; the rest is counted."""


class Verdict(StrEnum):
    EQUAL = "equal"
    DIFFERS = "differs"
    PENDING = "pending"
    """One side is still being written; ask again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One pair that is not equal."""

    scope: str
    """What it is about: a run of a gateway, a tenant and an hour, a statement, a replica."""
    left: int
    right: int
    verdict: Verdict
    says: str
    """What is wrong and what it means, a sentence for people."""

    @property
    def difference(self) -> int:
        return self.left - self.right


@dataclass
class Check:
    """Filled pair by pair. `left` and `right` are the sums of all pairs, equal ones included."""

    name: str
    left_name: str
    right_name: str
    left: int = 0
    right: int = 0
    compared: int = 0
    """How many pairs."""
    difference: int = 0
    """By how much the pairs differ, all together, each without its sign: two that cancel out do not."""
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    verdict: Verdict = Verdict.EQUAL

    def compare(self, scope: str, left: int, right: int, says: str, *, pending: bool = False) -> None:
        """`says` is kept when they differ. `pending`: they may, for now."""
        self.left += left
        self.right += right
        self.compared += 1
        if left != right:
            self.difference += abs(left - right)
            self.keep(Finding(scope, left, right, Verdict.PENDING if pending else Verdict.DIFFERS, says))

    def keep(self, finding: Finding) -> None:
        """A finding about other numbers than the sums are of."""
        if finding.verdict is Verdict.DIFFERS or self.verdict is Verdict.EQUAL:
            self.verdict = finding.verdict
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.more_findings += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisRun:
    """What this gateway has counted itself since it began; each is asked when it is needed."""

    source: str
    """Under which its usage is in the ledger."""
    opened: Callable[[], int]
    """Calls taken on."""
    unstored: Callable[[], int]
    """Calls that were refused because their usage could not be written."""
    in_flight: Callable[[], int]
    answered: Callable[[], Mapping[str, int]]
    """Calls and metered copies by tenant, as its metrics count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What checks look at: usage of [start, end)."""

    database: Database
    start: datetime
    end: datetime
    begin: datetime
    """Nothing was used, and nothing rolled up, between `start` and this."""
    now: datetime
    journal: Path
    """Folder of this gateway's usage that is not in the ledger yet."""
    outbox: Path
    """Folder of what was held, as this gateway saw it, and is not in the database yet."""
    books: PriceBooks
    run: ThisRun
    drain: Callable[[], Awaitable[None]]
    """Returns when what lay in both folders before is in the database."""

    def days(self) -> Iterator[tuple[datetime, datetime]]:
        """The period in pieces of at most a UTC day: no query shall take long."""
        at, end = max(self.start, self.begin), min(self.end, self.now + timedelta(days=1))
        while at < end:
            midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            following = min(midnight + timedelta(days=1), end)
            yield at, following
            at = following


def many(number: int, what: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


Checking = Callable[[Inquiry], Awaitable[Check]]
