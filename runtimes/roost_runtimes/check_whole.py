"""All checks of one file, in the order that keeps what is unsafe away from ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from roost_runtimes import check_load
from roost_runtimes.bake import build_key
from roost_runtimes.check_file import inspect_file
from roost_runtimes.check_graph import warm_up_schemas
from roost_runtimes.check_load import Rehearsal, empty, measure
from roost_runtimes.onnx_model import OnnxModel
from roost_runtimes.rehearsal import rehearse


def warm_up() -> None:
    """Do once, ahead of forks, what is slow the first time: no part of it depends on any file."""
    build_key()
    warm_up_schemas()
    check_load.warm_up()
    rehearse(OnnxModel, requests=1)


def check(path: Path, bake_dir: Path | None, *, give_up: Callable[[], None]) -> dict[str, Any]:
    """What the checker says of a good file. Raises Rejected for any other. `give_up` is called before it is read."""
    key = build_key()
    rehearsal = Rehearsal(path, bake_dir, before=give_up)
    give_up()
    inspected = inspect_file(path)
    rehearsal.go()
    baked = bake_dir if rehearsal.baked() else None
    measured = measure(path, baked, inspected.signature)
    if bake_dir is not None and baked is None:
        empty(bake_dir)
    rehearsal.reap()
    return {
        "signature": measured.signature.to_json(),
        "memory_bytes": measured.memory_bytes,
        "opset": inspected.opset,
        "ir_version": inspected.ir_version,
        "baked": baked is not None,
        "build_key": key,
        "load_ms": measured.load_ms,
        "run_ms": measured.run_ms,
    }
