"""Requests as bytes, to be taken apart: `@INFER@` is the path of a model that adds one, `@KEY@` the header that opens it."""

from dataclasses import dataclass

HOST = b"host: roost"


def body(name: str) -> bytes:
    """A call whose answer carries this id."""
    return b'{"id":"%b","inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}' % name.encode()


A = body("a")
LENGTH = b"content-length: %d" % len(A)
CHUNKED = b"transfer-encoding: chunked"


def chunks(content: bytes, *, size: int = 30, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n%b\r\n" % trailers


def head(
    *headers: bytes, line: bytes = b"POST @INFER@ HTTP/1.1", host: bytes | None = HOST, end: bytes = b"\r\n"
) -> bytes:
    return end.join([line, *([host] if host is not None else []), b"@KEY@", *headers, b"", b""])


def post(*headers: bytes, content: bytes = A, **how: bytes | None) -> bytes:
    return head(*headers, **how) + content  # type: ignore[arg-type]


def good(name: str) -> bytes:
    return post(b"content-length: %d" % len(body(name)), content=body(name))


INNER = b"GET / HTTP/1.1\r\nhost: inner\r\n\r\n"
MARKER = good("m")
IN_CHUNKS = chunks(A)


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    expected: str
