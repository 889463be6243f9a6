"""The way to Serve's proxy: HTTP as to any ingress, with a path before the model's instead of a host."""

from contextlib import AbstractAsyncContextManager

from aiohttp import ClientResponse

from roost_platform.domain.errors import DeadlineExceeded
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.ingress_answers import Verdict, lost
from roost_platform.engines.knative.upstream import IngressUpstream
from roost_platform.engines.port import Headers, Upstream


class Proxy(Ingress):
    """Sends requests by path."""

    def to(self, prefix: str, *, secret: str, deadline: float, asleep: bool) -> AbstractAsyncContextManager[Upstream]:
        assert self._session is not None, "started before it is used"
        return _ProxyUpstream(
            session=self._session,
            url=self._url + prefix,
            host="ray",
            secret=secret,
            deadline=deadline,
            asleep=asleep,
            answer_bytes=self._answer_bytes,
            pauses_s=self._pauses_s,
        )


class _ProxyUpstream(IngressUpstream):
    async def _verdict(self, response: ClientResponse, headers: Headers) -> Verdict:
        """Serve says 500 when a replica died under a request, and 408 when its own time was over."""
        if response.status == 500:
            return Verdict(lost())
        if response.status == 408:
            return Verdict(DeadlineExceeded("the model did not answer within its timeout"))
        return await super()._verdict(response, headers)
