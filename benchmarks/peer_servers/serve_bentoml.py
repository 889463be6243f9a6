"""BentoML: it has no V2 protocol, so it is handed V2 documents under a V2 path; its access log is off."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from common import NAME, PORT, Session


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Served:
    def __init__(self) -> None:
        self._session = Session()

    @bentoml.api(route=f"/v2/models/{NAME}/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self._session.answer({"inputs": inputs})


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("bentoml"))
    os.execv(program, [program, "serve", "serve_bentoml:Served", "--host", "127.0.0.1", "--port", str(PORT)])
