"""Leases of the Knative engine: wait until the revision has an address, then leave the rest to the ingress."""

import asyncio
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from types import TracebackType

from roost_platform.domain.errors import DeadlineExceeded, NotFound, RoostError, Unavailable
from roost_platform.domain.services import Revision, RevisionStatus
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.model import Address, Model
from roost_platform.engines.port import Upstream, UpstreamRequest, UpstreamResponse

_LOOK_S = 1.0
_NO_ROOM = ("QuotaExceeded", "Unschedulable")


class Lease(AbstractAsyncContextManager[Upstream]):
    """Entered, it is one of the model's calls in flight until it is left."""

    __slots__ = ("_deadline", "_ingress", "_inner", "_model", "_name", "_variant")

    def __init__(self, model: Model, name: str, deadline: float, ingress: Ingress) -> None:
        self._model = model
        self._name = name
        self._deadline = deadline
        self._ingress = ingress
        self._inner: AbstractAsyncContextManager[Upstream] | None = None
        self._variant = ""

    async def __aenter__(self) -> Upstream:
        began = perf_counter()
        revision, address = self._look()
        waited = address is None
        while address is None:
            await self._wait(revision)
            revision, address = self._look()
        asleep = not self._model.is_awake(revision)
        inner = self._ingress.lease(
            host=address.host, secret=self._model.secret, deadline=self._deadline, asleep=asleep
        )
        self._variant = address.variant
        self._model.entered(self._variant)
        try:
            upstream = await inner.__aenter__()
        except BaseException:
            self._model.left(self._variant)
            raise
        self._inner = inner
        if asleep:
            upstream = _Waking(upstream, self._model, revision)
        if waited:
            upstream.queue_us = upstream.cold_start_us = int((perf_counter() - began) * 1e6)
        return upstream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._inner is not None, "left after it was entered"
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            self._model.left(self._variant)

    def _look(self) -> tuple[Revision, Address | None]:
        """The revision and its address. Raises NotFound, Unavailable with the reason."""
        revision = self._model.find(self._name)
        if revision is None:
            raise NotFound("there is no such revision")
        failed = self._model.hopeless(revision)
        if failed is not None:
            raise unavailable(failed)
        return revision, self._model.address(revision)

    async def _wait(self, revision: Revision) -> None:
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            status = self._model.status(revision.name)
            if status.reason in _NO_ROOM:
                raise Unavailable(status.message, code="no_capacity", retry_after_s=1)
            raise DeadlineExceeded("no replica was ready within the request's time")
        await self._model.wait_changed(revision.name, left_s)


class _Waking(Upstream):
    """A call that wakes a sleeping revision: when that fails, whoever waits for it is told at once."""

    def __init__(self, inner: Upstream, model: Model, revision: Revision) -> None:
        self._inner = inner
        self._model = model
        self._revision = revision
        self._waited_us = 0

    # What was waited here comes on top of what the ingress measures.

    @property
    def queue_us(self) -> int:
        return self._waited_us + self._inner.queue_us

    @queue_us.setter
    def queue_us(self, value: int) -> None:
        self._waited_us = value

    @property
    def cold_start_us(self) -> int:
        return self._waited_us + self._inner.cold_start_us

    @cold_start_us.setter
    def cold_start_us(self, value: int) -> None:
        self._waited_us = value

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        sending = asyncio.ensure_future(self._inner.send(request))
        try:
            while not sending.done():
                failed = self._model.failed_to_wake(self._revision)
                if failed is not None:
                    raise unavailable(failed)
                await self._model.wait_changed(self._revision.name, _LOOK_S, sending)
            return sending.result()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


def unavailable(status: RevisionStatus) -> RoostError:
    return Unavailable(
        f"the model cannot serve now ({status.reason}: {status.message})", code="not_ready", retry_after_s=30
    )
