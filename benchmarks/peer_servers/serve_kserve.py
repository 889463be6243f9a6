"""KServe's Python server with a model of our own; gRPC and its latency log are off."""

from typing import Any

import kserve
from common import NAME, NAMES, PORT, Session


class Served(kserve.Model):
    def __init__(self) -> None:
        super().__init__(NAME)
        self._session = Session()
        self.ready = True

    async def predict(self, payload: kserve.InferRequest, *_: Any, **__: Any) -> kserve.InferResponse:
        outputs = []
        for name, value in self._session.run(payload.inputs[0].as_numpy()).items():
            output = kserve.InferOutput(name, list(value.shape), NAMES[value.dtype])
            output.set_data_from_numpy(value, binary_data=False)
            outputs.append(output)
        return kserve.InferResponse(payload.id or "1", NAME, outputs)


if __name__ == "__main__":
    kserve.ModelServer(http_port=PORT, enable_grpc=False, enable_latency_logging=False).start([Served()])
