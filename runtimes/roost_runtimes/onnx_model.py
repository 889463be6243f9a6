"""ONNX models on ONNX Runtime: one-thread sessions that own no threads, so that a process may be forked around them.

Set ORT_DISABLE_TELEMETRY=1 and OPENBLAS_NUM_THREADS=1 in the environment before this module is imported: importing
onnxruntime and numpy without them starts threads.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from roost_runtimes.bake import is_lean, session_options
from roost_runtimes.datatypes import BY_ONNX, DATATYPES
from roost_runtimes.model import Array, Model, ModelError, RunControl, TensorSpec

_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ")
# A source position, then for most messages a C++ signature: everything up to its last closing parenthesis.
_POSITION = re.compile(r"(?:/\S*/)?\w+\.(?:cc|h|hpp|cpp|cu):\d+ ")
_SIGNATURE = re.compile(r"^[^.:]*?(?:\w+::)+.*\)(?: const)?\s+")
_INTERNAL = re.compile(r"(?:^|[\s'\"(])/\w+/|onnxruntime|::|0x[0-9a-f]{6,}")
_MAX_MESSAGE = 400
_NO_MEMORY = re.compile(
    "Failed to allocate memory|bad_alloc|bad allocation|Unable to allocate|length_error|vector::_M_|"
    "storage size overflowed|Integer overflow"
)
"""How ONNX Runtime and what is under it say that an allocation failed, or was too large to be asked for."""

# An Identity node from float[1] to float[1], opset 13.
_SMALLEST = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100d"
)


class OnnxControl(RunControl):
    """Ends a run at the next node, also inside loops."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def cancel(self) -> None:
        self.options.terminate = True


class OnnxModel(Model):
    """A model file opened for serving on the CPU. The constructor raises ModelError when it cannot be served."""

    platform = "onnxruntime_onnx"
    providers: ClassVar[Sequence[str]] = ("CPUExecutionProvider",)
    """What computes, in ONNX Runtime's words: each node runs on the first of them that can."""

    def __init__(self, path: str | Path | bytes, *, name: str, version: str, baked: bool = False) -> None:
        """Open the file (or its content). `baked`: it was optimised when it was uploaded, so it is loaded as it is."""
        self.name = name
        self.version = version
        lean = baked and not isinstance(path, bytes) and is_lean(Path(path).parent)
        source = path if isinstance(path, bytes) else str(path)
        self._session = _open(source, session_options(baked=baked, lean=lean), self.providers)
        self.inputs = [_spec(node, "input") for node in self._session.get_inputs()]
        self.outputs = [_spec(node, "output") for node in self._session.get_outputs()]
        self._names = [spec.name for spec in self.outputs]

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, control: RunControl | None = None
    ) -> list[Array]:
        options = control.options if isinstance(control, OnnxControl) else None
        try:
            results: list[Array] = self._session.run(self._names if outputs is None else outputs, feeds, options)
        except MemoryError:
            raise _out_of_memory() from None
        except Exception as error:
            # ONNX Runtime's exceptions share no base class below Exception.
            raise clean_error(str(error)) from error
        return results

    def control(self) -> OnnxControl:
        return OnnxControl()

    def warm_up(self) -> None:
        try:
            zeros = {spec.name: _zeros(spec) for spec in self.inputs}
        except (ValueError, MemoryError):  # a shape that no array can have, or none that fits here
            raise ModelError("an input of zeros cannot be made", code="invalid_input") from None
        self.run(zeros)

    def close(self) -> None:
        del self._session

    @classmethod
    def smallest(cls) -> "OnnxModel":
        """The smallest model there is: `x` FP32[1] to the same `y`. Processes that wait for a model rehearse with it."""
        return cls(_SMALLEST, name="smallest", version="1")


def clean_error(text: str) -> ModelError:
    """Say what ONNX Runtime said, without its source positions, C++ names and paths."""
    if "terminate flag" in text:
        return ModelError("the run was cancelled", code="cancelled")
    if _NO_MEMORY.search(text):
        return _out_of_memory()
    text = _PREFIX.sub("", text).strip()
    where, code = "the model refused its inputs", "invalid_input"
    node = _NODE.search(text)
    if node:
        text = text[node.end() :]
        where, code = f"the model failed in its {node[1]} node" + (f" {node[2]!r}" if node[2] else ""), "model_error"
    position = _POSITION.search(text)
    if position:
        text = _SIGNATURE.sub("", text[position.end() :])
    text = " ".join(text.split())[:_MAX_MESSAGE]
    if not text or _INTERNAL.search(text):
        return ModelError(where, code=code)
    return ModelError(f"{where}: {text}", code=code)


def _out_of_memory() -> ModelError:
    return ModelError("the model ran out of memory on this input", code="out_of_memory")


def _open(path: str | bytes, options: Any, providers: Sequence[str]) -> Any:
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except MemoryError:
        raise ModelError("the model does not fit into memory", code="out_of_memory") from None
    except Exception as error:
        detail = clean_error(str(error).replace(str(path), "the file"))
        message = detail.message.replace("the model refused its inputs", "the model cannot be loaded")
        raise ModelError(message, code=detail.code if detail.code == "out_of_memory" else "model_error") from error


def _spec(node: Any, role: str) -> TensorSpec:
    datatype = BY_ONNX.get(node.type)
    if datatype is None:
        raise ModelError(f"{role} {node.name!r} has type {node.type}, which is not served")
    # Named and unknown dimensions are anything but integers here.
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return TensorSpec(node.name, datatype.name, shape)


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if dim == -1 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, DATATYPES[spec.datatype].numpy)
