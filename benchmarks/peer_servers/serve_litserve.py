"""LitServe: it has no V2 protocol, so it is handed V2 documents under a V2 path."""

from typing import Any

import litserve
from common import NAME, PORT, Session


class Served(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._session = Session()

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        return self._session.answer(x)


if __name__ == "__main__":
    server = litserve.LitServer(Served(api_path=f"/v2/models/{NAME}/infer"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
