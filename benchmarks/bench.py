"""What every measure gets and gives: the contenders and models that are there, and figures by contender."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import InProcess, Plain, Runtime
from models import Model
from roost_server import Roost

FLOOR, PLAIN, ROOST = "session.run", "FastAPI", "Roost"

Figures = dict[str, Any]
"""Metric → number. `samples`, where there, are single milliseconds, which the report pools over rotations."""
Round = dict[str, Figures]
"""Contender → its figures in one rotation."""
Rounds = dict[str, list[Round]]
"""Measure → its rotations."""

SETTLE_S = 1.5
"""After a start or a change, before memory or idle time is taken."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the quick run has less."""

    seconds: int
    wakes: dict[str, int]
    """Model → copies that sleep and are woken one after another."""
    crowd: int
    registered: int
    idle_s: float
    replicas: dict[str, int]
    """Model → further replicas whose memory is taken."""
    uploads: int
    """After a first one of a fresh server."""
    codec_turns: int


@dataclass(frozen=True)
class Bench:
    """What is there to measure: the models, and the servers that run through all rotations."""

    models: dict[str, Model]
    sizes: Sizes
    work: Path
    models_folder: Path
    roost: Roost
    plain: Plain
    runtime: Runtime
    floor: InProcess

    def run_floor(self, job: str, model: str, amount: float) -> Any:
        """What a job of in_process.py printed."""
        done = subprocess.run(self.floor.command(job, model, amount), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


@dataclass(frozen=True)
class Measure:
    """`run` measures all contenders once, for the rotation of the number given."""

    run: Callable[[Bench, int], Round]
    rotations: int = 99
    """At most this many: what takes long and hardly varies is done less often."""


def copies(model: str, purpose: str, count: int) -> list[str]:
    """Names of models that hold the same file; the plain server knows them by what stands before the dash."""
    return [f"{model}-{purpose}{index}" for index in range(count)]


def take_turns(jobs: dict[str, Callable[[], Figures]], rotation: int) -> Round:
    """Run all, another one first each time."""
    names = list(jobs)
    first = rotation % len(names)
    return {name: jobs[name]() for name in names[first:] + names[:first]}
