"""Predicts once with each model named on standard input, in a child of its own as a replica would; says how it ended.

Lines in: `1 PATH` for a baked model, `0 PATH` for an uploaded file. Lines out: `answered`, `refused` (a ModelError, as a
caller would read it), `signal N`, `too long`, or `accident` for any other error.
"""

import os
import signal
import sys
from pathlib import Path

from roost_runtimes.bake import quiet_environment
from roost_runtimes.check_limits import limit_this_process

_ANSWERED, _REFUSED, _ACCIDENT = 0, 1, 2
_WORDS = {_ANSWERED: "answered", _REFUSED: "refused"}


def main() -> None:
    quiet_environment()
    import onnxruntime  # noqa: F401

    for line in sys.stdin:
        baked, _, path = line.rstrip("\n").partition(" ")
        if (pid := os.fork()) == 0:
            _predict(Path(path), baked=baked == "1")
        _, status = os.waitpid(pid, 0)
        print(_say(os.waitstatus_to_exitcode(status)), flush=True)


def _say(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "too long"
    return f"signal {-status}" if status < 0 else _WORDS.get(status, "accident")


def _predict(path: Path, *, baked: bool) -> None:
    status = _ACCIDENT
    try:
        from roost_runtimes.model import ModelError
        from roost_runtimes.onnx_model import OnnxModel

        limit_this_process(memory_bytes=2**30, cpu_seconds=2, file_bytes=0)
        try:
            OnnxModel(path, name="model", version="1", baked=baked).warm_up()
            status = _ANSWERED
        except (ModelError, MemoryError):
            status = _REFUSED
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
