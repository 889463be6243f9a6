"""A run as one HTML file that needs nothing else: no network, and no script for what matters. Pure.

The page's own policy allows its one style sheet and its two scripts, by their digests, and nothing else: what a model, an event or
an error is called can neither run nor load anything, even if it got past the escaping.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from roost_loadtest.criterion import shown
from roost_loadtest.record import Record
from roost_loadtest.report import charts, tables
from roost_loadtest.report.chart import Chart, Mark
from roost_loadtest.report.command import command
from roost_loadtest.report.figures import milliseconds, moment, plain
from roost_loadtest.report.stills import NINES, still
from roost_loadtest.report.timeline import Timeline
from roost_loadtest.verdict import Result, Verdict

_FILES = resources.files("roost_loadtest.report")
_POINTS = 1200
"""At most, of a line: more than a screen has columns for it."""
_VALUES = 20_000
"""At most, of all lines together: about 80 KiB."""
_FEWEST = 150
_MARKS = 200
"""Events that are drawn; the list has all."""
_LISTED = 500
_WORDS = {Result.PASS: "Passed", Result.FAIL: "Failed", Result.INVALID: "Proves nothing"}


def to_html(record: Record, verdict: Verdict) -> str:
    """The same record gives the same page."""
    line = Timeline.of(record, points=_POINTS)
    shown_charts = charts.over_time(line)
    if (most := _VALUES // max(1, sum(len(chart.lines) for chart in shown_charts))) < len(line.times):
        line = Timeline.of(record, points=max(most, _FEWEST))
        shown_charts = charts.over_time(line)
    found = [mark for mark in charts.marks(record) if mark.number is None or mark.number <= _MARKS]
    whole = charts.distribution(record)
    style = _read("uplot/uPlot.min.css") + _read("templates/report.css")
    scripts = [_read("uplot/uPlot.iife.min.js"), _read("templates/report.js")]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "shown": shown, "wanted": tables.wanted, "where": tables.where, "plain": plain, "moment": moment, "by_weight": tables.by_weight,
    }  # fmt: skip
    return environment.from_string(_read("templates/report.html.jinja")).render(
        record=record,
        verdict=verdict,
        word=_WORDS[verdict.result],
        what=[plain(target) for target in verdict.run["targets"]],
        tiles=list(_tiles(record, verdict)),
        charts=[(chart, _still(chart, line, found, at == 0)) for at, chart in enumerate(shown_charts)],
        whole=(whole, still(whole, step=0, length=0)) if not whole.empty else None,
        quiet=charts.quiet(line),
        step=line.step,
        events=tables.events(record)[:_LISTED],
        more_events=max(0, len(record.events) - _LISTED),
        steady=tables.steady(record),
        health=tables.health(record),
        numbers=tables.numbers(record),
        about=[
            each for each in (tables.streams(record.plan), tables.scaling(record), tables.billing(record)) if each.rows
        ],
        facts=list(tables.facts(record)),
        command=command(record.plan),
        licence=_read("uplot/LICENSE"),
        data=_embedded([*shown_charts, *([whole] if not whole.empty else [])], line, found),
        # Our own files; neither holds what would end the element that it is in.
        style=Markup(style),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        style_digest=_digest(style),
        script_digests=[_digest(script) for script in scripts],
    )


def _still(chart: Chart, line: Timeline, marks: list[Mark], numbered: bool) -> Markup:
    return still(chart, step=line.step, length=line.length, marks=marks, numbered=numbered)


def _tiles(record: Record, verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """What one wants to know first: name, figure, and what it is to be seen beside."""
    run = verdict.run
    requests, latency = run["requests"], run["latency_s"]
    due = requests["sent"] + requests["dropped"]
    yield (
        "answered",
        f"{requests['answered']:,}",
        f"of {due:,} due" + (f", {requests['dropped']:,} not sent" if requests["dropped"] else ""),
    )
    aim = record.plan.aims.p99_s
    p99 = "none" if latency["p99"] is None else milliseconds(latency["p99"] * 1000)
    yield (
        "p99 of the whole run",
        p99,
        f"starts included; once settled at most {milliseconds(aim * 1000)}" if aim is not None else "no aim",
    )
    over = requests["failed"] + requests["answered"]
    share = requests["failed"] / over if over else 0.0
    yield "failed", f"{requests['failed']:,}", f"{share * 100:.3g} %, at most {record.plan.aims.errors * 100:.3g} %"
    ready = [told["most_ready"] for told in run["replicas"].values() if told["most_ready"] is not None]
    cold = [told["cold_starts"] for told in run["replicas"].values() if told["cold_starts"] is not None]
    if ready:
        several = " of one model" if len(run["replicas"]) > 1 else ""
        yield (
            "replicas",
            f"{max(ready):,}",
            f"ready at most{several}" + (f", {sum(cold):,} cold start{'s' * (sum(cold) != 1)}" if cold else ""),
        )
    yield "duration", moment(run["duration_s"]), f"up to {_peak(record):,.4g} requests/s"


def _peak(record: Record) -> float:
    knots = {time for stream in record.plan.streams for time, _ in stream.shape.knots}
    # A piece that falls has its highest rate at its begin, one that rises just before its end.
    return max((record.plan.rate(max(0.0, at - before)) for at in knots for before in (0.0, 1e-6)), default=0.0)


def _embedded(shown_charts: list[Chart], line: Timeline, marks: list[Mark]) -> Markup:
    """As JSON that cannot end the element that it is in, nor begin another."""
    content = {
        "step": line.step,
        "length": line.length,
        "nines": NINES,
        "marks": [[round(mark.at, 1), plain(mark.text)[:200], mark.number] for mark in marks],
        "charts": [chart.to_json() for chart in shown_charts],
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for each in "<>&":
        text = text.replace(each, f"\\u{ord(each):04x}")
    return Markup(text)  # noqa: S704


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")
