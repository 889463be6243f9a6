"""MLServer with a model of our own, in its main process (`parallel_workers=0`: its fastest single process)."""

import asyncio

from common import NAME, PORT, Session
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop


class Served(MLModel):
    async def load(self) -> bool:
        self._session = Session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = self._session.run(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output(name, value) for name, value in values.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, parallel_workers=0
    )
    await MLServer(settings).start([ModelSettings(name=NAME, implementation=Served)])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main())
