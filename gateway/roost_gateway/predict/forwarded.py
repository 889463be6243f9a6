"""Who asked, for those behind the gateway: X-Forwarded-For, -Host and -Proto, and Forwarded (RFC 7239).

A client may have come through proxies that wrote these headers already. What is well formed is kept and continued by
this hop; the rest is dropped, so that a replica never reads nonsense.
"""

import ipaddress
import re

from roost_gateway.predict.headers import Pair

_FOR, _HOST, _PROTO, _FORWARDED = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded"
_NAMES = frozenset({_FOR, _HOST, _PROTO, _FORWARDED})

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ONE = _TOKEN + rb"=(?:" + _TOKEN + rb'|"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*")'
_ELEMENT = _ONE + rb"(?:;" + _ONE + rb")*"
_ELEMENTS = re.compile(_ELEMENT + rb"(?:[ \t]*,[ \t]*" + _ELEMENT + rb")*")
_HOST_PORT = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?")


def with_forwarding(headers: list[Pair], *, client: str | None, scheme: str) -> list[Pair]:
    """The headers, with the four made true. `client`: the peer's address; None where it has none (a Unix socket)."""
    given: dict[bytes, list[bytes]] = {name: [] for name in _NAMES}
    host = b""
    kept: list[Pair] = []
    for pair in headers:
        name, value = pair
        if name in _NAMES:
            given[name].append(value)
        else:
            if name == b"host":
                host = value
            kept.append(pair)
    peer = _address(client)
    proto = scheme.encode()
    addresses = [*_addresses(given[_FOR]), *([peer] if peer else [])]
    if addresses:
        kept.append((_FOR, b", ".join(addresses)))
    outer_host = _only(given[_HOST], _HOST_PORT) or host
    if outer_host:
        kept.append((_HOST, outer_host))
    outer_proto = b"".join(given[_PROTO]).lower()
    kept.append((_PROTO, outer_proto if outer_proto in (b"http", b"https") else proto))
    kept.append((_FORWARDED, _forwarded(given[_FORWARDED], peer=peer, host=host, proto=proto)))
    return kept


def _forwarded(given: list[bytes], *, peer: bytes, host: bytes, proto: bytes) -> bytes:
    before = b", ".join(given)
    own = []
    if peer:
        own.append(b'for="[%b]"' % peer if b":" in peer else b"for=%b" % peer)
    if host and _HOST_PORT.fullmatch(host):
        own.append(b'host="%b"' % host)
    own.append(b"proto=%b" % proto)
    element = b";".join(own)
    return b"%b, %b" % (before, element) if _ELEMENTS.fullmatch(before) else element


def _addresses(given: list[bytes]) -> list[bytes]:
    """All of the list, or nothing where one of it is no IP address."""
    texts = [text.strip() for value in given for text in value.split(b",")]
    return texts if all(_address(text.decode("latin-1")) for text in texts) else []


def _address(text: str | None) -> bytes:
    """Empty for what is no IP address."""
    try:
        return str(ipaddress.ip_address(text or "")).encode()
    except ValueError:
        return b""


def _only(given: list[bytes], pattern: re.Pattern[bytes]) -> bytes:
    """The one value, when it is one and well formed."""
    return given[0] if len(given) == 1 and pattern.fullmatch(given[0]) else b""
