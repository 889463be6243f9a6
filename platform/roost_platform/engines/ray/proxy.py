"""The ways to replicas on Ray: straight to one, or through Serve's proxy, which waits for one. HTTP like the ingress of a
cluster; only that paths are told apart by a prefix instead of a host.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiohttp import ClientResponse

from roost_platform.domain.errors import DeadlineExceeded
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.ingress_answers import Figures, Verdict, lost, unavailable
from roost_platform.engines.knative.outgoing import Outgoing
from roost_platform.engines.knative.upstream import TEXT_BYTES, IngressUpstream, NotSent
from roost_platform.engines.port import Headers, Upstream, UpstreamRequest

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, *[1.0] * 60)
"""As long as a Ray that was lost needs to come back; the request's own deadline ends it earlier."""


class Proxy(Ingress):
    """Sends requests by path."""

    def to(
        self,
        prefix: str,
        *,
        replica: str = "",
        secret: str,
        deadline: float,
        asleep: bool,
        on_unreachable: Callable[[], None] = lambda: None,
    ) -> AbstractAsyncContextManager[Upstream]:
        """`replica`: the address (host:port) of the one to ask; empty = whichever Serve finds. `on_unreachable`: called
        when that one is not there, before Serve's proxy is asked.
        """
        assert self._session is not None, "started before it is used"
        through = self._url + prefix
        return _RayUpstream(
            session=self._session,
            url=f"http://{replica}{prefix}" if replica else through,
            instead=through,
            on_unreachable=on_unreachable,
            host="ray",
            secret=secret,
            deadline=deadline,
            asleep=asleep,
            answer_bytes=self._answer_bytes,
            pauses_s=self._pauses_s,
        )


class _RayUpstream(IngressUpstream):
    def __init__(self, *, instead: str, on_unreachable: Callable[[], None], **others: Any) -> None:
        super().__init__(**others)
        self._instead = instead
        self._on_unreachable = on_unreachable

    async def _attempt(self, request: UpstreamRequest, body: Outgoing) -> tuple[ClientResponse, Headers, Figures]:
        """A replica that was not there when it was asked is not asked again: Serve's proxy finds another."""
        if self._url == self._instead:
            return await super()._attempt(request, body)
        try:
            return await super()._attempt(request, body)
        except NotSent:
            self._url = self._instead
            self._on_unreachable()
            if not body.repeatable:
                raise
            return await super()._attempt(request, body)

    async def _verdict(self, response: ClientResponse, headers: Headers) -> Verdict:
        """Serve says 500 when a replica died under a request, 408 when its own time was over, and 503 where a replica
        is on its way out.
        """
        if response.status == 500:
            return Verdict(lost())
        if response.status == 408:
            return Verdict(DeadlineExceeded("the model did not answer within its timeout"))
        if response.status == 503:
            text, _ = await self._read_whole(response, TEXT_BYTES)
            return Verdict(unavailable(headers, "no replica took this request in time"), unsent=b"backpressure" in text)
        return await super()._verdict(response, headers)
