"""The gateway's HTTP/1.1 connections: guarded, with the lane's short cuts, refused in the words of every other error."""

from collections.abc import Iterable
from typing import Any

import orjson

from roost_gateway import framing
from roost_gateway.framing import HEAD_BYTES, Guard
from roost_gateway.http import LaneProtocol
from roost_gateway.request_ids import request_id_from
from roost_gateway.settings import LimitSettings

__all__ = ["HEAD_BYTES", "GuardedLane", "GuardedProtocol", "check_all"]


class GuardedProtocol(Guard):
    """One connection. `check` must be called about once a second."""

    def refusal(self, code: str, message: str) -> tuple[bytes, bytes]:
        request_id = request_id_from(self.scope["headers"] if self.scope else ())
        body = orjson.dumps({"error": message, "code": code, "request_id": request_id})
        return b"x-request-id: %b\r\n" % request_id.encode(), body


class GuardedLane(GuardedProtocol, LaneProtocol):
    """One connection whose predictions may take the fast lane."""

    def data_received(self, data: bytes) -> None:
        # While a head is awaited or has begun, and be it with an empty line, only the parser knows where it stands.
        if self._refused or self._head_since is not None or not self.take_known(data):
            super().data_received(data)

    def check(self, now: float, *, head_s: float, body_idle_s: float) -> None:
        super().check(now, head_s=head_s, body_idle_s=body_idle_s)
        self.check_idle(now)


def check_all(connections: Iterable[Any], now: float, limits: LimitSettings) -> None:
    """Close each of a server's connections that takes too long; `now` is the loop's time."""
    framing.check_all(connections, now, head_s=limits.head_s, body_idle_s=limits.body_idle_s)
