"""The verdict on a run: passed, failed, or invalid, because the generator was too slow for it to prove anything. Pure.

`verdict.json` is this, with the field names of `Verdict.to_json`; they are stable, and new ones may be added.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from roost_loadtest.criteria import criteria, errors_by_class
from roost_loadtest.criterion import Criterion, at_most
from roost_loadtest.record import Record

FORMAT = "roost-loadtest-verdict/1"
LAG_S = 0.010
"""Most that one request in a hundred may have been sent late."""
CPU = 0.85
"""Most of a core that the busiest process may have used."""
STARVED_S = 0.5
"""Longest time for which a process may not have got to run."""
_SIGMAS = 5.0
"""A Poisson schedule has more or fewer requests than on average, but hardly ever by more standard deviations than these."""


class Result(StrEnum):
    PASS = "pass"  # noqa: S105 - a word of the verdict
    FAIL = "fail"
    INVALID = "invalid"

    @property
    def exit_code(self) -> int:
        """Of the command: 0, 1, 2."""
        return list(Result).index(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`validity` says whether the run proves anything, `criteria` what it proves."""

    result: Result
    validity: tuple[Criterion, ...]
    criteria: tuple[Criterion, ...]
    run: dict[str, Any]
    """What was run, and its totals."""

    @property
    def exit_code(self) -> int:
        return self.result.exit_code

    @property
    def broken(self) -> tuple[Criterion, ...]:
        """What decided against it; empty when it passed."""
        against = self.validity if self.result is Result.INVALID else self.criteria
        return tuple(each for each in against if each.passed is False)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "result": str(self.result),
            "exit_code": self.exit_code,
            "run": self.run,
            "validity": [each.to_json() for each in self.validity],
            "criteria": [each.to_json() for each in self.criteria],
        }

    def to_text(self) -> str:
        """The content of verdict.json."""
        return json.dumps(self.to_json(), indent=1) + "\n"


def judge(record: Record) -> Verdict:
    """The same record gives the same verdict, on any machine."""
    checks, found = tuple(validity(record)), criteria(record)
    if any(each.passed is False for each in checks):
        result = Result.INVALID
    else:
        result = Result.FAIL if any(each.passed is False for each in found) else Result.PASS
    return Verdict(result, checks, found, _run(record))


def validity(record: Record) -> Iterator[Criterion]:
    """Whether what was measured is the platform, not the generator."""
    generator = record.generator
    dropped = sum(second.dropped for second in record.seconds)
    yield Criterion(
        "dropped", "requests not sent", dropped == 0, float(dropped), 0.0, "<=", "requests",
        detail=f"{record.plan.connections} were in flight already, per process" if dropped else "",
    )  # fmt: skip
    yield _schedule(record)
    lag = generator.lag.quantile(0.99)
    yield Criterion("send_lag_p99", "p99 of the send lag", at_most(lag, LAG_S), lag, LAG_S, "<=", "s")
    yield Criterion(
        "generator_cpu", "busiest generator process", at_most(generator.cpu, CPU), generator.cpu, CPU, "<=", "share"
    )
    starved = generator.starved_s
    yield Criterion("starved", "longest time not run", at_most(starved, STARVED_S), starved, STARVED_S, "<=", "s")


def _schedule(record: Record) -> Criterion:
    """Whether as many requests became due as the plan has on average: a run that was broken off has fewer."""
    due = sum(second.sent + second.dropped for second in record.seconds)
    planned = record.plan.offered(0, record.plan.duration_s)
    spread = max([stream.burstiness for stream in record.plan.streams] + [1.0])
    least = max(0.0, planned - _SIGMAS * spread * math.sqrt(planned) - 1)
    return Criterion(
        "schedule", "requests due", due >= least, float(due), float(math.ceil(least)), ">=", "requests",
        detail=f"{planned:,.0f} on average by the plan",
    )  # fmt: skip


def _run(record: Record) -> dict[str, Any]:
    latency = record.latency
    answered = sum(second.answered for second in record.seconds)
    return {
        "started_at": record.started_at,
        "duration_s": float(record.plan.duration_s),
        "targets": list(dict.fromkeys(str(stream.target) for stream in record.plan.streams)),
        "engine": record.platform.get("engine"),
        "platform_version": record.platform.get("version"),
        "requests": {
            "planned": round(record.plan.offered(0, record.plan.duration_s), 3),
            "sent": sum(second.sent for second in record.seconds),
            "answered": answered,
            "failed": sum(second.failed for second in record.seconds),
            "dropped": sum(second.dropped for second in record.seconds),
        },
        "errors": errors_by_class(record),
        "latency_s": {
            name: round(latency.quantile(share), 6) if latency.count else None
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
        },
        "service_p99_s": round(record.service.quantile(0.99), 6) if record.service.count else None,
        "replicas": _replicas(record),
    }


def _replicas(record: Record) -> dict[str, dict[str, int | None]]:
    """By target: the most that were ready at once, and how often it woke from zero."""
    found: dict[str, dict[str, int | None]] = {}
    for second in (*record.seconds, *record.after):
        for target, told in second.replicas.items():
            before = found.get(target, {"most_ready": None, "cold_starts": None})
            ready = [each for each in (before["most_ready"], told.ready) if each is not None]
            colds = [each for each in (before["cold_starts"], told.cold_starts) if each is not None]
            found[target] = {"most_ready": max(ready, default=None), "cold_starts": max(colds, default=None)}
    return found
