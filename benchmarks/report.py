"""From figures to tables: medians with their spread over the rotations, and ratios taken inside each rotation."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from measures import FLOOR, PLAIN, ROOST, Round

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

WAKE_AIM_MS = 50

Rounds = dict[str, list[Round]]
"""Measure → its rotations."""


@dataclass(frozen=True)
class Column:
    metric: str
    title: str
    digits: int = 0
    spread: bool = True


@dataclass(frozen=True)
class Table:
    """One measure as a table; ratios are those of the first column. `samples`: percentiles over all rotations."""

    measure: str
    title: str
    columns: tuple[Column, ...]
    samples: bool = False


_LOAD = (
    Column("rps", "requests/s"),
    Column("cpu_us", "server CPU µs/request"),
    Column("own_us", "of it first process", spread=False),
    Column("below_us", "its children", spread=False),
    Column("p50_ms", "p50 ms", 2, spread=False),
    Column("p99_ms", "p99 ms", 2, spread=False),
)
_WAKE = (Column("median_ms", "median ms", 2), Column("waiting_ms", "of it waiting for a replica (mean)", 2))

TABLES = (
    Table("wake tiny", "Wake from zero: tiny model (0.3 kB)", _WAKE, samples=True),
    Table("wake cnn", "Wake from zero: CNN (45 MB)", _WAKE, samples=True),
    Table("wake mlp", "Wake from zero: three dense layers (96 MiB)", _WAKE, samples=True),
    Table(
        "crowd",
        "Sleeping models hit at once, one request each (tiny model)",
        (
            Column("last_ms", "last answer ms"),
            Column("median_ms", "median ms"),
            Column("first_ms", "first answer ms", 1),
        ),
        samples=True,
    ),
    Table("throughput tiny c16", "Throughput: tiny model, JSON, 16 connections", _LOAD),
    Table("throughput tiny c64", "Throughput: tiny model, JSON, 64 connections", _LOAD),
    Table("throughput cnn c16", "Throughput: CNN (45 MB), JSON of 28 kB, 16 connections", _LOAD),
    Table(
        "half load",
        "Latency at half load: tiny model, JSON, random arrivals",
        (
            Column("p50_ms", "p50 ms", 3),
            Column("p95_ms", "p95 ms", 3),
            Column("p99_ms", "p99 ms", 3),
            Column("over_runtime_ms", "p50 over the runtime alone, ms", 3),
            Column("cpu_us", "server CPU µs/request", spread=False),
            Column("rate", "requests/s", spread=False),
        ),
    ),
    Table("tensor json", "A 1x3x224x224 tensor as JSON (1.35 MB), 4 connections", _LOAD),
    Table("tensor binary", "The same tensor as binary (602 kB), 4 connections", _LOAD),
    Table(
        "memory",
        "Memory (PSS of all processes)",
        (
            Column("registered_mib", "with the models registered (Roost) or open (others), MiB", 1),
            Column("empty_mib", "with none (Roost) or one, MiB", 1),
            Column("per_model_kib", "per model, KiB", 1),
            Column("tiny_mib", "per further replica, tiny, MiB", 1),
            Column("cnn_mib", "per further replica, CNN, MiB", 1),
            Column("start_ms", "start ms"),
        ),
    ),
)


def tables(rounds: Rounds) -> list[str]:
    """Markdown lines; measures that were not run are left out."""
    lines: list[str] = []
    for table in TABLES:
        if table.measure in rounds:
            lines += ["", f"### {table.title}", "", *render(table, rounds[table.measure])]
    return lines


def aims(rounds: Rounds) -> list[str]:
    """Markdown lines: what Roost is meant to reach, what it reached, and whether that is enough."""
    rows = []
    if "wake tiny" in rounds:
        reached = _percentile(_pooled(rounds["wake tiny"], ROOST), 95)
        rows.append(("Tiny model wakes in 50 ms or less (p95)", f"{reached:.1f} ms", reached <= WAKE_AIM_MS))
    for table in TABLES:
        if table.measure in rounds and table.columns[0].metric == "rps":
            ratio = median(_ratios(rounds[table.measure], ROOST, PLAIN, "rps"))
            rows.append((f"{table.title}: at least FastAPI's rate", f"{ratio:.2f} of it", ratio >= 1))
    if not rows:
        return []
    shown = [_row([aim, reached, "met" if met else "**missed**"]) for aim, reached, met in rows]
    return ["", "### Aims", "", _row(["aim", "reached", ""]), _row(["---"] * 3), *shown]


def render(table: Table, rotations: list[Round]) -> list[str]:
    contenders = list(dict.fromkeys(name for rotation in rotations for name in rotation))
    contenders.sort(key=lambda name: (name != FLOOR, not name.startswith("FastAPI"), name))
    shown = [c for c in table.columns if any(c.metric in _figures(r, n) for r in rotations for n in contenders)]
    titles = ["", *(column.title for column in shown)]
    titles += ["p50 / p95 / p99 ms of all (count)"] if table.samples else []
    bases = [base for base in (FLOOR, PLAIN) if base in contenders]
    titles += [f"ratio to {base}" for base in bases]
    lines = [_row(titles), _row(["---"] * len(titles))]
    for name in contenders:
        cells = [_cell([_figures(r, name).get(column.metric) for r in rotations], column) for column in shown]
        if table.samples:
            cells.append(_percentiles(_pooled(rotations, name)))
        cells += [_ratio(rotations, name, base, table.columns[0].metric) for base in bases]
        lines.append(_row([name, *cells]))
    return lines


def _figures(rotation: Round, name: str) -> dict[str, Any]:
    figures = rotation.get(name, {})
    samples = figures.get("samples")
    return {**figures, "median_ms": median(samples)} if samples else figures


def _cell(values: Sequence[float | None], column: Column) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return _spread(known, column.digits) if column.spread else f"{median(known):,.{column.digits}f}"


def _spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def _percentiles(samples: list[float]) -> str:
    return " / ".join(f"{_percentile(samples, share):.1f}" for share in (50, 95, 99)) + f" ({len(samples)})"


def _percentile(samples: list[float], share: int) -> float:
    return sorted(samples)[min(len(samples) - 1, len(samples) * share // 100)]


def _pooled(rotations: list[Round], name: str) -> list[float]:
    return [ms for rotation in rotations for ms in rotation[name].get("samples", ())]


def _ratio(rotations: list[Round], name: str, base: str, metric: str) -> str:
    """The median of the ratios of each rotation, with their spread."""
    if name == base:
        return "1"
    ratios = _ratios(rotations, name, base, metric)
    if not ratios:
        return "-"
    digits = 3 if median(ratios) < 0.1 else 2 if median(ratios) < 10 else 0
    return _spread(ratios, digits)


def _ratios(rotations: list[Round], name: str, base: str, metric: str) -> list[float]:
    pairs = [(_figures(r, name).get(metric), _figures(r, base).get(metric)) for r in rotations]
    return [value / reference for value, reference in pairs if value is not None and reference]


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
    ]


def write_between_markers(file: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the markers; the prose around them stays. Raises ValueError without markers."""
    text = file.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} lacks the lines {BEGIN} and {END}")
    file.write_text("\n".join([before + BEGIN, *lines, END + after]))
