"""Under load: requests a second and what each costs, as fast as they go; and latency at a steady pace."""

import json
import os
from collections.abc import Callable
from subprocess import PIPE, Popen

from bench import FLOOR, PLAIN, ROOST, Bench, Figures, Round, take_turns
from contenders import Contender
from load import paced, wrk
from models import JSON, Body

RUNTIME = "Roost's runtime alone"
ROOST_HALF = "Roost, half of its own rate"
EACH_CORE = "session.run, a process per core"

_PROBE_S = 2


def throughput(bench: Bench, rotation: int, name: str, connections: int) -> Round:
    """As many requests as go in a closed loop, JSON; wrk shares the cores with the server."""
    body = bench.models[name].bodies[JSON]
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", name, max(1, bench.sizes.seconds // 2))),
        PLAIN: lambda: closed_loop(bench.plain, name, body, connections, bench.sizes.seconds),
        ROOST: lambda: closed_loop(bench.roost, name, body, connections, bench.sizes.seconds),
    }
    return take_turns(jobs, rotation)


def slow(bench: Bench, rotation: int) -> Round:
    """A model of some 25 ms a run: how much of all cores the requests get, beside one thread times the cores.

    A process per core is what the machine itself permits at that moment.
    """
    body, seconds, cores = bench.models["slow"].bodies[JSON], bench.sizes.seconds, len(os.sched_getaffinity(0))
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", "slow", seconds)),
        EACH_CORE: lambda: _on_each_core(bench, seconds, cores),
        PLAIN: lambda: closed_loop(bench.plain, "slow", body, 8 * cores, seconds),
        # Longer: it starts a replica for each core first, and answers come in steps of 25 ms.
        ROOST: lambda: closed_loop(bench.roost, "slow", body, 8 * cores, 2 * seconds, warming_s=3),
    }
    results = take_turns(jobs, rotation)
    one = results[FLOOR]["rps"]
    for figures in results.values():
        figures["of_cores"] = figures["rps"] / (one * cores)
    return results


def _on_each_core(bench: Bench, seconds: float, cores: int) -> Figures:
    command = bench.floor.command("run", "slow", seconds)
    children = [Popen(command, stdout=PIPE, text=True) for _ in range(cores)]
    found = [json.loads(child.communicate()[0]) for child in children]
    return {"rps": sum(one["rps"] for one in found), "cpu_us": sum(one["cpu_us"] for one in found) / cores}


def tensor(bench: Bench, rotation: int, kind: str) -> Round:
    """A 602 kB image tensor, as JSON (1.35 MB) or binary, on 4 connections."""
    body, seconds = bench.models["image"].bodies[kind], max(2, bench.sizes.seconds - 1)
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: dict(bench.run_floor("run", "image", 1)),
        PLAIN: lambda: closed_loop(bench.plain, "image", body, 4, seconds),
        ROOST: lambda: closed_loop(bench.roost, "image", body, 4, seconds),
    }
    return take_turns(jobs, rotation)


def closed_loop(
    contender: Contender, name: str, body: Body, connections: int, seconds: int, *, warming_s: int = 1
) -> Figures:
    """Rate, CPU per request and latency. Raises RuntimeError when a request failed."""
    target = contender.target(name)
    if warming_s:
        wrk(target, body, connections=connections, seconds=warming_s)
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
        for share in ("p50", "p99"):
            results[name][f"{share}_over_ms"] = results[name][f"{share}_ms"] - results[RUNTIME][f"{share}_ms"]
    return results
