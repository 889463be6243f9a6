"""ONNX models on an NVIDIA GPU: the runtime `onnx-gpu`, whose image names this class in $ROOST_MODEL_FACTORY.

Nodes that CUDA does not know run on the CPU; a model is refused only when there is no GPU at all.
"""

from pathlib import Path

import onnxruntime

from roost_runtimes.model import ModelError
from roost_runtimes.onnx_model import OnnxModel

_CUDA = "CUDAExecutionProvider"


class CudaModel(OnnxModel):
    """A model file opened for serving on the GPU. Raises ModelError with code `gpu_unavailable` when none can be used."""

    providers = (_CUDA, "CPUExecutionProvider")

    def __init__(self, path: str | Path | bytes, *, name: str, version: str, baked: bool = False) -> None:
        if _CUDA not in onnxruntime.get_available_providers():
            raise ModelError("this build of ONNX Runtime has no CUDA", code="gpu_unavailable")
        onnxruntime.preload_dlls()  # CUDA and cuDNN lie in Python's site-packages, where the linker does not look
        super().__init__(path, name=name, version=version, baked=baked)
        # ONNX Runtime would go on without it: many times slower, and billed as a GPU.
        if _CUDA not in self._session.get_providers():
            raise ModelError("ONNX Runtime finds no GPU that it can use", code="gpu_unavailable")
