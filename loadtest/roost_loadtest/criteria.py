"""What a run is judged by: pure functions of a record. What each compares is said where it is computed.

Latencies count from when a request was due, and requests belong to the second in which they were due. A stretch is judged
from when it may have settled on; errors, bills and the way to zero are judged over everything.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from roost_loadtest.criterion import Criterion, at_least, at_most
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Record, Second
from roost_loadtest.replica_bounds import replica_criteria
from roost_loadtest.stretches import Stretch, stretches
from roost_loadtest.to_zero import zero_criteria

WINDOW_S = 5
"""Capacity is there when so many seconds in a row, taken together, meet the aims."""


def criteria(record: Record) -> tuple[Criterion, ...]:
    """In the order in which they are shown."""
    found = stretches(record)
    return (
        *(each for stretch in found for each in _of_stretch(record, stretch)),
        *(_capacity(record, stretch) for stretch in found if stretch.steady and stretch.rate >= stretch.rate_before),
        _errors(record),
        *replica_criteria(record, found),
        *zero_criteria(record),
        *_bills(record),
    )


def latency_aims(aims: Aims) -> Iterator[tuple[str, float, float | None]]:
    """Name, share and aim of each quantile, in seconds."""
    yield "p50", 0.5, aims.p50_s
    yield "p95", 0.95, aims.p95_s
    yield "p99", 0.99, aims.p99_s


def _of_stretch(record: Record, stretch: Stretch) -> Iterator[Criterion]:
    seconds = record.seconds[stretch.settled : stretch.end]
    if not sum(second.sent + second.dropped for second in seconds):
        return  # a pause in the load
    begin, end = float(stretch.settled), float(stretch.end)
    aims = record.plan.aims
    share = achieved(record.seconds, stretch.settled, stretch.end)
    yield Criterion(
        "achieved_rate", f"achieved rate at {stretch.rate:.4g}/s", at_least(share, aims.achieved),
        share, aims.achieved, ">=", "share", from_s=begin, to_s=end, detail="answered at the rate at which requests were due",
    )  # fmt: skip
    latency = Histogram.sum(second.latency for second in seconds)
    for name, quantile, aim in latency_aims(aims):
        measured = latency.quantile(quantile) if latency.count else None
        # Without a single answer there is no latency to be satisfied with.
        passed = None if aim is None else measured is not None and measured <= aim
        yield Criterion(
            f"latency_{name}", f"{name} from due time at {stretch.rate:.4g}/s", passed, measured, aim, "<=", "s",
            from_s=begin, to_s=end,
        )  # fmt: skip


def achieved(seconds: Sequence[Second], start: int, end: int) -> float:
    """Share of what was due that was answered, and within the stretch: a backlog that grows is rate that was not achieved.

    One more in flight at the end than at the begin is no backlog: it is where the stretch was cut.
    """
    inside = seconds[start:end]
    due = sum(second.sent + second.dropped for second in inside)
    answered = sum(second.answered for second in inside)
    waiting = seconds[start - 1].in_flight if start else 0
    grown = max(0, inside[-1].in_flight - waiting - 1) if inside else 0
    return max(0, answered - grown) / due if due else 1.0


def _capacity(record: Record, stretch: Stretch) -> Criterion:
    """From the step to the first WINDOW_S seconds in a row that, together, meet the aims of latency and rate."""
    window = min(WINDOW_S, stretch.end - stretch.start)
    starts = range(stretch.start, stretch.end - window + 1)
    reached = next((start for start in starts if _meets(record, start, start + window)), None)
    limit = record.plan.aims.capacity_within_s
    took = float(reached - stretch.start) if reached is not None else None
    return Criterion(
        "time_to_capacity", f"time to capacity: {stretch.cause}",
        None if limit is None else took is not None and took <= limit,
        took, limit, "<=", "s", from_s=float(stretch.start), to_s=float(stretch.end),
        detail=f"until {window} s in a row meet the aims" if took is not None else "the aims were never met",
    )  # fmt: skip


def _meets(record: Record, start: int, end: int) -> bool:
    aims = record.plan.aims
    latency = Histogram.sum(second.latency for second in record.seconds[start:end])
    fast = all(aim is None or latency.quantile(share) <= aim for _, share, aim in latency_aims(aims))
    return bool(latency.count) and fast and achieved(record.seconds, start, end) >= aims.achieved


def _errors(record: Record) -> Criterion:
    failed = sum(second.failed for second in record.seconds)
    total = failed + sum(second.answered for second in record.seconds)
    by_class = errors_by_class(record)
    share = failed / total if total else None
    return Criterion(
        "errors", "failed requests", at_most(share, record.plan.aims.errors) if total else False,
        share, record.plan.aims.errors, "<=", "share",
        detail=", ".join(f"{count} x {name}" for name, count in by_class.items()) or f"none of {total:,}",
    )  # fmt: skip


def errors_by_class(record: Record) -> dict[str, int]:
    """Most frequent first."""
    found: Counter[str] = Counter()
    for second in record.seconds:
        found.update(second.errors)
    return dict(found.most_common())


def _bills(record: Record) -> Iterator[Criterion]:
    """Calls that were billed are the answers that came back: not one more, not one less."""
    if not record.plan.aims.billed:
        return
    if not record.billing:
        yield Criterion("billed", "billed requests = answered calls", None, unit="requests", detail="no bill was read")
    for bill in record.billing:
        billed = bill.after - bill.before
        yield Criterion(
            "billed", "billed requests = answered calls", billed == bill.answered,
            float(billed), float(bill.answered), "==", "requests", target=bill.target,
            detail=f"the ledger went from {bill.before:,} to {bill.after:,}",
        )  # fmt: skip
