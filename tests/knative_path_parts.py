"""What the tests of the ingress client share: a call on a lease, whole, and what it comes to."""

import asyncio
import contextlib

import pytest

from roost_platform.domain.errors import RoostError
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.port import UpstreamRequest
from streaming_parts import HOST, SECRET, Call, FarSide

PATH = "/v2/models/iris/infer"
NO_PAUSE = (0.001, 0.001)


def a_request(*pieces: bytes, headers=(), request_id="call-1") -> UpstreamRequest:
    return UpstreamRequest("POST", PATH, list(headers), pieces, request_id)


@contextlib.asynccontextmanager
async def ingress_to(far: FarSide, **how):
    ingress = Ingress(url=far.url, **{"pauses_s": NO_PAUSE} | how)
    await ingress.start()
    try:
        yield ingress
    finally:
        await ingress.stop()


def soon(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


async def ask(far: FarSide, request: UpstreamRequest, *, within: float = 30, asleep: bool = False, **how):
    """The answer, with its body whole, and the upstream."""
    async with (
        ingress_to(far, **how) as ingress,
        ingress.lease(host=HOST, secret=SECRET, deadline=soon(within), asleep=asleep) as upstream,
    ):
        response = await upstream.send(request)
        if not isinstance(response.body, bytes):
            response.body = b"".join([piece async for piece in response.body])
        return response, upstream


async def failure_of(far: FarSide, request: UpstreamRequest | None = None, **how) -> RoostError:
    with pytest.raises(RoostError) as raised:
        await ask(far, request or a_request(b"body"), **how)
    return raised.value


def always(data: bytes):
    """A handler that reads the request and says this."""

    async def handle(call: Call) -> None:
        await call.body()
        await call.say(data)

    return handle
