"""What the peers share: the model on the same one-thread session, and V2 documents for those that leave JSON to the user.

Each script here is run by the peer's own Python, with PEER_PORT and PEER_MODEL (an ONNX file) in the environment, where
worker processes find them too. The model is served under the file's name.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PORT, FILE = int(os.environ["PEER_PORT"]), Path(os.environ["PEER_MODEL"])
NAME = FILE.stem
DATATYPES = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}


class Session:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(FILE), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self._session.run(self.outputs, {"x": x}), strict=True))

    def answer(self, document: dict[str, Any]) -> dict[str, Any]:
        """From a V2 request to a V2 response."""
        tensor = document["inputs"][0]
        array = np.array(tensor["data"], DATATYPES[tensor["datatype"]]).reshape(tensor["shape"])
        outputs = [
            {"name": name, "datatype": NAMES[value.dtype], "shape": list(value.shape), "data": value.ravel().tolist()}
            for name, value in self.run(array).items()
        ]
        return {"model_name": NAME, "outputs": outputs}
