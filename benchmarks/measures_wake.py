"""From zero to an answer: sleeping models one after another, and many at once."""

import time
from collections.abc import Sequence
from itertools import accumulate

from bench import FLOOR, PLAIN, ROOST, Bench, Figures, Round, copies, take_turns
from contenders import Contender, Plain, check
from load import at_once, call_once
from models import JSON

PLAIN_ANEW = "FastAPI, process started anew"
WARM = "session.run, warm"
"""The same run in a process that has the model open: what a wake is compared with."""

_PAUSE_S = 0.5
"""Between two wakes: spares are made again 50 ms after one was taken, and single wakes are what is measured."""
_MOST_OPEN_MIB = 256
"""Files kept open in one process: the memory of more, new to the kernel each time, would be what the others are timed by."""


def wake(bench: Bench, rotation: int, name: str) -> Round:
    """From a request for a sleeping model to its answer, one model after another."""
    model, count = bench.models[name], bench.sizes.wakes[name]
    body, sleeping = model.bodies[JSON], copies(name, "wake", count)
    opened = sleeping[: max(2, _MOST_OPEN_MIB * 2**20 // model.file.stat().st_size)]

    def one_by_one(contender: Contender, names: list[str], pause_s: float) -> Figures:
        took = []
        for copy in names:
            time.sleep(pause_s)
            answer, ms = call_once(contender.target(copy), body)
            check(model, answer, copy)
            took.append(ms)
        return {"samples": took}

    def roost() -> Figures:
        bench.roost.wait_until_asleep(sleeping)
        before = bench.roost.cold_starts()
        figures = one_by_one(bench.roost, sleeping, _PAUSE_S)
        number, seconds = (now - then for now, then in zip(bench.roost.cold_starts(), before, strict=True))
        if number != count:
            raise RuntimeError(f"{number:g} of {count} calls woke a model")
        return figures | {"waiting_ms": seconds / number * 1e3}

    plain = Plain(bench.models_folder, bench.work)
    try:
        anew = plain.wait_for_answer(model, [JSON])
        jobs = {
            FLOOR: lambda: {"samples": bench.run_floor("open", name, len(opened))},
            WARM: lambda: {"median_ms": bench.run_floor("run", name, 1)["p50_ms"]},
            PLAIN: lambda: one_by_one(plain, opened, 0.05),
            ROOST: roost,
        }
        return take_turns(jobs, rotation) | {PLAIN_ANEW: {"samples": [anew]}}
    finally:
        plain.stop()


def crowd(bench: Bench, rotation: int) -> Round:
    """Sleeping models that are all hit at once, one request each. Raises WrongAnswer for any error."""
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
