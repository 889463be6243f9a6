"""Asks replicas when they were busy, each at its own address: past Knative, which neither counts it nor wakes anything.

The container's port is not queue-proxy's, where Knative counts requests, and a pod without a replica has nobody to ask.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.pod_life import PodLife
from roost_platform.engines.knative.template import PORT

logger = logging.getLogger(__name__)

STRETCH_US = 10_000_000
"""Replicas count by stretches of UTC of this length; a stretch's number is its beginning / STRETCH_US."""
_PATH = "/roost/activity"
_MOST_BYTES = 1 << 16
_MOST_STRETCHES = 1000
_AT_ONCE = 32
_LATEST_US = 1 << 52
"""Well after the year 2100."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a replica says of itself; microseconds, times since 1970."""

    ready_us: int
    """When its model was loaded."""
    fetch_us: int
    """How long it had waited for the file before that."""
    first: int
    """Number of the first stretch that it tells of."""
    busy_us: tuple[int, ...]
    """Of the stretches that are over, from `first` on."""
    current_us: int
    """Of the one after them, so far."""


def url_of_pod(pod: PodLife) -> str:
    """Where a replica listens, behind queue-proxy; empty while it has no address."""
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return f"http://{host}:{PORT}" if host else ""


class Asking:
    """Used between `start` and `stop`, on one event loop."""

    def __init__(
        self,
        *,
        secret_of: Callable[[ServiceKey], str],
        url_of: Callable[[PodLife], str] = url_of_pod,
        timeout_s: float = 3.0,
    ) -> None:
        self._secret_of = secret_of
        self._url_of = url_of
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._session: ClientSession | None = None

    async def start(self) -> None:
        self._session = ClientSession(
            # A connection each: one that is kept would lie idle for most of its time, and meet pods that are gone.
            connector=TCPConnector(limit=_AT_ONCE, force_close=True),
            timeout=ClientTimeout(total=self._timeout_s),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, pod: PodLife, *, since: int) -> Told | None:
        """What was in each stretch from number `since` on; None when the replica does not say it now."""
        assert self._session is not None, "started before it is used"
        url = self._url_of(pod)
        if not url:
            return None
        headers = {"roost-service-secret": self._secret_of(pod.key), "roost-since": str(since)}
        try:
            async with (
                self._places,
                self._session.get(url + _PATH, headers=headers, allow_redirects=False) as response,
            ):
                good = response.status == 200 and 0 < (response.content_length or 0) <= _MOST_BYTES
                body = await response.read() if good else b""
        except (ClientError, OSError, TimeoutError) as error:
            logger.debug("replica_not_asked", extra={"pod": pod.name, "error": type(error).__name__})
            return None
        return read_told(body, host=pod.host)


def read_told(body: bytes, *, host: str) -> Told | None:
    """None for what is no answer, or another replica's: addresses of pods are used again."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("replica") != host or document.get("stretch_us") != STRETCH_US:
        return None
    stretches = document.get("stretches")
    if not isinstance(stretches, list) or len(stretches) > _MOST_STRETCHES:
        return None
    ready, fetch, first = (_count(document.get(name), _LATEST_US) for name in ("ready_us", "fetch_us", "first"))
    busy = [_count(number, STRETCH_US) for number in (*stretches, document.get("current_us"))]
    known = [number for number in busy if number is not None]
    if not ready or fetch is None or first is None or len(known) < len(busy):
        return None
    return Told(ready, fetch, first, tuple(known[:-1]), known[-1])


def _count(value: Any, most: int) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None
