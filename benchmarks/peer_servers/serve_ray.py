"""Ray Serve: one replica behind its proxy, JSON by orjson; logs, dashboard and usage reports are off."""

import os
import signal
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import orjson
import ray
from common import NAME, PORT, Session
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Served:
    def __init__(self) -> None:
        self._session = Session()

    async def __call__(self, request: Request) -> Any:
        document = self._session.answer(orjson.loads(await request.body()))
        return Response(orjson.dumps(document), media_type="application/json")


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    logs = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.run(Served.bind(), route_prefix=f"/v2/models/{NAME}/infer", logging_config=logs)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main()
