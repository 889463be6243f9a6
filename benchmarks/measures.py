"""The measurements: one function each, for one rotation, with the contenders taking turns inside it.

Each returns contender → figures. `samples`, where there, are single milliseconds that the report pools over rotations.
"""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from contenders import Contender, InProcess, Plain, Runtime, check
from load import at_once, call_once, paced, wrk
from models import BINARY, JSON, Body, Model
from processes import Tree
from roost_server import Roost

FLOOR, PLAIN, ROOST = "session.run", "FastAPI", "Roost"
PLAIN_ANEW = "FastAPI, process started anew"
RUNTIME = "Roost's runtime alone"
ROOST_HALF = "Roost, half of its own rate"

Figures = dict[str, Any]
Round = dict[str, Figures]

_WAKE_PAUSE_S = 0.5
"""Between two wakes: spares are made again 50 ms after one was taken, and single wakes are what is measured."""
_SETTLE_S = 1.5
_PROBE_S = 2


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the quick run has less."""

    seconds: int
    wakes: dict[str, int]
    """Model → copies that sleep and are woken one after another."""
    crowd: int
    registered: int
    replicas: dict[str, int]
    """Model → further replicas whose memory is taken."""


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
    registered_data: Path
    """Data folder with `registered` models, none of them awake."""

    def run_floor(self, job: str, model: str, amount: float) -> Any:
        done = subprocess.run(self.floor.command(job, model, amount), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def copies(model: str, purpose: str, count: int) -> list[str]:
    """Names of models that hold the same file; the plain server knows them by what stands before the dash."""
    return [f"{model}-{purpose}{index}" for index in range(count)]


def take_turns(jobs: dict[str, Callable[[], Figures]], rotation: int) -> Round:
    """Run all, another one first each time."""
    names = list(jobs)
    first = rotation % len(names)
    return {name: jobs[name]() for name in names[first:] + names[:first]}


def wake(bench: Bench, rotation: int, name: str) -> Round:
    """From a request for a sleeping model to its answer, one model after another."""
    model, count = bench.models[name], bench.sizes.wakes[name]
    body, sleeping = model.bodies[JSON], copies(name, "wake", count)

    def one_by_one(contender: Contender, pause_s: float) -> Figures:
        took = []
        for copy in sleeping:
            time.sleep(pause_s)
            answer, ms = call_once(contender.target(copy), body)
            check(model, answer, copy)
            took.append(ms)
        return {"samples": took}

    def roost() -> Figures:
        bench.roost.wait_until_asleep(sleeping)
        before = bench.roost.cold_starts()
        figures = one_by_one(bench.roost, _WAKE_PAUSE_S)
        number, seconds = (now - then for now, then in zip(bench.roost.cold_starts(), before, strict=True))
        if number != count:
            raise RuntimeError(f"{number:g} of {count} calls woke a model")
        return figures | {"waiting_ms": seconds / number * 1e3}

    plain = Plain(bench.models_folder, bench.work)
    try:
        anew = plain.wait_for_answer(model, [JSON])
        jobs = {
            FLOOR: lambda: {"samples": bench.run_floor("open", name, count)},
            PLAIN: lambda: one_by_one(plain, 0.05),
            ROOST: roost,
        }
        return take_turns(jobs, rotation) | {PLAIN_ANEW: {"samples": [anew]}}
    finally:
        plain.stop()


def crowd(bench: Bench, rotation: int) -> Round:
    """Sleeping models that are all hit at once, one request each."""
    model = bench.models["tiny"]
    sleeping = copies("tiny", "crowd", bench.sizes.crowd)

    def hit(contender: Contender) -> Figures:
        results = at_once([contender.target(copy) for copy in sleeping], model.bodies[JSON])
        for answer, _ in results:
            check(model, answer, "one of many at once")
        return _of_crowd([ms for _, ms in results])

    def roost() -> Figures:
        bench.roost.wait_until_asleep(sleeping)
        return hit(bench.roost)

    plain = Plain(bench.models_folder, bench.work)
    try:
        plain.wait_for_answer(model)
        jobs = {
            FLOOR: lambda: _of_crowd(list(accumulate(bench.run_floor("open", "tiny", len(sleeping))))),
            PLAIN: lambda: hit(plain),
            ROOST: roost,
        }
        return take_turns(jobs, rotation)
    finally:
        plain.stop()


def _of_crowd(took: Sequence[float]) -> Figures:
    ordered = sorted(took)
    return {"samples": ordered, "first_ms": ordered[0], "last_ms": ordered[-1]}


def throughput(bench: Bench, rotation: int, name: str, connections: int) -> Round:
    """As many requests as go in a closed loop, JSON; wrk shares the cores with the server."""
    body = bench.models[name].bodies[JSON]
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", name, max(1, bench.sizes.seconds // 2))),
        PLAIN: lambda: closed_loop(bench.plain, name, body, connections, bench.sizes.seconds),
        ROOST: lambda: closed_loop(bench.roost, name, body, connections, bench.sizes.seconds),
    }
    return take_turns(jobs, rotation)


def tensor(bench: Bench, rotation: int, kind: str) -> Round:
    """A 602 kB image tensor, as JSON (1.35 MB) or binary, on 4 connections."""
    body, seconds = bench.models["image"].bodies[kind], max(2, bench.sizes.seconds - 1)
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", "image", 1)),
        PLAIN: lambda: closed_loop(bench.plain, "image", body, 4, seconds),
        ROOST: lambda: closed_loop(bench.roost, "image", body, 4, seconds),
    }
    return take_turns(jobs, rotation)


def closed_loop(contender: Contender, name: str, body: Body, connections: int, seconds: int) -> Figures:
    target = contender.target(name)
    wrk(target, body, connections=connections, seconds=1)
    before = contender.tree.cpu_s()
    result = wrk(target, body, connections=connections, seconds=seconds)
    spent = {part: now - before[part] for part, now in contender.tree.cpu_s().items()}
    if result["failures"]:
        raise RuntimeError(f"{type(contender).__name__}: {result['failures']:g} requests failed")
    per_answer = 1e6 / result["answers"]
    return {
        "rps": result["answers"] / result["seconds"],
        "cpu_us": sum(spent.values()) * per_answer,
        "own_us": spent["own"] * per_answer,
        "below_us": spent["below"] * per_answer,
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
    }


def half_load(bench: Bench, rotation: int) -> Round:
    """Latency of the tiny model at half of what plain FastAPI can do, and of Roost at half of what it can do itself."""
    body = bench.models["tiny"].bodies[JSON]
    servers: dict[str, Contender] = {PLAIN: bench.plain, RUNTIME: bench.runtime, ROOST: bench.roost}
    half = {name: closed_loop(servers[name], "tiny", body, 16, _PROBE_S)["rps"] / 2 for name in (PLAIN, ROOST)}

    def steady(contender: Contender, rate: float) -> Figures:
        before = sum(contender.tree.cpu_s().values())
        took = paced(contender.target("tiny"), body, rate=rate, seconds=bench.sizes.seconds)
        count = len(took)
        return {
            "cpu_us": (sum(contender.tree.cpu_s().values()) - before) / count * 1e6,
            "rate": count / bench.sizes.seconds,
            "p50_ms": took[count // 2],
            "p95_ms": took[count * 95 // 100],
            "p99_ms": took[count * 99 // 100],
        }

    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", "tiny", 1)),
        PLAIN: lambda: steady(bench.plain, half[PLAIN]),
        RUNTIME: lambda: steady(bench.runtime, half[PLAIN]),
        ROOST: lambda: steady(bench.roost, half[PLAIN]),
        ROOST_HALF: lambda: steady(bench.roost, half[ROOST]),
    }
    results = take_turns(jobs, rotation)
    for name in (PLAIN, RUNTIME, ROOST, ROOST_HALF):
        results[name]["over_runtime_ms"] = results[name]["p50_ms"] - results[RUNTIME]["p50_ms"]
    return results


def memory(bench: Bench, rotation: int) -> Round:
    """Memory of the process tree (PSS) with many models that are not in use, and of each replica more."""
    jobs = {
        FLOOR: lambda: _floor_memory(bench),
        PLAIN: lambda: _plain_memory(bench),
        ROOST: lambda: _roost_memory(bench),
    }
    return take_turns(jobs, rotation)


def _roost_memory(bench: Bench) -> Figures:
    empty = Roost(bench.work / "empty", bench.work)
    try:
        time.sleep(_SETTLE_S)
        figures: Figures = {"empty_mib": empty.tree.pss_mib()}
    finally:
        empty.stop()
    server = Roost(bench.registered_data, bench.work)
    try:
        figures["start_ms"] = server.ready_ms
        time.sleep(_SETTLE_S)
        before = figures["registered_mib"] = server.tree.pss_mib()
        figures["per_model_kib"] = (before - figures["empty_mib"]) * 1024 / bench.sizes.registered
        for name, count in bench.sizes.replicas.items():
            model = bench.models[name]
            for index, copy in enumerate(copies(name, "asleep", count + 1)):
                answer, _ = call_once(server.target(copy), model.bodies[JSON])
                check(model, answer, copy)
                if index == 0:  # the first one also grows the gateway and maps the weights
                    time.sleep(_SETTLE_S)
                    before = server.tree.pss_mib()
            time.sleep(_SETTLE_S)
            figures[f"{name}_mib"] = (server.tree.pss_mib() - before) / count
        return figures
    finally:
        server.stop()


def _plain_memory(bench: Bench) -> Figures:
    """It cannot sleep: `registered` models are open in it. A further replica is a further process."""
    server = Plain(bench.models_folder, bench.work)
    model = bench.models["tiny"]
    try:
        figures: Figures = {"start_ms": server.wait_for_answer(model, [JSON]), "empty_mib": server.tree.pss_mib()}
        for copy in copies("tiny", "open", bench.sizes.registered):
            call_once(server.target(copy), model.bodies[JSON])
        figures["registered_mib"] = server.tree.pss_mib()
        figures["per_model_kib"] = (figures["registered_mib"] - figures["empty_mib"]) * 1024 / bench.sizes.registered
    finally:
        server.stop()
    for name in bench.sizes.replicas:
        figures[f"{name}_mib"] = _second_process(lambda name=name: _plain_with(bench, name))
    return figures


def _plain_with(bench: Bench, name: str) -> Tree:
    server = Plain(bench.models_folder, bench.work)
    server.wait_for_answer(bench.models[name])
    return server.tree


def _floor_memory(bench: Bench) -> Figures:
    figures: Figures = {}
    for key, count in (("empty_mib", 1), ("registered_mib", bench.sizes.registered)):
        tree = bench.floor.holding("tiny", count)
        figures[key] = tree.pss_mib()
        tree.stop()
    figures["per_model_kib"] = (figures["registered_mib"] - figures["empty_mib"]) * 1024 / bench.sizes.registered
    for name in bench.sizes.replicas:
        figures[f"{name}_mib"] = _second_process(lambda name=name: bench.floor.holding(name, 1))
    return figures


def _second_process(start: Callable[[], Tree]) -> float:
    """MiB that a second process like this one adds to a first: what both share counts once."""
    with ExitStack() as stack:
        first = start()
        stack.callback(first.stop)
        alone = first.pss_mib()
        second = start()
        stack.callback(second.stop)
        return first.pss_mib() + second.pss_mib() - alone


MEASURES: dict[str, Callable[[Bench, int], Round]] = {
    "wake tiny": lambda bench, rotation: wake(bench, rotation, "tiny"),
    "wake cnn": lambda bench, rotation: wake(bench, rotation, "cnn"),
    "wake mlp": lambda bench, rotation: wake(bench, rotation, "mlp"),
    "crowd": crowd,
    "throughput tiny c16": lambda bench, rotation: throughput(bench, rotation, "tiny", 16),
    "throughput tiny c64": lambda bench, rotation: throughput(bench, rotation, "tiny", 64),
    "throughput cnn c16": lambda bench, rotation: throughput(bench, rotation, "cnn", 16),
    "half load": half_load,
    "tensor json": lambda bench, rotation: tensor(bench, rotation, JSON),
    "tensor binary": lambda bench, rotation: tensor(bench, rotation, BINARY),
    "memory": memory,
}
"""In this order: what wakes models comes first, and before the next they are asleep again."""
