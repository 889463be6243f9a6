"""Serves one model over HTTP until it is told to stop: the program inside a runtime's container.

listen (live, not ready) ─▶ wait for the file, load, warm up ─▶ ready ─▶ SIGTERM: drain ─▶ exit 0
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop

from roost_runtimes.artifact import check_digest
from roost_runtimes.core import Core, Limits
from roost_runtimes.factories import ONNX, ModelFactory, load_factory
from roost_runtimes.fetch import Fetch, FetchError
from roost_runtimes.framing import Guard, check_all
from roost_runtimes.http_door import HttpDoor
from roost_runtimes.model import ModelError

logger = logging.getLogger(__name__)

_KEEP_ALIVE_S = 90
"""Longer than the gateway's pool keeps a connection, so that it is never closed under a request."""
_QUIET_S = 0.5
"""A draining replica leaves after this long without a request: senders need a moment to learn that it does."""
_POLL_S = 0.05
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    model: Path | Fetch
    """The file, or a folder that holds it as model.onnx; or the fetch that brings it."""
    name: str
    version: str
    digest: str | None = None
    """sha256 of the file in hexadecimal; a file of another one is not loaded."""
    baked: bool = False
    factory: str = ONNX
    """What opens the file, as module:callable."""
    host: str = "0.0.0.0"  # noqa: S104 - a container is reached from outside; the secret guards it
    port: int = 8080
    uds: Path | None = None
    """A Unix socket to listen on instead of host and port."""
    slots: int = 1
    max_batch_size: int = 1
    secret: str | None = None
    head_s: float = 10.0
    """Seconds within which a request's head must be complete."""
    body_idle_s: float = 30.0
    """Seconds without a byte after which a body counts as given up."""
    limits: Limits = field(default_factory=Limits)


class _Protocol(Guard):
    def refusal(self, code: str, message: str) -> tuple[bytes, bytes]:
        return b"", orjson.dumps({"error": message, "code": code})


class _Server(uvicorn.Server):
    """Leaves signals to us: on SIGTERM it would refuse late arrivals, and exit by the signal."""

    def __init__(self, config: uvicorn.Config, *, head_s: float, body_idle_s: float) -> None:
        super().__init__(config)
        self._head_s, self._body_idle_s = head_s, body_idle_s

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # ten ticks are a second
            now = asyncio.get_running_loop().time()
            check_all(self.server_state.connections, now, head_s=self._head_s, body_idle_s=self._body_idle_s)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings) -> int:
    """Serve until stopped. Returns the exit status: 0 = drained, 1 = the model cannot be served or the port is taken."""
    loader = _Loader(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_serve(settings, loader))
    if isinstance(settings.model, Fetch):
        settings.model.clean_up()
    if loader.busy:
        # Told to stop meanwhile. Nobody waits for a model that nobody will call, and what is left of Python must not be
        # taken down under a thread that is inside of a library.
        logging.shutdown()
        os._exit(status)
    return status


async def _serve(settings: Settings, loader: "_Loader") -> int:
    try:
        listener = _listen(settings)
    except OSError as error:
        logger.error("cannot_listen", extra={"reason": error.strerror})  # noqa: TRY400 - the reason says it all
        return 1
    door = HttpDoor(settings.limits)
    server = _Server(
        uvicorn.Config(
            door,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            backlog=_BACKLOG,
        ),
        head_s=settings.head_s,
        body_idle_s=settings.body_idle_s,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    logger.info("listening", extra={"address": _address(listener)})
    try:
        status = await _load_and_wait(settings, loader, door, stop)
    finally:
        server.should_exit = True
        await serving
        if door.core is not None:
            door.core.close()
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)
    logger.info("stopped", extra={"status": status})
    return status


async def _load_and_wait(settings: Settings, loader: "_Loader", door: HttpDoor, stop: asyncio.Event) -> int:
    stopping = asyncio.ensure_future(stop.wait())
    loading = loader.start()
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        return 0
    try:
        core = loading.result()
    except ModelError as error:
        stopping.cancel()
        logger.error("model_failed", extra={"reason": error.code, "detail": error.message})  # noqa: TRY400
        return 1
    door.core = core
    logger.info("model_ready", extra={"model": settings.name, "version": settings.version, "run_us": core.run_us})
    await stopping
    logger.info("draining", extra={"inflight": door.active})
    core.draining = True
    clock = asyncio.get_running_loop().time
    begin = clock()
    while True:
        quiet_s = clock() - max(begin, door.last_active)
        if not door.active and quiet_s >= _QUIET_S:
            return 0
        await asyncio.sleep(_POLL_S)


class _Loader:
    """Loads the model on a thread that does not keep the process from ending."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> asyncio.Future[Core]:
        """The core, or ModelError when there is none to be had."""
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[Core] = self._loop.create_future()
        self._thread.start()
        return self._loaded

    def _run(self) -> None:
        try:
            core = _load(self._settings)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self._tell(self._loaded.set_exception, error)
        else:
            self._tell(self._loaded.set_result, core)

    def _tell(self, how: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the wait
            self._loop.call_soon_threadsafe(how, what)


def _load(settings: Settings) -> Core:
    # Here and not above, so that the door listens before the import is through; and before the wait for the file.
    factory = _factory_of(settings)
    begin = time.perf_counter()
    path = _file_of(settings)
    fetch_us = int((time.perf_counter() - begin) * 1e6) if isinstance(settings.model, Fetch) else 0
    model = factory(path, name=settings.name, version=settings.version, baked=settings.baked)
    core = Core(
        model,
        slots=settings.slots,
        max_batch_size=settings.max_batch_size,
        secret=settings.secret,
        limits=settings.limits,
        fetch_us=fetch_us,
    )
    core.warm_up()
    return core


def _factory_of(settings: Settings) -> ModelFactory:
    """Raises ModelError when there is none of this name, or what it needs is not installed."""
    try:
        return load_factory(settings.factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{settings.factory} cannot be imported: {error}", code="runtime_missing") from error


def _file_of(settings: Settings) -> Path:
    """The model's file, its digest verified. Raises ModelError."""
    if isinstance(settings.model, Fetch):
        try:
            return settings.model.wait()
        except FetchError as error:
            raise ModelError(error.message, code=error.code) from error
    path = settings.model / "model.onnx" if settings.model.is_dir() else settings.model
    if not path.is_file():
        raise ModelError("there is no model file at the path given", code="not_found")
    if settings.digest is not None:
        check_digest(path, settings.digest)
    return path


def _listen(settings: Settings) -> socket.socket:
    if settings.uds is None:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    settings.uds.unlink(missing_ok=True)
    previous = os.umask(0o177)  # ours alone from the moment it exists
    try:
        listener.bind(str(settings.uds))
    finally:
        os.umask(previous)
    listener.listen(_BACKLOG)
    return listener


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"
