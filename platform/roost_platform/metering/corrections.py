"""Corrections: what an operator adds to the usage of calls, or takes back, as new rows beside the ledger.

(`source`, `id`) is unique for ever. The same correction again changes nothing, however late it comes; another one under
the same key is refused, and the first stays. A correction counts at its `time`, at the price of then: to undo a call where it
was billed, it carries the call's own time. Functions of a connection.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, and_, func, select

from roost_platform.database.money_tables import ledger_conflicts, usage_corrections
from roost_platform.database.tables import tenants, usage_events
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.hours import hour_of
from roost_platform.domain.usage import Outcome
from roost_platform.metering.recording import CALLS, insert_for, mark_dirty

LATEST = timedelta(days=35)
"""How old usage may be when it is corrected."""
EARLIEST = timedelta(minutes=5)
"""How far ahead a correction's time may be: clocks differ."""
AMOUNTS = ("requests", "rows", "compute_us", "bytes_in", "bytes_out")


@dataclass(frozen=True, slots=True)
class Correction:
    """Amounts are added to what was metered; negative ones take it back."""

    source: str
    """Who says so. Up to 64 characters."""
    id: str
    """Names the correction within its source. Up to 128 characters."""
    time: datetime
    """Aware UTC; decides hour, month and price."""
    tenant: str
    model: str
    version: int
    outcome: Outcome
    requests: int
    rows: int
    compute_us: int
    bytes_in: int
    bytes_out: int
    corrects_source: str
    """The call of the ledger that is meant; empty when no single one is."""
    corrects_sequence: int
    """0 when no single one is."""
    reason: str
    """For people. Up to 500 characters."""

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("a correction needs an aware time")

    @property
    def content(self) -> str:
        """All it says, in one way of writing: two corrections with the same content are the same."""
        return json.dumps(asdict(self) | {"time": self.time.astimezone(UTC).isoformat()}, sort_keys=True)

    @property
    def content_hash(self) -> str:
        return sha256(self.content.encode()).hexdigest()


_FIELDS = tuple(field.name for field in fields(Correction))


class CorrectionRefused(Exception):
    """One of the corrections was refused, and so all of them. `error` says why, of number `index`."""

    def __init__(self, index: int, error: InvalidRequest | NotFound | Conflict) -> None:
        super().__init__(error.message)
        self.index = index
        self.error = error


def record_corrections(connection: Connection, corrections: Sequence[Correction], now: datetime) -> list[bool]:
    """Add all of them, or none; says of each whether it was there already.

    Raises CorrectionRefused; the caller's transaction must end then, and `note_conflict` keep what came under a known key
    with other content. Rules of time hold for new ones only.
    """
    new = _insert_new(connection, corrections, now)
    known = _known_tenants(connection, {corrections[index].tenant for index in new})
    first: dict[tuple[str, str], str] = {}
    for index, correction in enumerate(corrections):
        key = (correction.source, correction.id)
        if index in new:
            _check(index, correction, known, now)
            first[key] = correction.content_hash
        elif (first.get(key) or _stored_hash(connection, key)) != correction.content_hash:
            message = f"a correction {correction.id!r} of {correction.source!r} is there, with other content"
            raise CorrectionRefused(index, Conflict(message, code="correction_differs", field="id"))
    _check_corrected(connection, {index: corrections[index] for index in sorted(new)})
    mark_dirty(connection, CALLS, {(c.tenant, hour_of(c.time)) for c in (corrections[index] for index in new)})
    return [index not in new for index in range(len(corrections))]


def note_conflict(connection: Connection, correction: Correction, now: datetime) -> None:
    """Keep what came under a known key with other content, for a person to look at; once, however often it comes."""
    row = insert_for(connection.dialect)(ledger_conflicts).values(
        source=correction.source,
        id=correction.id,
        content_hash=correction.content_hash,
        content=correction.content,
        seen_at=now,
    )
    connection.execute(row.on_conflict_do_nothing())


@dataclass(frozen=True, slots=True)
class Recorded:
    correction: Correction
    recorded_at: datetime


def list_corrections(
    connection: Connection, *, tenant: str, start: datetime, end: datetime, limit: int, offset: int = 0
) -> list[Recorded]:
    """Those of a tenant whose time is in [start, end), in the order in which they came."""
    row = usage_corrections.c
    query = (
        select(usage_corrections)
        .where(row.tenant == tenant, row.time >= start, row.time < end)
        .order_by(row.recorded_at, row.source, row.id)
        .limit(limit)
        .offset(offset)
    )
    return [_recorded(found) for found in connection.execute(query).mappings()]


def _insert_new(connection: Connection, corrections: Sequence[Correction], now: datetime) -> set[int]:
    """Add what is not there; returns the places of those that were not.

    In the order of their keys: of two that add the same ones in two orders, each would wait for the other.
    """
    insert = insert_for(connection.dialect)(usage_corrections)
    new = set()
    for index in sorted(range(len(corrections)), key=lambda i: (corrections[i].source, corrections[i].id, i)):
        correction = corrections[index]
        values = asdict(correction) | {"recorded_at": now, "content_hash": correction.content_hash}
        added = insert.values(values).on_conflict_do_nothing().returning(usage_corrections.c.id)
        if connection.execute(added).first() is not None:
            new.add(index)
    return new


def _stored_hash(connection: Connection, key: tuple[str, str]) -> str | None:
    row = usage_corrections.c
    found: str | None = connection.scalar(select(row.content_hash).where(row.source == key[0], row.id == key[1]))
    return found


def _known_tenants(connection: Connection, names: set[str]) -> frozenset[str]:
    return frozenset(connection.scalars(select(tenants.c.name).where(tenants.c.name.in_(names))))


def _check(index: int, correction: Correction, known: frozenset[str], now: datetime) -> None:
    if correction.tenant not in known:
        raise CorrectionRefused(index, NotFound("no such tenant", field="subject"))
    if correction.time < now - LATEST:
        message = f"usage of more than {LATEST.days} days ago can no longer be corrected"
        raise CorrectionRefused(index, InvalidRequest(message, code="correction_too_late", field="time"))
    if correction.time > now + EARLIEST:
        message = f"a correction's time can be at most {EARLIEST.seconds // 60} minutes ahead"
        raise CorrectionRefused(index, InvalidRequest(message, code="correction_too_early", field="time"))


def _check_corrected(connection: Connection, new: dict[int, Correction]) -> None:
    """The calls that are named exist, and all corrections of one, old and new, leave nothing of it below zero.

    A call is locked while its corrections are summed: of two that take the same away, one must see the other.
    """
    targets: dict[tuple[str, int], list[int]] = {}
    for index, correction in new.items():
        if correction.corrects_source:
            targets.setdefault((correction.corrects_source, correction.corrects_sequence), []).append(index)
    refusals: dict[int, InvalidRequest | Conflict] = {}
    for target, indexes in sorted(targets.items()):
        refusal = _refusal(connection, target, [new[index] for index in indexes])
        if refusal is not None:
            refusals[indexes[refusal[0]]] = refusal[1]
    if refusals:
        index = min(refusals)
        raise CorrectionRefused(index, refusals[index])


def _refusal(
    connection: Connection, target: tuple[str, int], corrections: Sequence[Correction]
) -> tuple[int, InvalidRequest | Conflict] | None:
    """What is wrong with these corrections of one call, and with which of them."""
    event = usage_events.c
    found = (
        connection.execute(
            select(usage_events).where(event.source == target[0], event.sequence == target[1]).with_for_update()
        )
        .mappings()
        .one_or_none()
    )
    for place, correction in enumerate(corrections):
        if found is None or found["tenant"] != correction.tenant:
            message = "the ledger has no such call of this tenant"
            return place, InvalidRequest(message, code="corrected_call_unknown", field="data.corrects")
        if (found["model"], found["version"]) != (correction.model, correction.version):
            message = f"that call was one of {found['model']}, version {found['version']}"
            return place, InvalidRequest(message, code="corrected_call_differs", field="data.model")
    row = usage_corrections.c
    of_target = and_(row.corrects_source == target[0], row.corrects_sequence == target[1])
    sums = [func.sum(row[name]) for name in AMOUNTS]
    for outcome, *amounts in connection.execute(select(row.outcome, *sums).where(of_target).group_by(row.outcome)):
        for name, amount in zip(AMOUNTS, amounts, strict=True):
            had = found[name] if found is not None and found["outcome"] == outcome else 0
            if had + amount < 0:
                # Those of before left nothing below zero: one of these takes it there.
                place = next(i for i, c in enumerate(corrections) if c.outcome == outcome and getattr(c, name) < 0)
                message = (
                    f"all corrections of that call together would leave {had + int(amount)} {name} ({outcome}) of it"
                )
                return place, Conflict(message, code="corrected_below_zero", field=f"data.{name}")
    return None


def _recorded(row: Any) -> Recorded:
    values = {name: row[name] for name in _FIELDS}
    return Recorded(Correction(**values | {"outcome": Outcome(row["outcome"])}), row["recorded_at"])
