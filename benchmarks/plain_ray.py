"""Plain Ray Serve: `plain_ray.py PORT FILE` serves an ONNX file with onnxruntime at /plain, as its documentation has it."""

import signal
import sys
import threading
from typing import Any

import numpy as np
import onnxruntime
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request


@serve.deployment(
    autoscaling_config={
        "min_replicas": 0, "max_replicas": 1, "initial_replicas": 1, "target_ongoing_requests": 100,
        "downscale_delay_s": 6.0, "downscale_to_zero_delay_s": 6.0, "look_back_period_s": 1.0, "metrics_interval_s": 0.5,
        "upscale_delay_s": 0.0,
    },
    max_ongoing_requests=100,
)  # fmt: skip
class Plain:
    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(file, options)

    async def __call__(self, request: Request) -> dict[str, Any]:
        tensor = (await request.json())["inputs"][0]
        given = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        outputs = self.session.run(None, {tensor["name"]: given})
        names = [output.name for output in self.session.get_outputs()]
        return {
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": list(value.shape), "data": value.ravel().tolist()}
                for name, value in zip(names, outputs, strict=True)
            ]
        }


def main(port: int, file: str) -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=100 * 1024**2)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    serve.run(Plain.bind(file), route_prefix="/plain")
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    over.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
