"""A run in Markdown, for a pull request or a page of the documentation. Pure."""

from roost_loadtest.criterion import Criterion, shown
from roost_loadtest.record import Record
from roost_loadtest.verdict import Result, Verdict

_WORDS = {Result.PASS: "passed", Result.FAIL: "failed", Result.INVALID: "invalid: the generator was too slow"}
_MARKS = {True: "pass", False: "**FAIL**", None: "-"}
_RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}


def to_markdown(record: Record, verdict: Verdict) -> str:
    run = verdict.run
    lines = [
        f"# Load test of {_text(', '.join(run['targets']))}: {_WORDS[verdict.result]}",
        "",
        *(f"- {_text(_broken(each))}" for each in verdict.broken),
        *([""] if verdict.broken else []),
        *_facts(record, verdict),
        "",
        *_table("Criteria", verdict.criteria),
        "",
        *_table("Validity of the run", verdict.validity),
    ]
    if run["errors"]:
        lines += ["", "## Errors", "", "| class | requests |", "|---|---:|"]
        lines += [f"| {_text(name)} | {count:,} |" for name, count in run["errors"].items()]
    if record.events:
        lines += ["", "## Events", "", "| s | what happened |", "|---:|---|"]
        lines += [f"| {at:.1f} | {_text(what)} |" for at, what in record.events]
    return "\n".join(lines) + "\n"


def _broken(each: Criterion) -> str:
    where = f" ({each.where})" if each.where else ""
    limit = f", {_RELATIONS[each.relation]} {shown(each.limit, each.unit)} wanted" if each.limit is not None else ""
    return f"{each.title}{where}: {shown(each.measured, each.unit)}{limit}" + (
        f" ({each.detail})" if each.detail else ""
    )


def _facts(record: Record, verdict: Verdict) -> list[str]:
    run = verdict.run
    requests, latency = run["requests"], run["latency_s"]
    quantiles = ", ".join(f"{name} {shown(latency[name], 's')}" for name in ("p50", "p95", "p99", "max"))
    engine = f" ({run['engine']})" if run["engine"] else ""
    platform = f" Roost {run['platform_version']}{engine}." if run["platform_version"] else ""
    sent, answered, failed, dropped = (f"{requests[name]:,}" for name in ("sent", "answered", "failed", "dropped"))
    return [
        f"{sent} requests in {run['duration_s']:g} s from {_text(record.started_at)}: {answered} answered, {failed} failed,",
        f"{dropped} not sent. Latency from due time: {quantiles}.{_text(platform)} Offered: {_offered(record)}.",
        *(
            f"{_text(target)}: {shown(told['most_ready'], 'replicas')} at most, {shown(told['cold_starts'], 'cold starts')}."
            for target, told in run["replicas"].items()
        ),
    ]


def _offered(record: Record) -> str:
    return ", ".join(
        f"{stream.process.value} {_text(str(stream.target))} up to {stream.shape.peak:.4g}/s (seed {stream.seed})"
        for stream in record.plan.streams
    )


def _table(title: str, found: tuple[Criterion, ...]) -> list[str]:
    return [
        f"## {title}",
        "",
        "| | criterion | where | measured | wanted | |",
        "|---|---|---|---:|---:|---|",
        *(
            f"| {_MARKS[each.passed]} | {_text(each.title)} | {_text(each.where)} | {shown(each.measured, each.unit)} "
            f"| {_wanted(each)} | {_text(each.detail)} |"
            for each in found
        ),
    ]


def _wanted(each: Criterion) -> str:
    return f"{_RELATIONS[each.relation]} {shown(each.limit, each.unit)}" if each.limit is not None else "-"


def _text(text: str) -> str:
    """What others wrote, as text: neither markup, nor a cell's end, nor a line's."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
