"""What the tests of streams through the gateway share: answers of the far side, and hearing them."""

from predict_parts import Heard
from streaming_parts import FIGURES, Call, Client, answer

BODY = b'{"inputs":[]}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n" + FIGURES + b"\r\n"
)
LARGE = 200_000
"""Bytes of an answer that is not taken whole."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def large_head(size: int = LARGE) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % size + FIGURES + b"\r\n"


async def well(call: Call) -> None:
    await call.body()
    await call.say(answer(b'{"outputs":[]}', headers=FIGURES + b"content-type: application/json\r\n"))


async def heard(client: Client) -> Heard:
    status, headers = await client.head()
    body = await client.reader.readexactly(int(headers["content-length"]))
    return Heard(status, [(name.encode(), value.encode()) for name, value in headers.items()], body)


async def next_chunk(client: Client) -> bytes:
    size = int(await client.reader.readline(), 16)
    piece = await client.reader.readexactly(size)
    assert await client.reader.readexactly(2) == b"\r\n"
    return piece
