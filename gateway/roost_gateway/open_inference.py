"""Reading calls that a runtime has taken already: bodies of the Open Inference Protocol v2, JSON and binary.

It checks only what a reader needs; whatever it cannot read raises Unreadable.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import orjson

from roost_gateway.predict.headers import Pair
from roost_platform.domain.comparing import Tensor

_UNZIPPED_BYTES = 1 << 20
_FORMATS = {
    "FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "BOOL": "?",
}  # fmt: skip


class Unreadable(Exception):
    """Not in a form that can be looked at."""


def read_tensors(body: bytes, headers: Sequence[Pair], member: str) -> list[Tensor]:
    """The tensors of `inputs` or `outputs`."""
    document, binary = read_parts(body, headers)
    return tensors_of(document, binary, member)


def read_parts(body: bytes, headers: Sequence[Pair]) -> tuple[dict[str, Any], bytes]:
    """The JSON object, and the binary data behind it."""
    length = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-encoding":
            body = _unzipped(body, value.lower())
        if lower == b"inference-header-content-length":
            length = int(value)
    return parsed(body[:length]), b"" if length is None else body[length:]


def parsed(document: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def tensors_of(document: dict[str, Any], binary: bytes, member: str) -> list[Tensor]:
    made, at = [], 0
    try:
        for tensor in document[member]:
            shape = tuple(int(size) for size in tensor["shape"])
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            if size is None:
                values = _plain(tensor["data"])
            else:
                values = _unpacked(binary[at : at + size], tensor["datatype"])
                at += size
            if len(values) != math.prod(shape):
                raise Unreadable("another number of values than its shape says")
            made.append(Tensor(str(tensor["name"]), str(tensor["datatype"]), shape, values))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError, struct.error) as error:
        raise Unreadable(f"no {member} as in the protocol's version 2") from error
    return made


def _plain(data: Any) -> list[Any]:
    flat: list[Any] = data if isinstance(data, list) else [data]
    while flat and isinstance(flat[0], list):
        flat = [value for line in flat for value in line]
    return flat


def _unpacked(raw: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        form = _FORMATS[datatype]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw))
    texts, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + size].decode("utf-8", "replace"))
        at += 4 + size
    return texts


def _unzipped(body: bytes, coding: bytes) -> bytes:
    if coding == b"identity":
        return body
    if coding not in (b"gzip", b"deflate"):
        raise Unreadable("compressed in another way")
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)  # by its first bytes, either
    try:
        plain = unzip.decompress(body, _UNZIPPED_BYTES)
    except zlib.error as error:
        raise Unreadable("not compressed as it says") from error
    if not unzip.eof:
        raise Unreadable("too large once decompressed")
    return plain
