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

_LIMIT_S = 60.0


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
    steps = {step: sum(one[step] for one in took) / len(took) for step in ("accepted_ms", "ready_ms", "answer_ms")}
    return steps | {"samples": [one["whole_ms"] for one in took]}


def _upload(server: Roost, bench: Bench, model: Model, name: str) -> dict[str, float]:
    """From the first byte to the accepted version, to its readiness, and to the first right answer."""
    file = bench.work / f"{name}.onnx"
    file.write_bytes(model.file.read_bytes() + _property(secrets.token_hex(8)))
    begun = time.perf_counter()
    server.client.upload(name, file)
    accepted = time.perf_counter()
    while not _is_ready(server, name):
        if time.perf_counter() - accepted > _LIMIT_S:
            raise RuntimeError(f"{name} is not ready")
    ready = time.perf_counter()
    answer, _ = call_once(server.target(name), model.bodies[JSON])
    ended = time.perf_counter()
    check(model, answer, name)
    file.unlink()
    steps = {
        "accepted_ms": accepted - begun,
        "ready_ms": ready - accepted,
        "answer_ms": ended - ready,
        "whole_ms": ended - begun,
    }
    return {step: took * 1e3 for step, took in steps.items()}


def _is_ready(server: Roost, name: str) -> bool:
    state = server.client.version(name, 1)["state"]
    if state == "failed":
        raise RuntimeError(f"{name} failed")
    return state == "ready"


def _property(text: str) -> bytes:
    """A metadata property in protobuf's own bytes: appended to a model it changes nothing but the digest."""
    pair = b"\x0a\x05round\x12" + bytes((len(text),)) + text.encode()
    return b"\x72" + bytes((len(pair),)) + pair
