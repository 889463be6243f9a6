"""Which tables a report has, and their columns."""

from dataclasses import dataclass

from bench import FLOOR, PLAIN
from measures_codec import PLAIN_CODE
from measures_neighbour import ALONE
from measures_wake import WARM


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
    bases: tuple[str, ...] = (FLOOR, PLAIN)
    """Each row's ratio to these."""
    over: tuple[str, ...] = ()
    """The ratio of these to each row."""


LOAD = (
    Column("rps", "requests/s"),
    Column("cpu_us", "server CPU µs/request"),
    Column("own_us", "of it first process", spread=False),
    Column("below_us", "its children", spread=False),
    Column("p50_ms", "p50 ms", 2, spread=False),
    Column("p99_ms", "p99 ms", 2, spread=False),
)
_WAKE = (Column("median_ms", "median ms", 2), Column("waiting_ms", "of it waiting for a replica (mean)", 2))
_WAKE_BASES = (FLOOR, WARM, PLAIN)

TABLES = (
    Table("wake tiny", "Wake from zero: tiny model (0.3 kB)", _WAKE, samples=True, bases=_WAKE_BASES),
    Table("wake cnn", "Wake from zero: CNN (45 MB)", _WAKE, samples=True, bases=_WAKE_BASES),
    Table("wake mlp", "Wake from zero: three dense layers (96 MiB)", _WAKE, samples=True, bases=_WAKE_BASES),
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
    Table("throughput tiny c16", "Throughput: tiny model, JSON, 16 connections", LOAD),
    Table("throughput tiny c64", "Throughput: tiny model, JSON, 64 connections", LOAD),
    Table("throughput cnn c16", "Throughput: CNN (45 MB), JSON of 28 kB, 16 connections", LOAD),
    Table(
        "metering",
        "What metering costs: tiny model, JSON, 16 connections, by turns",
        (LOAD[0], Column("of_unmetered", "÷ not metered (middle of the turns)", 3), *LOAD[1:]),
        bases=(),
    ),
    Table(
        "slow model",
        "Throughput: a model of some 25 ms a run, JSON, 8 connections per core",
        (LOAD[0], Column("of_cores", "÷ (session.run x cores)", 3), *LOAD[1:]),
    ),
    Table(
        "half load",
        "Latency at half load: tiny model, JSON, random arrivals",
        (
            Column("p50_ms", "p50 ms", 3),
            Column("p95_ms", "p95 ms", 3),
            Column("p99_ms", "p99 ms", 3),
            Column("p50_over_ms", "p50 over the runtime alone, ms", 3),
            Column("p99_over_ms", "p99 over the runtime alone, ms", 3),
            Column("cpu_us", "server CPU µs/request", spread=False),
            Column("rate", "requests/s", spread=False),
        ),
    ),
    Table("tensor json", "A 1x3x224x224 tensor as JSON (1.35 MB), 4 connections", LOAD),
    Table("tensor binary", "The same tensor as binary (602 kB), 4 connections", LOAD),
    Table(
        "codec",
        "The same tensor inside one process: least CPU µs",
        (
            Column("image_us", "JSON to array"),
            Column("image_id_us", "with an id"),
            Column("nested_us", "as nested lists"),
            Column("image_out_us", "array to JSON"),
            Column("row_us", "four numbers to array", 1),
            Column("row_out_us", "to JSON", 1),
        ),
        bases=(PLAIN_CODE,),
    ),
    Table(
        "asleep",
        "Many models registered and asleep (Roost) or open (others): memory (PSS of all processes), start, idle CPU",
        (
            Column("registered_mib", "with the models, MiB", 1),
            Column("empty_mib", "with none (Roost) or one, MiB", 1),
            Column("per_model_kib", "per model, KiB", 1),
            Column("start_ms", "start ms"),
            Column("idle_percent", "idle CPU, % of a core", 2),
        ),
    ),
    Table(
        "replicas",
        "Memory of each further replica (PSS), and its share of the model's file",
        (
            Column("mlp_mib", "dense layers (96 MiB), MiB", 1),
            Column("mlp_share", "÷ file", 3),
            Column("cnn_mib", "CNN (45 MB), MiB", 1),
            Column("cnn_share", "÷ file", 3),
            Column("tiny_mib", "tiny, MiB", 1),
        ),
    ),
    Table(
        "upload",
        "Upload of the CNN (45 MB, other bytes each time) to its first right answer",
        (
            Column("median_ms", "median ms"),
            Column("accepted_ms", "of it until accepted"),
            Column("answer_ms", "ready and first answer"),
        ),
        samples=True,
        bases=(FLOOR,),
    ),
    Table(
        "neighbour",
        "Two tenants: B sends 200 requests/s to the tiny model",
        (
            Column("p99_ms", "B's p99 ms", 2),
            Column("p95_ms", "p95 ms", 2),
            Column("p50_ms", "p50 ms", 2),
            Column("a_answered", "A answered/s"),
            Column("a_refused", "A refused/s"),
        ),
        bases=(ALONE,),
    ),
)
