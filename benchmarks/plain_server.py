"""The comparison: FastAPI + uvicorn + onnxruntime in one process, as a careful person writes it by hand.

No key, no admission, no metering. A model is opened at its first request and stays: `tiny-07` is a copy of `tiny`.
Usage: plain_server.py PORT MODELS_FOLDER [MODEL ...]; the models named are opened at the start.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

DATATYPES = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}


class Models:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[onnxruntime.InferenceSession, list[str]]] = {}

    def get(self, name: str) -> tuple[onnxruntime.InferenceSession, list[str]]:
        """The session and the names of its outputs. Raises HTTPException when there is no such model."""
        if name not in self._open:
            file = self._folder / f"{name.partition('-')[0]}.onnx"
            if not file.is_file():
                raise HTTPException(404, "no such model")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._open[name] = session, [output.name for output in session.get_outputs()]
        return self._open[name]


def read_tensor(body: bytes, header_length: str | None) -> tuple[str, np.ndarray]:
    if header_length is None:
        tensor = orjson.loads(body)["inputs"][0]
        array = np.array(tensor["data"], DATATYPES[tensor["datatype"]])
    else:
        length = int(header_length)
        tensor = orjson.loads(body[:length])["inputs"][0]
        array = np.frombuffer(body, DATATYPES[tensor["datatype"]], offset=length)
    return tensor["name"], array.reshape(tensor["shape"])


def write_tensor(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "shape": array.shape, "datatype": NAMES[array.dtype], "data": array.ravel()}


def make_app(models: Models) -> FastAPI:
    app = FastAPI()

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> Response:
        session, outputs = models.get(name)
        source, array = read_tensor(await request.body(), request.headers.get("inference-header-content-length"))
        arrays = session.run(outputs, {source: array})
        document = {
            "model_name": name,
            "outputs": [write_tensor(output, array) for output, array in zip(outputs, arrays, strict=True)],
        }
        return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    return app


def main() -> None:
    port, folder, *names = sys.argv[1:]
    models = Models(Path(folder))
    for name in names:
        models.get(name)
    uvicorn.run(make_app(models), port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
