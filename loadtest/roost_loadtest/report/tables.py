"""The tables of a report. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from roost_loadtest.criteria import achieved
from roost_loadtest.criterion import Criterion, shown
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Plan, Record, Second
from roost_loadtest.report.figures import milliseconds, moment, plain
from roost_loadtest.stretches import stretches

RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}
_ROWS = 60
"""Of the table that stands for the charts."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    heads: tuple[tuple[str, bool], ...]
    """Text, and whether figures are below it."""
    rows: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[float, float], ...] = ()
    """Of each row, the seconds that it is about; empty when rows are about something else."""


def wanted(each: Criterion) -> str:
    return (
        f"{RELATIONS.get(each.relation, each.relation)} {shown(each.limit, each.unit)}"
        if each.limit is not None
        else ""
    )


def where(each: Criterion) -> str:
    """The model and the time, as the charts' axis has it."""
    times = f"{moment(each.from_s)}-{moment(each.to_s)}" if each.from_s is not None and each.to_s is not None else ""
    return " ".join(filter(None, (plain(each.target), times)))


def by_weight(found: Iterable[Criterion]) -> list[Criterion]:
    """What failed first, what decides nothing last."""
    return sorted(found, key=lambda each: (False, True, None).index(each.passed))


def steady(record: Record) -> Table:
    """Each stretch without the seconds that autoscaling may need at its begin."""
    rows, spans = [], []
    for each in stretches(record) if record.seconds else ():
        inside = record.seconds[each.settled : each.end]
        latency = Histogram.sum(second.latency for second in inside)
        failed = sum(second.failed for second in inside)
        due = sum(second.due for second in inside)
        rate = f"{each.rate:,.4g}/s" + ("" if each.steady else " on average")
        rows.append(
            (
                f"{moment(each.settled)}-{moment(each.end)}", plain(each.cause), rate, f"{due:,}",
                shown(achieved(record.seconds, each.settled, each.end), "share") if due else "",
                *(_quantile(latency, share) for share in (0.5, 0.95, 0.99, 1.0)),
                f"{failed:,}", _replicas(inside),
            )
        )  # fmt: skip
        spans.append((float(each.start), float(each.end)))
    heads = (
        ("judged", False), ("after", False), ("offered", True), ("due", True), ("achieved", True), ("p50", True),
        ("p95", True), ("p99", True), ("max", True), ("failed", True), ("ready replicas", True),
    )  # fmt: skip
    return Table("Stretches", heads, tuple(rows), tuple(spans))


def numbers(record: Record) -> Table:
    """What the charts show, for those who cannot see them: at most sixty rows."""
    seconds = {each.second: each for each in (*record.after, *record.seconds)}
    length = max(seconds, default=-1) + 1
    step = max(1, math.ceil(length / _ROWS))
    rows = []
    for start in range(0, length, step):
        here = [seconds[at] for at in range(start, start + step) if at in seconds]
        latency = Histogram.sum(each.latency for each in here)
        per_second = [
            sum(column) / max(len(here), 1) for column in zip(*((s.offered, s.answered) for s in here), strict=True)
        ]
        rows.append(
            (
                moment(start), *(f"{value:,.4g}" for value in per_second or (0, 0)),
                *(_quantile(latency, share) for share in (0.5, 0.95, 0.99, 1.0)),
                f"{max((each.in_flight for each in here), default=0):,}", _replicas(here),
                f"{sum(each.failed for each in here):,}", f"{sum(each.dropped for each in here):,}",
            )
        )  # fmt: skip
    heads = (
        ("from", False), ("offered/s", True), ("answered/s", True), ("p50", True), ("p95", True), ("p99", True),
        ("max", True), ("in flight", True), ("ready replicas", True), ("failed", True), ("not sent", True),
    )  # fmt: skip
    return Table(f"In figures, each {step} s" if step > 1 else "In figures, each second", heads, tuple(rows))


def health(record: Record) -> Table:
    """How late requests were sent, beside what became of them: a generator that is late measures itself."""
    lag = record.generator.lag
    rows = [
        ("from when it was due until it was sent", *_quantiles(lag)),
        ("from when it was sent until the answer's end", *_quantiles(record.service)),
        ("from when it was due until the answer's end", *_quantiles(record.latency)),
    ]
    heads = (("of each request", False), *((name, True) for name in ("p50", "p95", "p99", "p99.9", "max")))
    return Table("Times of the generator", heads, tuple(rows))


def streams(plan: Plan) -> Table:
    rows = tuple(
        (
            plain(each.target), _process(each.process.value, each.burstiness), f"{each.shape.peak:,.4g}/s",
            moment(each.shape.duration_s), f"{each.shape.requests:,.0f}", str(each.seed), plain(each.payload),
        )
        for each in plan.streams
    )  # fmt: skip
    heads = (
        ("model", False), ("arrivals", False), ("highest rate", True), ("duration", True), ("requests", True),
        ("seed", True), ("payload", False),
    )  # fmt: skip
    return Table("Streams", heads, rows)


def billing(record: Record) -> Table:
    rows = tuple(
        (plain(each.target), *(f"{n:,}" for n in (each.before, each.after, each.after - each.before, each.answered)))
        for each in record.billing
    )
    heads = (("model", False), *((name, True) for name in ("before", "after", "billed", "answered")))
    return Table("Calls in the platform's ledger", heads, rows)


def scaling(record: Record) -> Table:
    policies: Mapping[str, Mapping[str, object]] = record.platform.get("scaling") or {}
    rows = tuple(
        (
            plain(target),
            ", ".join(f"{plain(name)} {plain(value)}" for name, value in options.items() if value is not None),
        )
        for target, options in policies.items()
    )
    return Table("Scaling", (("model", False), ("policy", False)), rows)


def facts(record: Record) -> Iterator[tuple[str, str]]:
    """What was run against what, as pairs."""
    plan, platform = record.plan, record.platform
    yield "started", plain(record.started_at)
    yield "server", plain(_without_user(plan.url))
    if platform.get("version"):
        yield "platform", plain(f"Roost {platform['version']}")
    if platform.get("engine"):
        yield "engine", plain(platform["engine"])
    yield (
        "generator",
        f"{plan.processes} process{'es' if plan.processes != 1 else ''}, {plan.connections:,} connections each",
    )
    yield "time-out", milliseconds(plan.timeout_s * 1000)
    others = set(platform) - {"version", "engine", "scaling", "prediction"}
    yield from ((plain(name), plain(platform[name])) for name in sorted(others))


def events(record: Record) -> list[tuple[int, str, str]]:
    return [(number, moment(max(0.0, at)), plain(text)) for number, (at, text) in enumerate(record.events, 1)]


def _without_user(url: str) -> str:
    """A URL may hold a password."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return ""


def _process(name: str, burstiness: float) -> str:
    return f"{name}, gaps' variation {burstiness:g}" if name == "gamma" else name


def _quantiles(histogram: Histogram) -> Iterator[str]:
    return (_quantile(histogram, share) for share in (0.5, 0.95, 0.99, 0.999, 1.0))


def _quantile(histogram: Histogram, share: float) -> str:
    return milliseconds(histogram.quantile(share) * 1000) if histogram.count else ""


def _replicas(seconds: Sequence[Second]) -> str:
    """Of all models together: the fewest and the most."""
    told = [[each.ready for each in second.replicas.values() if each.ready is not None] for second in seconds]
    sums = [sum(each) for each in told if each]
    if not sums:
        return ""
    return f"{min(sums)}" if min(sums) == max(sums) else f"{min(sums)}-{max(sums)}"
