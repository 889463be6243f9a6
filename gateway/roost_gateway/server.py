"""The HTTP server of the process: its listening sockets, its connections' limits, its signals."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from roost_gateway.http_guard import GuardedLane, GuardedProtocol, check_all
from roost_gateway.predict.lane import Lane
from roost_gateway.settings import LimitSettings
from roost_platform.domain.errors import RoostError

logger = logging.getLogger(__name__)


def make_server(app: ASGIApp, *, lane: Lane | None, grace_s: float, limits: LimitSettings) -> "Server":
    """A server for `app`, behind the fast lane where there is one; `grace_s`: what open requests get at shutdown."""
    return Server(
        uvicorn.Config(
            app,
            http=partial(GuardedLane, lane=lane) if lane is not None else GuardedProtocol,  # type: ignore[arg-type]
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(grace_s),
            backlog=2048,
        ),
        limits=limits,
    )


class Server(uvicorn.Server):
    """uvicorn without its signal handling: it re-raises the signal when done, before our own parts have stopped."""

    def __init__(self, config: uvicorn.Config, *, limits: LimitSettings) -> None:
        super().__init__(config)
        self._limits = limits

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # ten ticks are a second
            check_all(self.server_state.connections, asyncio.get_running_loop().time(), self._limits)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def stop_on_signals(servers: list[Server], before: Callable[[], None]) -> None:
    """SIGTERM and SIGINT: call `before`, then let the servers drain; a second signal ends the process at once."""

    def stop() -> None:
        before()
        if any(server.should_exit for server in servers):
            # As after a kill -9: children end with us, the journal has every answered call, the next start repairs.
            logger.warning("stopped_at_once")
            os._exit(1)
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def listen(host: str, port: int) -> socket.socket:
    """Raises RoostError with a sentence when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RoostError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
