"""What an answer that came through the ingress means: who gave it, and whether the request had reached a replica.

Pure functions. A replica puts its figures on every answer. Without them it is the infrastructure that speaks, in words of
its own: the ingress's proxy (Envoy), Knative's activator, or queue-proxy, which stands before each replica.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from roost_platform.domain.errors import DeadlineExceeded, ReplicaLost, RoostError, TooLarge, Unavailable
from roost_platform.engines.port import Headers

_FIGURES = (b"roost-compute-us", b"roost-queue-us", b"roost-rows")
_FIGURE = re.compile(rb"[0-9]{1,15}")
_MOST_RETRY_S = 3600.0


class Figures(NamedTuple):
    """A replica's own, in microseconds and rows."""

    compute_us: int
    queue_us: int
    rows: int


class Verdict(NamedTuple):
    """What the infrastructure's answer comes down to."""

    error: RoostError
    unsent: bool = False
    """No replica has seen the request: it may be sent again."""


def lower(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Header pairs as the port wants them: names in lower case, values as they came."""
    return [(name.lower(), value) for name, value in raw]


def figures_of(headers: Headers) -> Figures | None:
    """None where it was no replica that answered. Raises ReplicaLost for figures that are none."""
    found = {name: value for name, value in headers if name in _FIGURES}
    if _FIGURES[0] not in found:
        return None
    if len(found) < len(_FIGURES) or not all(map(_FIGURE.fullmatch, found.values())):
        raise ReplicaLost("the model's answer carried no valid figures", code="bad_answer")
    return Figures(*(int(found[name]) for name in _FIGURES))


def verdict_on(status: int, headers: Headers, text: bytes) -> Verdict:
    """What an answer without figures means; `text` is the beginning of its body."""
    if status == 404:
        # Envoy knows no route for the host, or the activator does not know the revision (yet, or any more).
        return Verdict(_not_routed(headers), unsent=True)
    if status == 504:
        # queue-proxy's and the activator's "request timeout", Envoy's "upstream request timeout".
        return Verdict(DeadlineExceeded("the model did not answer within its timeout"))
    if status == 503:
        return _on_503(headers, text)
    if status == 502:
        # Go's proxy, in the activator or queue-proxy, with the error's text: dialling failed, or the answer did.
        return Verdict(lost(), unsent=text.startswith(b"dial "))
    if status in (413, 431):
        return Verdict(TooLarge("the request's head is larger than the ingress takes", code="head_too_large"))
    return Verdict(_refused(headers))


def lost() -> ReplicaLost:
    return ReplicaLost("the replica was lost while it worked on this request")


def _on_503(headers: Headers, text: bytes) -> Verdict:
    if b"no healthy upstream" in text or b"connect error: " in text or b"connection failure" in text:
        return Verdict(unavailable(headers, "no replica can be reached at the moment"), unsent=True)
    if b"queue full" in text or b"overflow" in text:
        return Verdict(unavailable(headers, "too many requests wait for this model", code="queue_full"))
    if b"before headers" in text:
        return Verdict(lost())  # Envoy had a connection to it, and that broke
    return Verdict(unavailable(headers, "no replica took this request in time"))


def _not_routed(headers: Headers) -> Unavailable:
    return unavailable(headers, "the ingress has no route to this version yet", code="not_routed")


def _refused(headers: Headers) -> Unavailable:
    return unavailable(headers, "the cluster's ingress did not let this request through", code="ingress_refused")


def unavailable(headers: Headers, message: str, *, code: str | None = None) -> Unavailable:
    """With the time to wait that the infrastructure asks for."""
    return Unavailable(message, code=code, retry_after_s=_retry_after(headers))


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float:
    """Seconds; a date, which HTTP allows too, nobody on this path sends."""
    given = next((value for name, value in headers if name == b"retry-after"), b"1")
    return min(float(given), _MOST_RETRY_S) if _FIGURE.fullmatch(given) else 1.0
