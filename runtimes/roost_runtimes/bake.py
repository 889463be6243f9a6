"""Baked models: a checked model as ONNX Runtime optimised it, with its weights in a file beside it that can be mapped.

A baked model opens many times faster than the uploaded file, since nothing is optimised or copied again. It fits only
the ONNX Runtime build and the processor that made it: `build_key` names both. The import of ONNX Runtime must come
after `quiet_environment`, or it starts a thread and speaks to its makers.
"""

import hashlib
import os
import platform
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"
LEAN_MARK = "lean"
"""An empty file beside a baked model whose weights are used as they lie in their file."""
_LEAST_EXTERNAL_BYTES = "1024"
_FATAL = 4


def quiet_environment() -> None:
    """What must be set before numpy and onnxruntime are imported, so that the process has one thread and no telemetry."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


@cache
def build_key() -> str:
    """16 hexadecimal digits that change with ONNX Runtime's version and with the processor's model and features."""
    try:
        cpu = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        cpu = ""
    traits = re.findall(r"^(?:model name|flags|CPU implementer|CPU part|Features)\s*:.*$", cpu, re.MULTILINE)
    parts = (version("onnxruntime"), platform.machine(), *sorted(set(traits)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def open_raw(path: Path, *, bake_into: Path | None = None) -> Any:
    """An ONNX Runtime session over an uploaded file; with `bake_into`, also write the baked model into that folder."""
    options = session_options(baked=False)
    if bake_into is not None:
        options.optimized_model_filepath = str(bake_into / MODEL_FILE)
        for key, value in (("file_name", WEIGHTS_FILE), ("min_size_in_bytes", _LEAST_EXTERNAL_BYTES)):
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    return _open(path, options)


def open_baked(folder: Path, *, lean: bool | None = None) -> Any:
    """An ONNX Runtime session over what `open_raw` baked into `folder`; `lean` overrides its mark."""
    return _open(folder / MODEL_FILE, session_options(baked=True, lean=is_lean(folder) if lean is None else lean))


def mark_lean(folder: Path) -> None:
    """Have this bake opened lean from now on."""
    (folder / LEAN_MARK).touch()


def is_lean(folder: Path) -> bool:
    return (folder / LEAN_MARK).exists()


def session_options(*, baked: bool, lean: bool = False) -> Any:
    """Options of every session: one thread, the caller's own. `baked` files are optimised already.

    `lean`: do not lay out weights anew for the processor's kernels. Opening is then quick, and replicas share the pages of
    the weights' file; whether runs take longer depends on the model.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL  # what goes wrong is raised; on stderr it would only repeat
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never by what the file looks like
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if baked:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if lean:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _open(path: Path, options: Any) -> Any:
    return _onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _onnxruntime() -> Any:
    import onnxruntime  # noqa: PLC0415  after quiet_environment

    return onnxruntime
