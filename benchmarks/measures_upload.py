"""How long an upload takes until its first right answer, beside opening and running the file in process."""

import secrets
import shutil
import time

from bench import FLOOR, ROOST, Bench, Figures, Round, take_turns
from contenders import check
from load import call_once
from models import JSON, Model
from roost_server import Roost

ROOST_FIRST = "Roost, first upload of a fresh server"


def upload(bench: Bench, rotation: int, name: str) -> Round:
    """On a fresh server: the first upload is apart, since it also starts what checks. Each has bytes of its own."""
    model, count, first = bench.models[name], bench.sizes.uploads, Figures()

    def roost() -> Figures:
        data = bench.work / "uploads"
        shutil.rmtree(data, ignore_errors=True)
        server = Roost(data, bench.work)
        try:
            took = [_upload(server, bench, model, f"{name}-{number}") for number in range(count + 1)]
        finally:
            server.stop()
            shutil.rmtree(data)
        first.update(_figures(took[:1]))
        return _figures(took[1:])

    jobs = {FLOOR: lambda: {"samples": bench.run_floor("open", name, count)}, ROOST: roost}
    return take_turns(jobs, rotation) | {ROOST_FIRST: first}


def _figures(took: list[dict[str, float]]) -> Figures:
    steps = {step: sum(one[step] for one in took) / len(took) for step in ("accepted_ms", "answer_ms")}
    return steps | {"samples": [one["whole_ms"] for one in took]}


def _upload(server: Roost, bench: Bench, model: Model, name: str) -> dict[str, float]:
    """From the first byte to the accepted version, and on to the right answer of a call that is sent at once."""
    file = bench.work / f"{name}.onnx"
    file.write_bytes(model.file.read_bytes() + _property(secrets.token_hex(8)))
    begun = time.perf_counter()
    server.client.upload(name, file)
    accepted = time.perf_counter()
    answer, _ = call_once(server.target(name), model.bodies[JSON])  # waits until the version is ready
    ended = time.perf_counter()
    check(model, answer, name)
    file.unlink()
    steps = {"accepted_ms": accepted - begun, "answer_ms": ended - accepted, "whole_ms": ended - begun}
    return {step: took * 1e3 for step, took in steps.items()}


def _property(text: str) -> bytes:
    """A metadata property in protobuf's own bytes: appended to a model it changes nothing but the digest."""
    pair = b"\x0a\x05round\x12" + bytes((len(text),)) + text.encode()
    return b"\x72" + bytes((len(pair),)) + pair
