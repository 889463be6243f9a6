"""The checker: judges one uploaded file and says so in one line of JSON. It is thrown away after each file.

    python -m roost_runtimes.check MODEL --bake-dir FOLDER      the verdict; a baked model in FOLDER when it is good
    python -m roost_runtimes.check --build-key                  the key that baked models of this machine go under

An uploaded model is a program, and the libraries that read it have had memory-safety bugs: so this process limits its
memory, processor time and files, and gives up the network and other programs, before it reads the first byte. A crash
or a limit that is hit ends it without a verdict; whoever started it reads that from how it ended.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from roost_runtimes import sandbox
from roost_runtimes.bake import build_key, quiet_environment
from roost_runtimes.check_limits import limit_this_process
from roost_runtimes.check_verdict import Rejected

_GIB = 1024**3


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    verdict_fd = os.dup(1)
    os.dup2(2, 1)  # a library that prints must not garble the verdict
    if options.build_key:
        _say(verdict_fd, {"build_key": build_key()})
        return 0
    limit_this_process(
        memory_bytes=options.memory_bytes, cpu_seconds=options.cpu_seconds, file_bytes=options.file_bytes
    )
    sandbox.die_with_parent()
    quiet_environment()
    try:
        from roost_runtimes.check_whole import check  # noqa: PLC0415  numpy and onnxruntime come with it
    except ImportError as error:
        _say(verdict_fd, {"ok": False, "code": "runtime_missing", "message": f"{error.name} is not installed"})
        return 0
    try:
        verdict = {"ok": True, **check(options.model, options.bake_dir, give_up=_give_up)}
    except Rejected as error:
        verdict = {"ok": False, "code": error.code, "message": error.message, "field": error.field}
    except MemoryError:
        message = "reading the model takes more memory than is allowed"
        verdict = {"ok": False, "code": "out_of_memory", "message": message, "field": None}
    _say(verdict_fd, verdict)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m roost_runtimes.check", description="Judge one ONNX file.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", type=Path, help="the file to judge")
    what.add_argument("--build-key", action="store_true", help="print the key of this build and processor")
    parser.add_argument("--bake-dir", type=Path, help="an empty folder for the baked model; none = do not bake")
    parser.add_argument("--memory-bytes", type=int, default=4 * _GIB, help="private memory of a process")
    parser.add_argument("--cpu-seconds", type=int, default=60, help="processor time of a process")
    parser.add_argument("--file-bytes", type=int, default=8 * _GIB, help="largest file written")
    return parser


def _give_up() -> None:
    sandbox.die_with_parent()
    if not sandbox.forbid_network_and_exec():
        print("sandbox_unavailable", file=sys.stderr, flush=True)  # noqa: T201 - whoever started us decides


def _say(fd: int, document: dict[str, Any]) -> None:
    os.write(fd, json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
