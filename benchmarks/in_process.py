"""The floor: `session.run` in one process, no server.

Usage: in_process.py MODELS_FOLDER JOB MODEL AMOUNT, with JOB one of
  run   run for AMOUNT seconds in a loop; prints rate, CPU time and latency as JSON
  open  open the model AMOUNT times, each followed by one run; prints the milliseconds of each as JSON
  hold  open the model AMOUNT times and keep all; prints `ready`, ends with its standard input
"""

import json
import os
import sys
from pathlib import Path
from time import perf_counter, process_time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported: it would start a thread

import numpy as np
import onnxruntime


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """As every contender opens it: on the CPU, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run(file: Path, feeds: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    session = open_session(file)
    for _ in range(5):
        session.run(None, feeds)
    took: list[float] = []
    cpu, last = process_time(), perf_counter()
    begun = last
    while last - begun < seconds:
        session.run(None, feeds)
        now = perf_counter()
        took.append(now - last)
        last = now
    took.sort()
    return {
        "rps": len(took) / (last - begun),
        "cpu_us": (process_time() - cpu) / len(took) * 1e6,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
    }


def open_again(file: Path, feeds: dict[str, np.ndarray], count: int) -> list[float]:
    took, kept = [], []
    for _ in range(count + 1):
        begun = perf_counter()
        session = open_session(file)
        session.run(None, feeds)
        took.append((perf_counter() - begun) * 1e3)
        kept.append(session)  # closing one must not be in the time of the next
    return took[1:]  # the first one pays for pages of the process, not of the model


def hold(file: Path, feeds: dict[str, np.ndarray], count: int) -> None:
    kept = [open_session(file) for _ in range(count)]
    for session in kept:
        session.run(None, feeds)
    print("ready", flush=True)
    sys.stdin.read()


def main() -> None:
    folder, job, name, amount = sys.argv[1:]
    file = Path(folder) / f"{name}.onnx"
    feeds = {"x": np.load(file.with_suffix(".npy"))}
    if job == "run":
        print(json.dumps(run(file, feeds, float(amount))))
    elif job == "open":
        print(json.dumps(open_again(file, feeds, int(amount))))
    else:
        hold(file, feeds, int(amount))


if __name__ == "__main__":
    main()
