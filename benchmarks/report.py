"""From figures to Markdown: medians with their spread over the rotations, and ratios taken inside each rotation."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from aims import reached
from bench import FLOOR, Round, Rounds
from summary import figures_of, percentile, pooled, ratios
from tables import TABLES, Column, Table

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def tables(rounds: Rounds) -> list[str]:
    """Markdown lines; measures that were not run are left out."""
    lines: list[str] = []
    most = max(map(len, rounds.values()))
    for table in TABLES:
        if rotations := rounds.get(table.measure):
            fewer = f" ({len(rotations)} rotations)" if len(rotations) < most else ""
            lines += ["", f"### {table.title}{fewer}", "", *render(table, rotations)]
    return lines


def aims(rounds: Rounds) -> list[str]:
    """Markdown lines: what Roost is meant to reach, what it reached, and whether that is enough."""
    rows = reached(rounds)
    return ["", "### Aims", "", *grid(["", "what", "aim", "reached", ""], rows)] if rows else []


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [_row(titles), _row(["---"] * len(titles)), *map(_row, rows)]


def render(table: Table, rotations: list[Round]) -> list[str]:
    contenders = list(dict.fromkeys(name for rotation in rotations for name in rotation))
    contenders.sort(key=lambda name: (not name.startswith(FLOOR), not name.startswith("FastAPI"), name))
    shown = [c for c in table.columns if any(c.metric in figures_of(r, n) for r in rotations for n in contenders)]
    titles = ["", *(column.title for column in shown)]
    titles += ["p50 / p95 / p99 ms of all (count)"] if table.samples else []
    bases = [base for base in table.bases if base in contenders]
    titles += [f"ratio to {base}" for base in bases] + [f"{name} ÷ this" for name in table.over]
    rows, metric = [], table.columns[0].metric
    for name in contenders:
        cells = [_cell([figures_of(r, name).get(column.metric) for r in rotations], column) for column in shown]
        if table.samples:
            cells.append(_percentiles(pooled(rotations, name)))
        cells += [_ratio(rotations, name, base, metric) for base in bases]
        cells += [_ratio(rotations, other, name, metric) for other in table.over]
        rows.append([name, *cells])
    return grid(titles, rows)


def _cell(values: Sequence[float | None], column: Column) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return _spread(known, column.digits) if column.spread else f"{median(known):,.{column.digits}f}"


def _spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def _percentiles(samples: list[float]) -> str:
    if not samples:
        return "-"
    return " / ".join(f"{percentile(samples, share):.1f}" for share in (50, 95, 99)) + f" ({len(samples)})"


def _ratio(rotations: list[Round], name: str, base: str, metric: str) -> str:
    """The median of the ratios of each rotation, with their spread."""
    if name == base:
        return "1"
    found = ratios(rotations, name, base, metric)
    if not found:
        return "-"
    digits = 3 if median(found) < 0.1 else 2 if median(found) < 10 else 0
    return _spread(found, digits)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    packages = ("onnxruntime", "numpy", "uvicorn", "fastapi", "orjson")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "packages": {name: version(name) for name in packages},
    }


def heading(document: dict[str, Any]) -> list[str]:
    host = document["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in host["packages"].items())
    measured_on = (
        f"Measured on {host['date']}: {host['cores']} cores of {host['cpu']}, {host['memory_gib']} GiB, "
        f"Linux {host['kernel']}, Python {host['python']}; {packages}. Load average at the start "
        f"{host['load_at_start']:.2f}. Command: `{document['command']}` ({document['rotations']} interleaved rotation(s), "
        f"{document['minutes']:.0f} minutes)."
    )
    return [
        measured_on,
        "",
        "Median (least-most) over the rotations; ratios are of the first column and are taken inside each rotation.",
        *_sizes(document),
        "A wrong answer or an error ends the run. Servers, replicas and load share the cores: compare ratios, not times.",
    ]


def _sizes(document: dict[str, Any]) -> list[str]:
    sizes = document.get("sizes")
    return [f"Asleep are {sizes['registered']:,} models; hit at once are {sizes['crowd']}."] if sizes else []


def write_between_markers(file: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the markers; the prose around them stays. Raises ValueError without markers."""
    text = file.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} lacks the lines {BEGIN} and {END}")
    file.write_text("\n".join([before + BEGIN, *lines, END + after]))
