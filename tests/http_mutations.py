"""Damaged requests for http_both, the same for the same seed."""

import random

from http_requests import CHUNKED, HOST, IN_CHUNKS, LENGTH, A, Case, chunks, good, post

_BYTES = b"\r\n\x00 \t:;,\"'\xff0a5fG/%+-_?#*=@\x0b"
_PIECES = (
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    LENGTH + b"\r\n",
    CHUNKED + b"\r\n",
    HOST + b"\r\n",
    b" HTTP/1.1\r\n",
    b"chunked, ",
)


def mutations(count: int, seed: int) -> list[Case]:
    """Damaged requests, the same for the same seed: bytes changed, cut out, doubled, moved, pieces of heads put in."""
    chance = random.Random(seed)
    whole = [
        post(LENGTH),
        post(CHUNKED, content=IN_CHUNKS),
        good("a") + good("b"),
        post(CHUNKED, content=chunks(A, trailers=b"x-a: b\r\n")),
    ]
    return [Case(f"mutation {number}", _mutated(chance, chance.choice(whole)), "?") for number in range(count)]


def _mutated(chance: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        length = chance.randint(1, 8)
        match chance.randrange(5):
            case 0:
                data[at] = chance.choice(_BYTES)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = chance.choice(_PIECES)
            case 4:
                moved = bytes(data[at : at + length])
                del data[at : at + length]
                target = chance.randint(0, len(data))
                data[target:target] = moved
    return bytes(data)
