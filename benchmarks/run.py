"""`make bench`: Roost beside `session.run` in process and plain FastAPI + uvicorn + onnxruntime, on this machine.

Writes the tables into docs/benchmarks.md and every figure into .work/bench/figures.json. Needs wrk.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import Bench, Rounds, Sizes, copies
from contenders import InProcess, Plain, Runtime, verify
from load import require_wrk
from measures import MEASURES
from measures_idle import prepare_asleep, prepare_replicas
from models import build
from report import aims, heading, machine, tables, write_between_markers
from roost_server import WINDOW_S, Roost

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".work" / "bench"
DOCUMENT = ROOT / "docs" / "benchmarks.md"

FULL = Sizes(
    seconds=4,
    wakes={"tiny": 40, "cnn": 20, "mlp": 3},
    crowd=100,
    registered=1000,
    idle_s=20,
    replicas={"tiny": 8, "cnn": 3, "mlp": 2},
    uploads=3,
    codec_turns=10,
)
QUICK = Sizes(
    seconds=2,
    wakes={"tiny": 5, "cnn": 2, "mlp": 2},
    crowd=20,
    registered=50,
    idle_s=3,
    replicas={"tiny": 3, "cnn": 2, "mlp": 1},
    uploads=2,
    codec_turns=3,
)


def main() -> None:
    options = _options()
    require_wrk()
    names = _chosen(options.only)
    sizes = QUICK if options.quick else FULL
    rotations = options.rotations or (1 if options.quick else 5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every server is stopped
    document: dict[str, Any] = {
        "machine": machine(),
        "command": _command(),
        "rotations": rotations,
        "sizes": asdict(sizes),
    }
    begun = time.monotonic()
    with ExitStack() as stack:
        bench = _prepare(sizes, names, stack)
        rounds = _measure(bench, names, rotations)
        document["metered"] = bench.roost.metered()
    document |= {"minutes": (time.monotonic() - begun) / 60, "rounds": rounds}
    WORK.joinpath("figures.json").write_text(json.dumps(document, indent=1))
    lines = [*heading(document), *aims(rounds), *tables(rounds)]
    print("\n".join(lines))
    print(f"\nThe ledger of the main server holds {document['metered']:,} calls.")
    target = options.out.resolve() if options.out else (None if options.quick or options.only else DOCUMENT)
    if target is None:
        print(
            "A part of the benchmark, or a quick one: docs/benchmarks.md stays as it is (--out FILE writes elsewhere)."
        )
    elif target == DOCUMENT:
        write_between_markers(target, lines)
    else:
        target.write_text("\n".join(lines) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in about three minutes: little of everything")
    parser.add_argument("--rotations", type=int, help="how often all is measured (5; 1 with --quick)")
    parser.add_argument("--only", help=f"measures to run, with commas between: {', '.join(MEASURES)}")
    parser.add_argument("--out", type=Path, help="file for the tables, instead of docs/benchmarks.md")
    return parser.parse_args()


def _chosen(only: str | None) -> list[str]:
    wanted = [name.strip() for name in only.split(",")] if only else list(MEASURES)
    if unknown := set(wanted) - set(MEASURES):
        raise SystemExit(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    return [name for name in MEASURES if name in wanted]


def _command() -> str:
    return " ".join(["make bench"] if len(sys.argv) == 1 else [".venv/bin/python benchmarks/run.py", *sys.argv[1:]])


def _prepare(sizes: Sizes, names: list[str], stack: ExitStack) -> Bench:
    """Models, servers and what is deployed on them; every answer is checked before anything is measured."""
    for folder in ("data", "registered", "empty", "replicas", "uploads", "neighbours"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    for log in WORK.glob("*.log"):
        log.unlink()
    models_folder = WORK / "models"
    models = build(models_folder)
    if "asleep" in names:
        prepare_asleep(WORK, models, sizes)
    if "replicas" in names:
        prepare_replicas(WORK, models, sizes)

    roost = Roost(WORK / "data", WORK)
    stack.callback(roost.stop)
    for model in models.values():
        roost.deploy(model, [model.name])
    for name, sleepers in _sleepers(sizes, names).items():
        roost.deploy(models[name], sleepers, window=WINDOW_S)
    plain = Plain(models_folder, WORK)
    stack.callback(plain.stop)
    runtime = Runtime(models["tiny"], WORK)
    stack.callback(runtime.stop)
    for contender in (plain, runtime):
        contender.wait_for_answer(models["tiny"])
    for contender in (roost, plain):
        for model in models.values():
            verify(contender, model, model.name)
    return Bench(
        models=models,
        sizes=sizes,
        work=WORK,
        models_folder=models_folder,
        roost=roost,
        plain=plain,
        runtime=runtime,
        floor=InProcess(models_folder, WORK),
    )


def _sleepers(sizes: Sizes, names: list[str]) -> dict[str, list[str]]:
    """Model → its copies that sleep and are woken in the measures called `names`."""
    wanted = {name: copies(name, "wake", count) for name, count in sizes.wakes.items() if f"wake {name}" in names}
    if "crowd" in names:
        wanted["tiny"] = wanted.get("tiny", []) + copies("tiny", "crowd", sizes.crowd)
    return wanted


def _measure(bench: Bench, names: list[str], rotations: int) -> Rounds:
    rounds: Rounds = {name: [] for name in names}
    sleepers = [copy for copies_of_one in _sleepers(bench.sizes, names).values() for copy in copies_of_one]
    for rotation in range(rotations):
        for name in names:
            if rotation >= MEASURES[name].rotations:
                continue
            if not name.startswith("wake"):
                bench.roost.wait_until_asleep(sleepers)  # nothing of the last measure runs into the next
            begun = time.monotonic()
            rounds[name].append(MEASURES[name].run(bench, rotation))
            print(f"rotation {rotation + 1} of {rotations}: {name}, {time.monotonic() - begun:.0f} s", flush=True)
    return rounds


if __name__ == "__main__":
    main()
