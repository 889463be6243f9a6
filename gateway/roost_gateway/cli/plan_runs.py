"""The runs of `roost plan`: a model held at a number of replicas for a while, and short load tests of it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.loadtest import run, spelled
from roost_gateway.cli.session import Session
from roost_gateway.client import RoostClient
from roost_gateway.planning.records import Measured, measured
from roost_gateway.planning.search import Answer, answer, requests_needed

INTERRUPTED = 130
READY_S = 180.0
_POLL_S = 0.05
_SETTLE_S = 1
"""Left out of each run: connections are opened, and what was there before may still be there."""
_AGAIN = 3
"""Runs at one rate, at most, until its answer is clear."""
_MOST_IN_FLIGHT = 256
"""A rate that does not hold shows it soon; more would only take longer to drain."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(text: str, *, hint: str) -> float:
    """A duration as in 100ms, 2s, 5m."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time such as 100ms, 2s or 5m", param_hint=hint)
    return float(found[1]) * _UNITS[found[2]]


def offered(shape: str) -> list[float]:
    """Requests a second of a load shape, as the load tester reads it. Ends the command when it is none."""
    words = [sys.executable, "-m", "roost_loadtest.offered", "--", shape]
    answered = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if answered.returncode:
        raise typer.BadParameter(answered.stderr.strip().splitlines()[-1], param_hint="--shape")
    loads: list[float] = json.loads(answered.stdout)
    return loads


@contextmanager
def held(roost: RoostClient, model: str, replicas: Callable[[], int]) -> Iterator[Callable[[int], float]]:
    """Inside, `hold(n)` scales the model to exactly n replicas; on the way out it has its policy back, whatever happened.

    `hold` returns the seconds that it took until they were ready. Only kill -9 prevents the way out: it is Ctrl-C's and
    SIGTERM's as well, and neither can cut it short.
    """
    before: dict[str, Any] = roost.status(model)["scaling"]

    def hold(wanted: int) -> float:
        changes = {"min-scale": wanted, "max-scale": wanted, "initial-scale": 1, "activation-scale": 1}
        begin = time.monotonic()
        roost.set_scaling(model, changes)
        while replicas() != wanted:
            if time.monotonic() - begin > READY_S:
                show.error(f"Not at {wanted} replicas after {READY_S:g} s; see why with: roost status {model}")
                raise typer.Exit(1)
            time.sleep(_POLL_S)
        return time.monotonic() - begin

    terminate = signal.signal(signal.SIGTERM, _interrupted)
    try:
        yield hold
    finally:
        again = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            roost.set_scaling(model, before)
        finally:
            signal.signal(signal.SIGINT, again)
            signal.signal(signal.SIGTERM, terminate)


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Probe:
    """Runs at steady rates, by the load tester, judged by how many requests were late."""

    session: Session
    model: str
    aim_s: float
    confidence: float
    seconds_each: int
    options: Sequence[str]
    """For every run: what the requests hold."""
    folder: Path
    done: list[Measured]
    """All runs so far."""

    def holds(self, rate: float) -> bool:
        """Whether the rate is shown to hold; one that stays open is not."""
        requests = late = 0
        found = Answer.OPEN
        for _ in range(_AGAIN):
            seen = self.run(rate)
            requests, late = requests + seen.requests, late + seen.late
            found = answer(requests, late, confidence=self.confidence)
            # What the load tester sent late counts as late: so a rate that holds holds, whoever was slow.
            blame = "" if found is Answer.HOLDS or seen.fast_enough else ", and the load tester itself fell behind"
            show.error(
                f"  {rate:8.1f}/s  {late} of {requests} late, mean {1000 * seen.latency_s:.1f} ms: {found}{blame}"
            )
            if found is not Answer.OPEN:
                break
        return found is Answer.HOLDS

    def run(self, rate: float, *, length_s: int | None = None) -> Measured:
        """One run, long enough that an answer is possible. KeyboardInterrupt when it was interrupted."""
        # Half as many again as would do without any late one, so that a few may be.
        needed = 1.5 * requests_needed(confidence=self.confidence)
        length = _SETTLE_S + (length_s or max(self.seconds_each, ceil(needed / rate)))
        words = spelled(
            {
                "qps": f"{rate:.3f}",
                "duration": f"{length}s",
                "p99": f"{self.aim_s}s",
                "seed": len(self.done) + 1,
                "connections": _MOST_IN_FLIGHT,
                "timeout": f"{max(10.0, 10 * self.aim_s):g}s",
                "no-billing": True,
                "out": self.folder,
            }
        )
        status = run(self.session, ["run", *words, *self.options, "--quiet", "--", self.model])
        if status == INTERRUPTED or status < 0:  # by a signal, before it could listen to one
            raise KeyboardInterrupt
        if status:
            raise typer.Exit(status)
        record = json.loads((self.folder / "record.json").read_text(encoding="utf-8"))
        seen = measured(record, rate=rate, aim_s=self.aim_s, settle_s=_SETTLE_S)
        self.done.append(seen)
        return seen
