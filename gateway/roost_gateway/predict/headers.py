"""Which headers go on to the replica, and which stay behind."""

from collections.abc import Iterable
from dataclasses import dataclass

Pair = tuple[bytes, bytes]

_DROPPED = frozenset(
    {
        # Hop by hop (RFC 9110), and what the gateway answers for itself.
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"content-length",
        # The key is the gateway's business; a replica never sees it.
        b"authorization", b"cookie",
    }
)  # fmt: skip
_ENGINE_PREFIXES = (b"k-", b"knative-", b"roost-", b"x-roost-")
"""Headers that speak to the engine: a client must not."""
_PROBE_AGENTS = (b"kube-probe/", b"Knative-")
"""Whom queue-proxy answers itself, as it does a probe."""


@dataclass(slots=True)
class Incoming:
    """A request's headers, sorted by whom they are for."""

    forwarded: list[Pair]
    authorization: list[bytes]
    content_length: bytes | None
    request_id: bytes | None
    cookies: list[bytes]

    @property
    def length(self) -> int | None:
        """The declared length of the body; None when there is none, or it is no number."""
        declared = self.content_length
        return int(declared) if declared is not None and declared.isdigit() else None


def sort_headers(headers: Iterable[Pair]) -> Incoming:
    """One pass over the headers (names in lower case, as ASGI gives them); values are kept byte for byte."""
    forwarded: list[Pair] = []
    incoming = Incoming(forwarded, [], None, None, [])
    for pair in headers:
        name, value = pair
        if name in _DROPPED:
            if name == b"authorization":
                incoming.authorization.append(value)
            elif name == b"content-length":
                incoming.content_length = value
            elif name == b"cookie":
                incoming.cookies.append(value)
        elif name == b"x-request-id":
            incoming.request_id = value
        elif not name.startswith(_ENGINE_PREFIXES) and not (name == b"user-agent" and value.startswith(_PROBE_AGENTS)):
            forwarded.append(pair)
    return incoming
