"""What a tensor costs inside one process: body bytes to array and back, no server.

Roost's side includes all its checks. The plain side is what is written without a library: json.loads and np.array, and
json.dumps of tolist(). Both take turns; a figure is the least processor time of each, since what is above that was not
this program but its neighbours.
"""

import json
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from bench import ROOST, Bench, Figures, Round
from models import BINARY, JSON

from roost_runtimes.codec import InferCodec
from roost_runtimes.model import Array, Model, RunControl, TensorSpec

PLAIN_CODE = "json.loads + np.array"

_ROW_CALLS = 2000

Ways = dict[str, Callable[[], Any]]


class _Signature(Model):
    """Inputs and outputs to read and write for; nothing runs."""

    name, version, platform = "bench", "1", "bench"

    def __init__(self, shape: tuple[int, ...]) -> None:
        spec = TensorSpec("x", "FP32", (-1, *shape[1:]))
        self.inputs, self.outputs = [spec], [spec]

    def run(self, feeds: Any, outputs: Any = None, control: RunControl | None = None) -> list[Array]:
        return list(feeds.values())

    def warm_up(self) -> None:
        pass


def codec(bench: Bench) -> Round:
    """Microseconds per tensor: the image and a row of four numbers."""
    image, row = bench.models["image"], bench.models["tiny"]
    body = image.bodies[JSON].content
    numbers = np.array(json.loads(body)["inputs"][0]["data"])
    ways = {
        "image_us": (_reading(body, image.sample.shape), 1),
        "image_id_us": (_reading(_request(numbers, image.sample.shape, id="7"), image.sample.shape), 1),
        "nested_us": (_reading(_request(numbers.reshape(image.sample.shape)), image.sample.shape), 1),
        "image_out_us": (_writing(image.sample), 1),
        "row_us": (_reading(row.bodies[JSON].content, row.sample.shape), _ROW_CALLS),
        "row_out_us": (_writing(row.sample), _ROW_CALLS),
    }
    results: Round = {PLAIN_CODE: {}, ROOST: {}}
    for metric, (both, calls) in ways.items():
        for name, spent in _best_us(both, turns=bench.sizes.codec_turns, calls=calls).items():
            results[name][metric] = spent
    results[ROOST] |= _binary(image.bodies[BINARY].content, image.sample)
    return results


def _best_us(ways: Ways, *, turns: int, calls: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(turns):
        for name, call in ways.items():
            begun = thread_time()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (thread_time() - begun) / calls * 1e6)
    return best


def _reading(body: bytes, shape: tuple[int, ...]) -> Ways:
    """Both ways from these bytes to an array. Raises RuntimeError when the arrays differ."""
    own = InferCodec(_Signature(shape))
    if not np.array_equal(own.decode(body, None).feeds["x"], _plain_decode(body, shape)):
        raise RuntimeError("the arrays differ")
    return {PLAIN_CODE: lambda: _plain_decode(body, shape), ROOST: lambda: own.decode(body, None)}


def _writing(sample: Array) -> Ways:
    call = InferCodec(_Signature(sample.shape)).decode(_request(sample), None)
    return {PLAIN_CODE: lambda: _plain_encode(sample), ROOST: lambda: b"".join(call.encode([sample])[1])}


def _request(data: Array, shape: tuple[int, ...] | None = None, **more: str) -> bytes:
    tensor = {"name": "x", "shape": shape or data.shape, "datatype": "FP32", "data": data.tolist()}
    return json.dumps({**more, "inputs": [tensor]}, separators=(",", ":")).encode()


def _plain_decode(body: bytes, shape: tuple[int, ...]) -> Array:
    return np.array(json.loads(body)["inputs"][0]["data"], np.float32).reshape(shape)


def _plain_encode(array: Array) -> bytes:
    output = {"name": "x", "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
    return json.dumps({"model_name": "bench", "model_version": "1", "outputs": [output]}).encode()


def _binary(body: bytes, sample: Array) -> Figures:
    """Copies of the payload that the codec makes of a binary body that lies as the link lays it: its end aligned.

    On the way to it there are two more, both in the gateway and both counted in the code: uvloop makes a bytes object of
    what it read from the client, and the HTTP parser one of each piece of the body. From there the pieces are written to
    the replica's socket as they are, and the replica reads them where they stay; only what its first read held (at most
    256 KiB) is moved there once more.
    """
    head = str(len(body) - sample.nbytes)
    memory = np.empty(len(body) + 64, np.uint8)
    begin = (-(memory.ctypes.data + len(body))) % 16
    place = memory[begin : begin + len(body)]
    place[:] = np.frombuffer(body, np.uint8)
    feed = InferCodec(_Signature(sample.shape)).decode(place.data, head).feeds["x"]
    return {"binary_copies": 2 + int(not np.shares_memory(feed, memory))}
