"""What Roost is meant to reach on one machine, beside what a run reached."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench import FLOOR, PLAIN, ROOST, Round, Rounds
from measures_codec import PLAIN_CODE
from measures_metering import METERED
from measures_neighbour import ALONE, BESIDE
from measures_wake import WARM
from summary import middle, percentile, pooled, ratios

Value = Callable[[list[Round]], float]


@dataclass(frozen=True)
class Aim:
    """`value` of the measure's rotations is to be `limit` at most, or at least."""

    row: str
    what: str
    measure: str
    value: Value
    limit: float
    at_least: bool = False
    unit: str = ""
    digits: int = 2

    def cells(self, rotations: list[Round]) -> list[str]:
        """Row, what, aim, reached, and whether that is enough."""
        value = self.value(rotations)
        met = value >= self.limit if self.at_least else value <= self.limit
        sign = "≥" if self.at_least else "≤"
        reached = f"{value:,.{self.digits}f}{self.unit}"
        return [self.row, self.what, f"{sign} {self.limit:g}{self.unit}", reached, "met" if met else "**missed**"]


def _of_samples(name: str, share: int) -> Value:
    return lambda rotations: percentile(pooled(rotations, name), share)


def _tail(rotations: list[Round]) -> float:
    samples = pooled(rotations, ROOST)
    return percentile(samples, 99) / percentile(samples, 50)


def _middle(metric: str, name: str = ROOST) -> Value:
    return lambda rotations: middle(rotations, name, metric)


def _ratio(base: str, metric: str, name: str = ROOST) -> Value:
    return lambda rotations: median(ratios(rotations, name, base, metric))


_BESIDE = _ratio(ALONE, "p99_ms", BESIDE)
_OPENING = _ratio(FLOOR, "median_ms")

AIMS = (
    Aim("a", "tiny model wakes, p50", "wake tiny", _of_samples(ROOST, 50), 5, unit=" ms"),
    Aim("a", "its p99 ÷ its p50", "wake tiny", _tail, 2),
    Aim("a", "CNN (45 MB) wakes ÷ its warm run in process, p50", "wake cnn", _ratio(WARM, "median_ms"), 1.4),
    Aim("a", "its p99 ÷ its p50", "wake cnn", _tail, 2),
    Aim("b", "many sleeping models at once: last answer, no error", "crowd", _middle("last_ms"), 1000, unit=" ms"),
    Aim("c", "requests/s, 16 connections, ÷ FastAPI", "throughput tiny c16", _ratio(PLAIN, "rps"), 2.5, True),
    Aim("c", "requests/s, 64 connections, ÷ FastAPI", "throughput tiny c64", _ratio(PLAIN, "rps"), 2.5, True),
    Aim(
        "d", "25 ms model: requests/s ÷ (one thread in process x cores)", "slow model", _middle("of_cores"), 0.95, True
    ),
    Aim("e", "added latency at half load, p50", "half load", _middle("p50_over_ms"), 0.4, unit=" ms"),
    Aim("e", "added latency at half load, p99", "half load", _middle("p99_over_ms"), 1.5, unit=" ms"),
    Aim("f", "image tensor, JSON to array ÷ (json.loads + np.array)", "codec", _ratio(PLAIN_CODE, "image_us"), 0.15),
    Aim("f", "image tensor, binary: whole copies of the payload", "codec", _middle("binary_copies"), 2, digits=0),
    Aim("g", "many models asleep: memory", "asleep", _middle("registered_mib"), 200, unit=" MiB", digits=0),
    Aim("g", "many models asleep: CPU, of a core", "asleep", _middle("idle_percent"), 1, unit=" %"),
    Aim("g", "many models asleep: start to ready", "asleep", _middle("start_ms"), 2000, unit=" ms", digits=0),
    Aim("h", "private memory of a further replica (96 MiB) ÷ file", "replicas", _middle("mlp_share"), 0.15),
    Aim("i", "upload to first right answer (45 MB) ÷ opening and running it", "upload", _OPENING, 3),
    Aim("neighbour", "B's p99 beside A at ten times its limit ÷ alone, no error of B's", "neighbour", _BESIDE, 1.2),
    Aim(
        "money",
        "requests/s metered ÷ not metered, tiny model",
        "metering",
        _middle("of_unmetered", METERED),
        0.98,
        True,
        digits=3,
    ),
    Aim("", "requests/s, CNN, ÷ FastAPI", "throughput cnn c16", _ratio(PLAIN, "rps"), 1, True),
    Aim("", "requests/s, image as JSON, ÷ FastAPI", "tensor json", _ratio(PLAIN, "rps"), 1, True),
    Aim("", "requests/s, image as binary, ÷ FastAPI", "tensor binary", _ratio(PLAIN, "rps"), 1, True),
)
"""The rows without a letter are older: nothing is slower than a server written by hand."""


def reached(rounds: Rounds) -> list[list[str]]:
    """Cells of one row for each aim whose measure was run."""
    return [aim.cells(rounds[aim.measure]) for aim in AIMS if aim.measure in rounds]
