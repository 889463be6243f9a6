"""HTTP content headers of requests and answers: types, and compressed bodies with a bound on what they may become."""

import zlib
from collections.abc import Iterable, Sequence

from roost_runtimes.errors import RequestError
from roost_runtimes.tensors import Buffer

# curl -d says the form type for whatever it sends, and the Triton client says nothing at all; both mean JSON here.
_ACCEPTED_TYPES = frozenset({"application/json", "application/octet-stream", "application/x-www-form-urlencoded"})
_COMPRESS_ABOVE = 1024
_FASTEST = 1  # answers are made while someone waits
_GZIP, _ZLIB, _RAW = 31, 15, -15


def fold_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name. A repeated one is joined with a comma, as HTTP has it, so that its repetition stays visible."""
    folded: dict[str, str] = {}
    for name, value in pairs:
        folded[name] = f"{folded[name]}, {value}" if name in folded else value
    return folded


def check_type(content_type: str | None) -> None:
    """Refuse with 415 what is neither JSON nor an octet stream."""
    if content_type is None or content_type in _ACCEPTED_TYPES:
        return
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip(' "') not in {"utf-8", "utf8", "us-ascii"}:
            raise _unsupported("the charset must be utf-8", "content-type")
    if name not in _ACCEPTED_TYPES:
        raise _unsupported("the content type must be application/json or application/octet-stream", "content-type")


def decompress(body: Buffer, encoding: str, limit: int) -> Buffer:
    """The body with its Content-Encoding undone; 413 as soon as it is known to become longer than `limit` bytes."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding in {"gzip", "x-gzip"}:
        window = _GZIP
    elif encoding == "deflate":
        # zlib's format is what the name means; some clients send the bare stream.
        window = _ZLIB if len(body) >= 2 and (body[0] & 0x0F) == 8 and (body[0] * 256 + body[1]) % 31 == 0 else _RAW
    else:
        raise _unsupported("the content encoding must be gzip or deflate, applied once", "content-encoding")
    decoder = zlib.decompressobj(window)
    try:
        decoded = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise RequestError(f"the body is not valid {encoding}", field="content-encoding") from None
    if len(decoded) > limit or decoder.unconsumed_tail:
        raise too_large(limit)
    if not decoder.eof or decoder.unused_data:
        raise RequestError(f"the body is not one whole {encoding} stream", field="content-encoding")
    return decoded


def compress(pieces: Sequence[Buffer], accept: str) -> tuple[str, list[Buffer]] | None:
    """The pieces compressed by the best encoding that the client asked for, or None when it is not worth it."""
    if sum(map(len, pieces)) <= _COMPRESS_ABOVE:
        return None
    encoding = _choose(accept)
    if encoding is None:
        return None
    encoder = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP if encoding == "gzip" else _ZLIB)
    return encoding, [*filter(None, map(encoder.compress, pieces)), encoder.flush()]


def _choose(accept: str) -> str | None:
    best, best_quality = None, 0.0
    for part in accept.lower().split(","):
        name, _, parameter = part.strip().partition(";")
        name = name.strip()
        if name not in {"gzip", "deflate"}:
            continue
        try:
            quality = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
        except ValueError:
            continue
        if quality > best_quality or (quality == best_quality > 0 and name == "gzip"):
            best, best_quality = name, quality
    return best


def too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes", status=413, code="too_large")


def _unsupported(message: str, field: str) -> RequestError:
    return RequestError(message, status=415, code="unsupported_media_type", field=field)
