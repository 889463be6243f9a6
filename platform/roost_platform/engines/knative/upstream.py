"""One request through the ingress to a replica, and its answer back; both as they come.

    lease ─▶ send: connect ─▶ head and pieces out ─▶ head of the answer ─▶ whole if small, else pieces ─▶ released
                      └── again, where certainly no replica has seen it

What is unfinished when the lease ends is cut off at once, which cancels the work at the other end.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientSession, ConnectionTimeoutError
from yarl import URL

from roost_platform.domain.errors import ModelFailed, ReplicaLost, RoostError, Unavailable
from roost_platform.engines.knative.ingress_answers import Figures, Verdict, figures_of, lost, lower, verdict_on
from roost_platform.engines.knative.outgoing import Outgoing
from roost_platform.engines.knative.patience import Patience
from roost_platform.engines.port import Headers, Upstream, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

WHOLE_BYTES = 1 << 16
"""Answers up to this size are taken whole: what breaks is then a clean refusal. A refusal may not be larger."""
TEXT_BYTES = 4096
"""As much is read of what the infrastructure says."""


class NotSent(Exception):
    """No replica has seen the request."""

    def __init__(self, error: RoostError) -> None:
        self.error = error


class IngressUpstream(Upstream):
    """A lease on one request to one revision; see the port."""

    def __init__(
        self,
        *,
        session: ClientSession,
        url: str,
        host: str,
        secret: str,
        deadline: float,
        asleep: bool,
        answer_bytes: int,
        pauses_s: tuple[float, ...],
    ) -> None:
        self.queue_us = self.cold_start_us = 0
        self._session = session
        self._url = url
        self._host = host
        self._secret = secret
        self._patience = Patience(deadline)
        self._asleep = asleep
        self._answer_bytes = answer_bytes
        self._pauses_s = pauses_s
        self._body: Outgoing | None = None
        self._response: ClientResponse | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pieces is not None:
            await self._pieces.aclose()
        self._let_go()

    def _let_go(self) -> None:
        """Cut off what is not finished; a finished connection is back in the pool by now."""
        body, response, self._response = self._body, self._response, None
        if body is None:
            return
        body.let_go(abort=response is None or not (body.sent and response.content.is_eof()))
        if response is not None:
            response.close()

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        assert self._body is None, "a lease is for one request"
        self._body = body = Outgoing(request, self._patience)
        started = asyncio.get_running_loop().time()
        async with self._patience.bounded():
            response, headers, figures = await self._until_sent(request, body)
            if self._asleep:
                waited_s = asyncio.get_running_loop().time() - started - self._patience.paused_s
                waking_us = int(waited_s * 1e6) - figures.compute_us - figures.queue_us
                self.queue_us = self.cold_start_us = max(1, waking_us)
            return await self._answer(response, headers, figures)

    async def _until_sent(self, request: UpstreamRequest, body: Outgoing) -> tuple[ClientResponse, Headers, Figures]:
        for pause_s in (*self._pauses_s, None):
            try:
                return await self._attempt(request, body)
            except NotSent as unsent:
                if pause_s is None or not body.repeatable:
                    raise unsent.error from unsent.__cause__
            # Spread, so that calls that were refused together do not come back together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - nobody gains by guessing it
        raise AssertionError("the last attempt has no pause after it")

    async def _attempt(self, request: UpstreamRequest, body: Outgoing) -> tuple[ClientResponse, Headers, Figures]:
        """Raises NotSent, or what became of the request."""
        try:
            response = await self._session.request(
                request.method,
                URL(self._url + request.path, encoded=True),
                headers=[*self._own_headers(request), *body.users],
                data=body,
                allow_redirects=False,
            )
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            unreachable = Unavailable("the cluster's ingress cannot be reached", code="ingress_unreachable")
            raise NotSent(unreachable) from error
        except (ClientError, OSError) as error:
            logger.info("connection_lost", extra={"url": self._url, "host": self._host, "reason": repr(error)})
            raise body.failure or lost() from error
        self._response = response
        headers = lower(response.raw_headers)
        figures = figures_of(headers)
        if figures is not None:
            return response, headers, figures
        verdict = await self._verdict(response, headers)
        self._let_go()
        if verdict.unsent:
            raise NotSent(verdict.error)
        raise verdict.error

    async def _verdict(self, response: ClientResponse, headers: Headers) -> Verdict:
        text, _ = await self._read_whole(response, TEXT_BYTES)
        logger.info(
            "infrastructure_answered",
            extra={"host": self._host, "status": response.status, "text": text[:200].decode("ascii", "replace")},
        )
        return verdict_on(response.status, headers, text)

    def _own_headers(self, request: UpstreamRequest) -> list[tuple[str, str]]:
        return [
            ("host", self._host),
            ("roost-service-secret", self._secret),
            ("roost-timeout-ms", str(int(self._patience.left_s * 1000))),
            ("x-request-id", request.request_id),
        ]

    # The answer

    async def _answer(self, response: ClientResponse, headers: Headers, figures: Figures) -> UpstreamResponse:
        length = response.content_length
        if response.status in (401, 403):
            # The gateway's own credentials: nothing that the client could have got right.
            raise Unavailable("the replica does not know this gateway", code="replica_refused")
        if length is None and "transfer-encoding" not in response.headers:
            raise ReplicaLost("the answer does not say where it ends", code="bad_answer")
        if length is not None and length > self._answer_bytes:
            raise self._too_large()
        answer = UpstreamResponse(response.status, headers, b"", *figures, length=length)
        if response.status >= 400 or (length is not None and length <= WHOLE_BYTES):
            answer.body, complete = await self._read_whole(response, WHOLE_BYTES)
            if not complete:
                raise ReplicaLost("a refusal of the model has no end", code="bad_answer")
        else:
            answer.body = self._pieces = self._stream(response)
        return answer

    async def _read_whole(self, response: ClientResponse, limit: int) -> tuple[bytes, bool]:
        """The body, and whether that is all of it: what comes after the limit is not read."""
        body = bytearray()
        while piece := await self._read(response):
            body += piece
            if len(body) > limit:
                return bytes(body[:limit]), False
        return bytes(body), True

    async def _stream(self, response: ClientResponse) -> AsyncGenerator[bytes, None]:
        size = 0
        while True:
            async with self._patience.bounded():
                piece = await self._read(response)
            if not piece:
                return
            size += len(piece)
            if size > self._answer_bytes:
                raise self._too_large()
            with self._patience.paused():
                yield piece

    async def _read(self, response: ClientResponse) -> bytes:
        """The next piece; empty at the end of a body that is whole."""
        try:
            return await response.content.readany()
        except (ClientError, OSError) as error:
            raise lost() from error

    def _too_large(self) -> ModelFailed:
        return ModelFailed(f"the model's answer is larger than {self._answer_bytes} bytes", code="answer_too_large")
