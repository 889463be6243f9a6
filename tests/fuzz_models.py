"""Judges damaged models with the real checker and predicts once with those that it takes.

python tests/fuzz_models.py [--count 10000] [--seed N]      `make fuzz`; the seed is printed, to find a case again
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onnx_mutants import Mutant, mutants
from roost_platform.domain.errors import ModelRejected
from roost_platform.registry.checking import Checker, CheckLimits
from roost_process import Process, descendants

CODES = frozenset(
    [
        "not_onnx",
        "invalid_graph",
        "too_deep",
        "external_data",
        "unsupported_ir",
        "unsupported_opset",
        "unsupported_operator",
        "unknown_operator_domain",
        "unsupported_type",
        "load_failed",
        "load_crashed",
        "out_of_memory",
        "too_slow",
    ]
)
"""As docs/api.md lists them."""
AT_ONCE = 2
LIMITS = CheckLimits(memory_bytes=2**30, cpu_s=2, wall_s=60)
_INTERNAL = re.compile(
    r"(?:/tmp|/home|/root|/usr|/work|/proc|site-packages|Traceback|roost|\bpid\b|::|0x[0-9a-f]{6}|\.cc\b)"
)


@dataclass
class Tally:
    """What became of the files."""

    codes: Counter[str] = field(default_factory=Counter)
    """By refusal; `taken` for the others."""
    predictions: Counter[str] = field(default_factory=Counter)
    """`answered`, `refused`, or how the process crashed."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""


CHECK = "roost-check"
"""How the process is called that judges one file."""


async def judge_all(cases: Iterable[Mutant], folder: Path) -> Tally:
    """`folder` is empty, before and after."""
    tally, checker = Tally(), Checker(limits=LIMITS, at_once=AT_ONCE)
    predictor = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("predict_once.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    turn, queue = asyncio.Lock(), iter(cases)

    async def work(place: Path) -> None:
        for case in queue:
            await _judge(case, place, checker, tally)
            if (place / "taken").exists():
                async with turn:
                    await _predict(case, place, predictor, tally)
            shutil.rmtree(place)

    try:
        checker.prepare()
        zygote = await _zygote()
        await asyncio.gather(*(work(folder / str(n)) for n in range(AT_ONCE)))
        left = {p.pid for p in descendants(os.getpid()) if p.name == CHECK}
        if left or not zygote.lives() or predictor.returncode is not None:
            lost = f"zygote lives: {zygote.lives()}, the one that predicts: {predictor.returncode}"
            tally.faults.append(f"processes {left} were left; {lost}")
    finally:
        checker.close()
        assert predictor.stdin is not None
        predictor.stdin.close()
        if await predictor.wait():
            tally.faults.append("the process that predicts ended with an error")
    if files := os.listdir(folder):  # noqa: PTH208 - a list is wanted
        tally.faults.append(f"files were left: {files}")
    return tally


async def _zygote() -> Process:
    """The process that forks the checkers, once it has its name."""
    while True:
        for process in descendants(os.getpid()):
            if process.name == f"{CHECK}s":
                return process
        await asyncio.sleep(0.01)


async def _judge(case: Mutant, place: Path, checker: Checker, tally: Tally) -> None:
    (place / "baked").mkdir(parents=True)
    (place / "model").write_bytes(case.data)
    try:
        report = await checker.check(place / "model", place / "baked")
    except ModelRejected as error:
        tally.codes[error.code] += 1
        shown = f"{error.message} {error.field}"
        sound = error.code in CODES and error.message.isprintable() and len(error.message) <= 1000
        if not sound or _INTERNAL.search(shown):
            tally.faults.append(f"{case.number} {case.story}: {error.code}: {shown}")
    except Exception as error:  # noqa: BLE001 - anything else is what this looks for
        tally.faults.append(f"{case.number} {case.story}: {error!r}")
    else:
        tally.codes["taken"] += 1
        (place / "taken").write_text("baked" if report.baked else "raw")


async def _predict(case: Mutant, place: Path, predictor: asyncio.subprocess.Process, tally: Tally) -> None:
    baked = (place / "taken").read_text() == "baked"
    path = place / "baked" / "model.onnx" if baked else place / "model"
    assert predictor.stdin is not None
    assert predictor.stdout is not None
    predictor.stdin.write(f"{int(baked)} {path}\n".encode())
    said = (await predictor.stdout.readline()).decode().strip()
    tally.predictions[said] += 1
    if not said or said == "accident":
        tally.faults.append(f"{case.number} {case.story}: the prediction ended with {said!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.count} files", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="roost-fuzz-") as folder:
        tally = asyncio.run(judge_all(mutants(options.seed, options.count), Path(folder)))
    print(f"{time.monotonic() - begun:.0f} s; verdicts {dict(tally.codes)}; predictions {dict(tally.predictions)}")
    print("\n".join(tally.faults) or "nothing that must not be")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
