"""A runtime inside somebody else's server process: an ASGI application that has its model loaded, or is none."""

import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from roost_runtimes.core import Core, Limits
from roost_runtimes.factories import load_factory
from roost_runtimes.fetch import Artifact, FetchError
from roost_runtimes.http_door import HttpDoor, Receive, Send
from roost_runtimes.model import ModelError
from roost_runtimes.node_cache import kept

_REASONS = {"runtime_missing": "RuntimeMissing"}
TOOK_TOO_LONG = 75
"""Exit status of a process whose model was not loaded in time: nobody else ends a constructor that hangs."""


class EmbeddedDoor:
    """The HTTP door under a prefix that the outer server has matched already, which paths still carry."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        prefix: str = scope.get("root_path", "")
        raw = scope.get("raw_path") or scope["path"].encode()
        await self._door({**scope, "raw_path": raw.removeprefix(prefix.encode())}, receive, send)


def door(spec: Mapping[str, Any]) -> EmbeddedDoor:
    """Fetch the file by its digest, load it, warm it up; `spec` has the names that the engine gives.

    Raises RuntimeError with one line, `roost-refused {"reason": …, "message": …}`, that whoever runs the process can find
    in what its server reports.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    limits = Limits(body_bytes=spec["body_bytes"])
    overdue = threading.Timer(spec["start_timeout_s"], os._exit, [TOOK_TOO_LONG])
    overdue.daemon = True
    overdue.start()
    try:
        core = _core(spec, limits)
    except (ModelError, FetchError) as error:
        reason = _REASONS.get(error.code or "", "ModelRefused")
        told = json.dumps({"reason": reason, "message": error.message})
        raise RuntimeError(f"roost-refused {told}") from None
    finally:
        overdue.cancel()
    made = HttpDoor(limits)
    made.core = core
    return EmbeddedDoor(made)


def _core(spec: Mapping[str, Any], limits: Limits) -> Core:
    try:
        factory = load_factory(spec["factory"])
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{spec['factory']} cannot be imported: {error}", code="runtime_missing") from error
    artifact = Artifact(spec["url"], spec["digest"], spec["size"], spec["secret"])
    with kept(artifact, most_bytes=spec["cache_bytes"]) as file:  # what is loaded needs its file no more
        model = factory(file, name=spec["name"], version=spec["version"], baked=False)
    core = Core(model, slots=spec["slots"], max_batch_size=spec["max_batch_size"], secret=spec["secret"], limits=limits)
    core.warm_up()
    return core
