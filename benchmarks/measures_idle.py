"""What it costs to have models that nobody calls, and replicas more of one: memory (PSS), idle CPU, and the start."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import FLOOR, PLAIN, ROOST, SETTLE_S, Bench, Figures, Round, Sizes, copies, take_turns
from contenders import Plain, check
from load import call_once
from models import JSON, Model
from processes import Tree
from roost_server import Roost

_MANY, _NONE, _FEW = "registered", "empty", "replicas"
"""Data folders in the benchmark's own: with many models, with none, and with some copies of each model."""


def prepare_asleep(work: Path, models: dict[str, Model], sizes: Sizes) -> None:
    """The data folders with many models and with none; the first start makes the database and the tenant."""
    server = Roost(work / _MANY, work)
    try:
        begun = time.monotonic()
        server.deploy(models["tiny"], copies("tiny", "asleep", sizes.registered))
        took = time.monotonic() - begun
        print(f"{sizes.registered} models registered in {took:.1f} s ({took / sizes.registered * 1e3:.0f} ms each)")
    finally:
        server.stop()
    Roost(work / _NONE, work).stop()


def prepare_replicas(work: Path, models: dict[str, Model], sizes: Sizes) -> None:
    """A data folder with the models that are to be awake together."""
    server = Roost(work / _FEW, work)
    try:
        for name, count in sizes.replicas.items():
            server.deploy(models[name], copies(name, "replica", count + 1))
    finally:
        server.stop()


def asleep(bench: Bench, rotation: int) -> Round:
    """Memory of the process tree with many models that are not in use; Roost's start with them and its idle CPU."""
    jobs = {FLOOR: lambda: _floor_open(bench), PLAIN: lambda: _plain_open(bench), ROOST: lambda: _roost_asleep(bench)}
    results = take_turns(jobs, rotation)
    for figures in results.values():
        difference = figures["registered_mib"] - figures["empty_mib"]
        figures["per_model_kib"] = difference * 1024 / bench.sizes.registered
    return results


def _roost_asleep(bench: Bench) -> Figures:
    empty = Roost(bench.work / _NONE, bench.work)
    try:
        time.sleep(SETTLE_S)
        figures: Figures = {"empty_mib": empty.tree.pss_mib()}
    finally:
        empty.stop()
    server = Roost(bench.work / _MANY, bench.work)
    try:
        figures["start_ms"] = server.ready_ms
        time.sleep(SETTLE_S)
        figures["registered_mib"] = server.tree.pss_mib()
        before = sum(server.tree.cpu_s().values())
        time.sleep(bench.sizes.idle_s)
        figures["idle_percent"] = (sum(server.tree.cpu_s().values()) - before) / bench.sizes.idle_s * 100
        return figures
    finally:
        server.stop()


def _plain_open(bench: Bench) -> Figures:
    """It cannot sleep: as many models are open in it."""
    server = Plain(bench.models_folder, bench.work)
    model = bench.models["tiny"]
    try:
        figures: Figures = {"start_ms": server.wait_for_answer(model, [JSON]), "empty_mib": server.tree.pss_mib()}
        for copy in copies("tiny", "open", bench.sizes.registered):
            call_once(server.target(copy), model.bodies[JSON])
        return figures | {"registered_mib": server.tree.pss_mib()}
    finally:
        server.stop()


def _floor_open(bench: Bench) -> Figures:
    figures: Figures = {}
    for key, count in (("empty_mib", 1), ("registered_mib", bench.sizes.registered)):
        tree = bench.floor.holding("tiny", count)
        figures[key] = tree.pss_mib()
        tree.stop()
    return figures


def replicas(bench: Bench, rotation: int) -> Round:
    """Memory that each replica more adds, and what share of the model's file that is; a second process, for others."""
    names = bench.sizes.replicas
    jobs: dict[str, Callable[[], Figures]] = {
        FLOOR: lambda: {name: _second_process(lambda name=name: bench.floor.holding(name, 1)) for name in names},
        PLAIN: lambda: {name: _second_process(lambda name=name: _plain_with(bench, name)) for name in names},
        ROOST: lambda: _roost_replicas(bench),
    }
    found = take_turns(jobs, rotation)
    file_mib = {name: bench.models[name].file.stat().st_size / 2**20 for name in names}
    return {
        contender: {f"{name}_mib": mib for name, mib in added.items()}
        | {f"{name}_share": mib / file_mib[name] for name, mib in added.items()}
        for contender, added in found.items()
    }


def _roost_replicas(bench: Bench) -> Figures:
    added: Figures = {}
    server = Roost(bench.work / _FEW, bench.work)
    try:
        for name, count in bench.sizes.replicas.items():
            model, before = bench.models[name], 0.0
            for index, copy in enumerate(copies(name, "replica", count + 1)):
                answer, _ = call_once(server.target(copy), model.bodies[JSON])
                check(model, answer, copy)
                if index == 0:  # the first one also grows the gateway and maps the weights
                    time.sleep(SETTLE_S)
                    before = server.tree.pss_mib()
            time.sleep(SETTLE_S)
            added[name] = (server.tree.pss_mib() - before) / count
        return added
    finally:
        server.stop()


def _plain_with(bench: Bench, name: str) -> Tree:
    server = Plain(bench.models_folder, bench.work)
    server.wait_for_answer(bench.models[name])
    return server.tree


def _second_process(start: Callable[[], Tree]) -> float:
    """MiB that a second process like this one adds to a first: what both share counts once."""
    with ExitStack() as stack:
        first = start()
        stack.callback(first.stop)
        alone = first.pss_mib()
        second = start()
        stack.callback(second.stop)
        return first.pss_mib() + second.pss_mib() - alone
