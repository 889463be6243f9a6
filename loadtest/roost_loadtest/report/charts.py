"""The charts of a run: what each shows, and what it says in a sentence. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from roost_loadtest.criteria import errors_by_class, latency_aims
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Record, Second
from roost_loadtest.report.chart import Chart, Level, Line, Mark
from roost_loadtest.report.figures import milliseconds, moment, plain
from roost_loadtest.report.timeline import Timeline, Values, predicted
from roost_loadtest.stretches import stretches

_COLOURS = ("blue", "orange", "green", "purple", "red", "grey")
_DASHES = ("", "dashed", "dotted")
_CLASSES = 5
"""Of errors that have a line of their own."""
_TARGETS = 6
"""Models that have a line of their own where all are in one chart."""
_MOST_NINES = 5.0


def over_time(line: Timeline) -> tuple[Chart, ...]:
    """All on the axis of the run's seconds, in the order in which they are shown; those without anything to show are left out."""
    charts = (_rates(line), _latency(line), *_replicas(line), _in_flight(line), _cold_starts(line), _errors(line))
    return tuple(chart for chart in charts if not chart.empty)


def quiet(line: Timeline) -> tuple[str, ...]:
    """What there is no chart of, because nothing of it happened."""
    said = []
    if _cold_starts(line).empty:
        known = any(told.cold_starts is not None for each in line.record.seconds for told in each.replicas.values())
        said.append("No cold starts." if known else "The platform told no cold starts.")
    if line.record.seconds and _errors(line).empty:
        said.append("No errors, and every request that was due was sent.")
    return tuple(said)


def marks(record: Record) -> tuple[Mark, ...]:
    """Steps of the load, and what happened meanwhile."""
    steps = [Mark(float(each.start), each.cause) for each in stretches(record) if each.start]
    events = [Mark(at, text, number) for number, (at, text) in enumerate(record.events, 1)]
    return (*steps, *events)


def distribution(record: Record) -> Chart:
    """Latency by the share of requests that had less: from due time, beside what the server alone would show."""
    latency = record.latency
    nines = min(_MOST_NINES, math.log10(max(latency.count, 1)))
    xs = tuple(each / 20 for each in range(math.floor(nines * 20) + 1))
    due, sent = _by_share(latency, xs), _by_share(record.service, xs)
    last = milliseconds(latency.largest * 1000)
    return Chart(
        "distribution", "Latency by share of requests", unit="ms", xs=xs if latency.count else (), levels=_aims(record),
        lines=(
            Line("from when it was due", due, "blue", wide=True),
            Line("from when it was sent", sent, "grey", dash="dashed"),
        ),
        says=f"Of {latency.count:,} requests, the slowest took {last}. Where the two lines part, requests waited to be sent.",
    )  # fmt: skip


def _by_share(histogram: Histogram, nines: tuple[float, ...]) -> Values:
    if not histogram.count:
        return ()
    return tuple(histogram.quantile(1 - 10**-each) * 1000 for each in nines)


def _rates(line: Timeline) -> Chart:
    offered = line.mean(lambda second: second.offered)
    finished = line.mean(lambda second: second.finished)
    lines = [
        Line("offered", offered, "grey", look="steps", fill=True),
        Line("answered, of those due then", line.mean(lambda second: second.answered), "green", dash="dashed"),
    ]
    if any(finished):
        lines.append(Line("finished then", finished, "blue", wide=True))
    says = "Requests a second."
    if peak := _peak(line, offered):
        says = f"Requests a second: at most {peak[0]:,.4g} offered, from {moment(peak[1])}."
    return Chart("rates", "Offered and achieved rate", tuple(lines), unit="rate", says=says)


def _latency(line: Timeline) -> Chart:
    p50, p95, p99, most = (line.quantile(index) for index in range(4))
    worst = _peak(line, p99)
    return Chart(
        "latency", "Latency, from when a request was due", unit="ms", levels=_aims(line.record),
        lines=(
            Line("max", most, "grey", dash="dotted"),
            Line("p99", p99, "red", wide=True),
            Line("p95", p95, "purple", dash="dashed"),
            Line("p50", p50, "blue"),
        ),
        says=f"The worst second's p99 is {milliseconds(worst[0])}, at {moment(worst[1])}." if worst else "",
    )  # fmt: skip


def _aims(record: Record) -> tuple[Level, ...]:
    return tuple(
        Level(f"{name} aim {milliseconds(aim * 1000)}", aim * 1000)
        for name, _, aim in latency_aims(record.plan.aims)
        if aim is not None
    )


def _replicas(line: Timeline) -> Iterator[Chart]:
    for number, target in enumerate(line.targets):
        ready = line.replicas(target, lambda told: told.ready)
        lines = [
            Line("ready", ready, "blue", look="steps", fill=True, wide=True),
            Line("wanted", line.replicas(target, lambda told: told.wanted), "orange", look="steps", dash="dashed"),
            Line("as KPA predicts", line.curve(predicted(line.record.platform, target)), "purple", "steps", "dotted"),
            Line("of earlier versions", line.replicas(target, lambda told: told.others), "grey", "steps"),
        ]
        peak = _peak(line, ready)
        panic = _spans(line, line.replicas(target, lambda told: None if told.panic is None else float(told.panic)))
        yield Chart(
            f"replicas-{number}", f"Replicas of {plain(target)}",
            # A line of zeros alone would only make people look for it; of what is ready, zero says something.
            tuple(each for at, each in enumerate(lines) if (any(each.values) if at else not _unknown(each.values))),
            says=(f"At most {peak[0]:g} ready, from {moment(peak[1])}." if peak else "None was ready.")
            + (" Shaded: panic mode." if panic else ""),
            bands=panic, band="panic mode",
        )  # fmt: skip


def _in_flight(line: Timeline) -> Chart:
    lines = [Line("in flight", line.highest(lambda second: second.in_flight), "blue", fill=True)]
    for number, target in enumerate(line.targets[:_TARGETS]):
        queued = line.replicas(target, lambda told: told.queued)
        if not _unknown(queued):
            name = f"queued, {plain(target)}" if len(line.targets) > 1 else "queued by the platform"
            colours = [each for each in _COLOURS if each != "blue"]
            lines.append(Line(name, queued, colours[number % len(colours)], "steps", _DASHES[number % 3]))
    peak = _peak(line, lines[0].values)
    says = f"At most {peak[0]:,g} at the end of a second, at {moment(peak[1])}." if peak else ""
    return Chart("in-flight", "Requests in flight and queued", tuple(lines), says=says)


def _cold_starts(line: Timeline) -> Chart:
    grown = {target: line.grown(target, lambda told: told.cold_starts) for target in line.targets}
    lines = [
        Line(plain(target), values, _COLOURS[number % 6], look="bars")
        for number, (target, values) in enumerate(grown.items())
        if any(values)
    ]
    total = sum(value or 0 for values in grown.values() for value in values)
    return Chart("cold-starts", f"Cold starts{_each(line)}", tuple(lines), says=f"{total:g} in all.")


def _errors(line: Timeline) -> Chart:
    found = Counter(errors_by_class(line.record))
    own = [name for name, _ in found.most_common(_CLASSES)]
    rest = {name for name in found if name not in own}
    lines = [
        Line(plain(name), line.total(_count({name})), _COLOURS[4 - number], "bars") for number, name in enumerate(own)
    ]
    if rest:
        lines.append(Line(f"{len(rest)} other classes", line.total(_count(rest)), "grey", "bars"))
    dropped = line.total(lambda second: second.dropped)
    if any(dropped):
        lines.append(Line("not sent", dropped, "grey", "steps", "dotted"))
    by_class = ", ".join(f"{count:,} x {plain(name)}" for name, count in found.most_common(_CLASSES))
    return Chart("errors", f"Errors{_each(line)}", tuple(lines), says=by_class)


def _count(names: Collection[str]) -> Callable[[Second], float]:
    return lambda second: sum(count for name, count in second.errors.items() if name in names)


def _each(line: Timeline) -> str:
    return f", each {line.step} s" if line.step > 1 else ", each second"


def _spans(line: Timeline, values: Values) -> tuple[tuple[float, float], ...]:
    """Where a value is not 0, as stretches of time."""
    spans: list[tuple[float, float]] = []
    for start, value in zip(line.times, values, strict=True):
        if value:
            joined = spans and spans[-1][1] == start
            spans[-1:] = [(spans[-1][0], start + line.step)] if joined else [*spans[-1:], (start, start + line.step)]
    return tuple(spans)


def _peak(line: Timeline, values: Values) -> tuple[float, float] | None:
    """The highest value, and the first point that has it; None when there is none but 0."""
    known = [(value, -at) for at, value in zip(line.times, values, strict=True) if value]
    if not known:
        return None
    value, at = max(known)
    return value, -at


def _unknown(values: Values) -> bool:
    return all(value is None for value in values)
