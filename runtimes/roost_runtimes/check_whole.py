"""All checks of one file, in the order that keeps what is unsafe away from ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  loaded before the sandbox closes and before the fork

from roost_runtimes.bake import build_key
from roost_runtimes.check_file import inspect_file
from roost_runtimes.check_load import Rehearsal, measure


def check(path: Path, bake_dir: Path | None, *, give_up: Callable[[], None]) -> dict[str, Any]:
    """What the checker says of a good file. Raises Rejected for any other. `give_up` is called before it is read."""
    key = build_key()
    rehearsal = Rehearsal(path, bake_dir, before=give_up)
    give_up()
    inspected = inspect_file(path)
    baked = rehearsal.run()
    measured = measure(path, bake_dir if baked else None, inspected.signature)
    return {
        "signature": measured.signature.to_json(),
        "memory_bytes": measured.memory_bytes,
        "opset": inspected.opset,
        "ir_version": inspected.ir_version,
        "baked": baked,
        "build_key": key,
        "load_ms": measured.load_ms,
        "run_ms": measured.run_ms,
    }
