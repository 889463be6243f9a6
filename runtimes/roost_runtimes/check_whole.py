"""All checks of one file, in the order that keeps what is unsafe away from ONNX Runtime."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from roost_runtimes import check_load
from roost_runtimes.bake import build_key, seal
from roost_runtimes.check_file import inspect_file
from roost_runtimes.check_graph import warm_up_schemas
from roost_runtimes.check_load import Rehearsal, empty, measure
from roost_runtimes.onnx_model import OnnxModel


def warm_up() -> None:
    """Do once, ahead of forks, what is slow the first time: no part of it depends on any file."""
    build_key()
    warm_up_schemas()
    check_load.warm_up()
    OnnxModel.touch()


def check(path: Path, bake_dir: Path | None, *, give_up: Callable[[], None]) -> dict[str, Any]:
    """What the checker says of a good file. Raises Rejected for any other. `give_up` is called before it is read."""
    key = build_key()
    rehearsal = Rehearsal(path, bake_dir, before=give_up)
    give_up()
    inspected = inspect_file(path)
    written = rehearsal.go()
    with ThreadPoolExecutor(1) as beside:  # the disk works while the rehearsal compares and the model is measured
        sealing = beside.submit(_sealed, bake_dir) if written and bake_dir is not None else None
        baked = bake_dir if rehearsal.baked() else None
        measured = measure(path, baked, inspected.signature)
    digests = sealing.result() if sealing is not None and baked is not None else None
    if bake_dir is not None and digests is None:
        empty(bake_dir)
        if baked is not None:
            measured = measure(path, None, inspected.signature)
    rehearsal.reap()
    return {
        "signature": measured.signature.to_json(),
        "memory_bytes": measured.memory_bytes,
        "opset": inspected.opset,
        "ir_version": inspected.ir_version,
        "baked": digests,
        "build_key": key,
        "load_ms": measured.load_ms,
        "run_ms": measured.run_ms,
    }


def _sealed(bake_dir: Path) -> dict[str, str] | None:
    try:
        return seal(bake_dir)
    except OSError:  # a disk that is full or broken costs the bake, not the model
        return None
