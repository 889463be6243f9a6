"""`python benchmarks/tensors.py`: what a tensor costs inside one process: body bytes to array and back, no server.

Roost's side includes all its checks. The plain side is what is written without a library: json.loads and np.array, and
json.dumps of tolist(). Both take turns; shown is the least processor time of each, since what is above that was not this
program but its neighbours.
"""

import argparse
import json
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np

from roost_runtimes.codec import InferCodec
from roost_runtimes.model import Array, Model, RunControl, TensorSpec

IMAGE, ROW = (1, 3, 224, 224), (1, 4)


class Signature(Model):
    """Inputs and outputs to read and write for; nothing runs."""

    name, version, platform = "bench", "1", "bench"

    def __init__(self, shape: tuple[int, ...]) -> None:
        spec = TensorSpec("x", "FP32", (-1, *shape[1:]))
        self.inputs, self.outputs = [spec], [spec]

    def run(self, feeds: Any, outputs: Any = None, control: RunControl | None = None) -> list[Array]:
        return list(feeds.values())

    def warm_up(self) -> None:
        pass


def best_us(ways: dict[str, Callable[[], Any]], *, rounds: int, calls: int) -> dict[str, float]:
    """Microseconds of processor time of one call of each; all take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, call in ways.items():
            begun = thread_time()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (thread_time() - begun) / calls * 1e6)
    return best


def request(sample: Array, *, request_id: str | None = None, nested: bool = False) -> bytes:
    """A JSON request with six digits a number, as clients send them."""
    rounded = np.array([float(f"{value:.6g}") for value in sample.ravel()]).reshape(sample.shape)
    tensor = {"name": "x", "shape": list(sample.shape), "datatype": "FP32"}
    data = (rounded if nested else rounded.ravel()).tolist()
    document = ({"id": request_id} if request_id else {}) | {"inputs": [tensor | {"data": data}]}
    return json.dumps(document, separators=(",", ":")).encode()


def plain_decode(body: bytes, shape: tuple[int, ...]) -> Array:
    return np.array(json.loads(body)["inputs"][0]["data"], np.float32).reshape(shape)


def plain_encode(array: Array) -> bytes:
    output = {"name": "x", "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
    return json.dumps({"model_name": "bench", "model_version": "1", "outputs": [output]}).encode()


def compare(name: str, sample: Array, body: bytes, *, rounds: int, calls: int) -> list[str]:
    """A row for reading this body and one for writing its tensor."""
    codec, shape = InferCodec(Signature(sample.shape)), sample.shape
    call = codec.decode(body, None)
    if not np.array_equal(call.feeds["x"], plain_decode(body, shape)):
        raise RuntimeError(f"{name}: the arrays differ")
    reading = best_us(
        {"plain": lambda: plain_decode(body, shape), "roost": lambda: codec.decode(body, None)},
        rounds=rounds,
        calls=calls,
    )
    writing = best_us(
        {"plain": lambda: plain_encode(sample), "roost": lambda: b"".join(call.encode([sample])[1])},
        rounds=rounds,
        calls=calls,
    )
    return [_row(f"{name} to array", reading), _row(f"{name}, from array", writing)]


def _row(name: str, best: dict[str, float]) -> str:
    return f"| {name} | {best['plain']:,.1f} | {best['roost']:,.1f} | {best['roost'] / best['plain']:.3f} |"


def binary(sample: Array, *, rounds: int) -> list[str]:
    """Reading the same tensor as binary data, beside one copy of it; where it lies aligned, nothing is copied."""
    codec, lines = InferCodec(Signature(sample.shape)), []
    tensor = {"name": "x", "shape": list(sample.shape), "datatype": "FP32"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": sample.nbytes}}]}).encode()
    for where, shift in (("aligned", 0), ("misaligned", 1)):
        # numpy's memory starts at a multiple of 16 and the tensor behind `lead` bytes, so where it lies is known.
        lead = -(-len(head) // 4) * 4 + shift
        body = np.frombuffer(head.ljust(lead) + sample.tobytes(), np.uint8).copy().data
        feed = codec.decode(body, str(lead)).feeds["x"]
        copies = int(not np.shares_memory(feed, np.frombuffer(body, np.uint8)))
        ways = {"plain": sample.copy, "roost": lambda body=body, lead=lead: codec.decode(body, str(lead))}
        lines.append(
            _row(
                f"binary, {where}, to array: {copies} copies; plain = one copy", best_us(ways, rounds=rounds, calls=20)
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often each takes its turn (default 15)")
    rounds = parser.parse_args().rounds
    random = np.random.default_rng(20)
    image, row = random.random(IMAGE, np.float32), np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    body = request(image)
    lines = [
        f"| {len(body):,} bytes of JSON; µs | plain | Roost | ratio |",
        "|---|--:|--:|--:|",
        *compare("image", image, body, rounds=rounds, calls=1),
        *compare("image with an id", image, request(image, request_id="7"), rounds=rounds, calls=1)[:1],
        *compare("image, nested lists", image, request(image, nested=True), rounds=rounds, calls=1)[:1],
        *compare("iris", row, request(row), rounds=rounds, calls=5000),
        *compare("iris with an id", row, request(row, request_id="7"), rounds=rounds, calls=5000)[:1],
        *binary(image, rounds=rounds),
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
