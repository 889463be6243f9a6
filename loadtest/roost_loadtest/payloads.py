"""What the requests of a run hold: made up from a model's signature, seeded, or taken from a file.

A few bodies are made before the run and sent in turn, so that making them costs the generator nothing while it sends.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

_BODIES = 16
_MOST_NUMBERS = 2_000_000
"""In all bodies together: larger tensors get fewer different bodies."""
_LARGEST_INTEGER = 9
"""Integers are from 0 to this: labels and indexes that most models know."""

_PACKED = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
"""Datatypes of the Open Inference Protocol, as `struct` packs them."""
_BINARY_ONLY = frozenset({"FP16", "BF16"})


@dataclass(frozen=True)
class Payload:
    """Bodies that are sent in turn, and the headers that all of them need."""

    bodies: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict)
    source: str = ""
    """For people: where the bodies came from."""


def generated(signature: Sequence[dict[str, Any]], *, seed: int = 0, binary: bool = False, batch: int = 1) -> Payload:
    """Requests for inputs as `GET /v2/models/M` describes them; dimensions of any length (-1) are `batch`.

    Raises ValueError for a datatype that is not known, or that JSON cannot carry.
    """
    shapes = [[batch if length < 0 else length for length in each["shape"]] for each in signature]
    for tensor in signature:
        if tensor["datatype"] not in {*_PACKED, "BF16", "BYTES"}:
            raise ValueError(f"input {tensor['name']} has a datatype {tensor['datatype']} that is not known here")
        if tensor["datatype"] in _BINARY_ONLY and not binary:
            raise ValueError(f"input {tensor['name']} is {tensor['datatype']}, which JSON cannot carry: use --binary")
    source = random.Random(seed)  # noqa: S311 - numbers to compute with, no secrets
    count = max(1, min(_BODIES, _MOST_NUMBERS // max(1, sum(prod(shape) for shape in shapes))))
    made = [
        [_values(tensor["datatype"], prod(shape), source) for tensor, shape in zip(signature, shapes, strict=True)]
        for _ in range(count)
    ]
    put_together = _binary if binary else _json
    payload = put_together(signature, shapes, made)
    return Payload(payload.bodies, payload.headers, f"{count} made from the signature, {payload.source}, seed {seed}")


def from_file(path: Path) -> Payload:
    """A request in JSON, or one a line (.jsonl, .ndjson). Raises OSError, and ValueError when it is no such file."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()] if path.suffix in {".jsonl", ".ndjson"} else [text]
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: request {number} is no JSON: {error}") from None
    if not lines:
        raise ValueError(f"{path}: no request")
    return Payload(tuple(line.encode() for line in lines), {"Content-Type": "application/json"}, path.name)


def _values(datatype: str, count: int, source: random.Random) -> list[Any]:
    make: Callable[[], Any]
    if datatype == "BOOL":
        make = lambda: source.random() < 0.5  # noqa: E731
    elif datatype == "BYTES":
        make = lambda: f"word-{source.randrange(1000)}"  # noqa: E731
    elif datatype.startswith(("FP", "BF")):
        make = lambda: round(source.gauss(0.0, 1.0), 4)  # noqa: E731
    else:
        make = lambda: source.randint(0, _LARGEST_INTEGER)  # noqa: E731
    return [make() for _ in range(count)]


def _described(tensor: dict[str, Any], shape: list[int]) -> dict[str, Any]:
    return {"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape}


def _json(
    signature: Sequence[dict[str, Any]], shapes: Sequence[list[int]], made: Sequence[Sequence[list[Any]]]
) -> Payload:
    bodies = tuple(
        json.dumps(
            {
                "inputs": [
                    _described(tensor, shape) | {"data": values}
                    for tensor, shape, values in zip(signature, shapes, tensors, strict=True)
                ]
            },
            separators=(",", ":"),
        ).encode()
        for tensors in made
    )
    return Payload(bodies, {"Content-Type": "application/json"}, "JSON")


def _binary(
    signature: Sequence[dict[str, Any]], shapes: Sequence[list[int]], made: Sequence[Sequence[list[Any]]]
) -> Payload:
    """Tensors as raw bytes behind a JSON head, in and out. The heads are filled up to one length, which a header tells."""
    heads, tails = [], []
    for tensors in made:
        packed = [_pack(tensor["datatype"], values) for tensor, values in zip(signature, tensors, strict=True)]
        inputs = [
            _described(tensor, shape) | {"parameters": {"binary_data_size": len(raw)}}
            for tensor, shape, raw in zip(signature, shapes, packed, strict=True)
        ]
        document = {"parameters": {"binary_data_output": True}, "inputs": inputs}
        heads.append(json.dumps(document, separators=(",", ":")).encode())
        tails.append(b"".join(packed))
    length = max(map(len, heads))
    bodies = tuple(head.ljust(length) + tail for head, tail in zip(heads, tails, strict=True))
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    return Payload(bodies, headers, "binary tensors")


def _pack(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        words = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(word)) + word for word in words)
    if datatype == "BF16":  # the upper half of a float32
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}{_PACKED[datatype]}", *values)
