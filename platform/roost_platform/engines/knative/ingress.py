"""The way from the gateway to replicas in the cluster: the cluster-local ingress, over HTTP/1.1 (aiohttp's client)."""

import socket
import struct
from contextlib import AbstractAsyncContextManager

from aiohttp import AddrInfoType, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from roost_platform.engines.knative.upstream import IngressUpstream
from roost_platform.engines.port import Upstream

_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add where the client has sent none."""
_LINGER_NOT = struct.pack("ii", 1, 0)


class Ingress:
    """Sends requests by Host through one address. All methods belong to the event loop's thread."""

    def __init__(
        self,
        *,
        url: str,
        connect_timeout_s: float = 5.0,
        idle_s: float = 30.0,
        answer_bytes: int = 256 * 1024**2,
        pauses_s: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8),
    ) -> None:
        """`idle_s`: how long an unused connection is kept; well below what the ingress (Envoy: an hour) and a runtime
        (90 s) keep, so that it is never closed under a request. `answer_bytes`: the most that one answer may hold.
        `pauses_s`: between tries of a request that no replica has seen, each made longer or shorter by up to a half.
        """
        self._url = url.rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._answer_bytes = answer_bytes
        self._pauses_s = pauses_s
        self._session: ClientSession | None = None

    async def start(self) -> None:
        self._session = ClientSession(
            connector=TCPConnector(
                limit=0, limit_per_host=0, keepalive_timeout=self._idle_s, socket_factory=_socket_that_resets
            ),
            timeout=ClientTimeout(sock_connect=self._connect_timeout_s),  # all else has the call's own deadline
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            trust_env=False,
        )

    async def stop(self) -> None:
        """Closes every connection; what is under way on them is lost."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def lease(
        self, *, host: str, secret: str, deadline: float, asleep: bool = False
    ) -> AbstractAsyncContextManager[Upstream]:
        """The right to send one request to the revision behind `host`; `send` waits there for a free replica.

        `deadline` is in seconds of the running loop's clock. `asleep`: no replica was ready when the call began, so that
        its wait is one for waking.
        """
        assert self._session is not None, "started before it is used"
        return IngressUpstream(
            session=self._session,
            url=self._url,
            host=host,
            secret=secret,
            deadline=deadline,
            asleep=asleep,
            answer_bytes=self._answer_bytes,
            pauses_s=self._pauses_s,
        )


def _socket_that_resets(address: AddrInfoType) -> socket.socket:
    """What is under way on it when it is closed is given up, also what the kernel has not sent yet: the other side learns
    of it at once, even while it reads nothing. A connection that is closed in order has nothing under way.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    return made
