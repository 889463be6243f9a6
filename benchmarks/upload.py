"""How long an upload takes until its first right answer, beside opening and running the file in process.

Usage: upload.py [--model cnn] [--rounds 5] [--pause 0]      prints each step in milliseconds and the ratio of medians

Each round uploads a file of other bytes under another name, so that each one is checked. With a pause of over a minute
the processes that check have ended, as on a server where nothing was uploaded for a while.
"""

import argparse
import json
import secrets
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from contenders import InProcess, check
from load import call_once
from models import JSON, Model, build
from roost_server import Roost

from roost_gateway.client import RoostClient

_LIMIT_S = 60.0


def upload(server: Roost, model: Model, folder: Path, name: str) -> dict[str, float]:
    """Milliseconds from the first byte to the accepted version, to its readiness, and to the first right answer."""
    file = folder / f"{name}.onnx"
    file.write_bytes(model.file.read_bytes() + _property(secrets.token_hex(8)))
    begun = time.perf_counter()
    server.client.upload(name, file)
    accepted = time.perf_counter()
    while not _is_ready(server.client, name):
        if time.perf_counter() - accepted > _LIMIT_S:
            raise RuntimeError(f"{name} is not ready")
    ready = time.perf_counter()
    answer, _ = call_once(server.target(name), model.bodies[JSON])
    ended = time.perf_counter()
    check(model, answer, name)
    file.unlink()
    steps = {"accepted": accepted - begun, "ready": ready - accepted, "answer": ended - ready, "whole": ended - begun}
    return {step: took * 1e3 for step, took in steps.items()}


def _is_ready(client: RoostClient, name: str) -> bool:
    state = client.version(name, 1)["state"]
    if state == "failed":
        raise RuntimeError(f"{name} failed")
    return state == "ready"


def _property(text: str) -> bytes:
    """A metadata property in protobuf's own bytes: appended to a model it changes nothing but the digest."""
    pair = b"\x0a\x05round\x12" + bytes((len(text),)) + text.encode()
    return b"\x72" + bytes((len(pair),)) + pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roost-upload-", dir="/var/tmp") as work:
        folder = Path(work)
        model = build(folder)[options.model]
        server, floor, rows = Roost(folder / "data", folder), InProcess(folder, folder), []
        try:
            for number in range(options.rounds + 1):
                time.sleep(options.pause)
                rows.append(upload(server, model, folder, f"m{number}"))
                print({step: round(took, 1) for step, took in rows[-1].items()}, flush=True)
        finally:
            server.stop()
        opened = _floor(floor, options.model, options.rounds)
    whole, alone = median(row["whole"] for row in rows[1:]), median(opened)
    print(f"in process {alone:.1f} ms; upload to first right answer {whole:.1f} ms; {whole / alone:.2f} times")


def _floor(floor: InProcess, model: str, rounds: int) -> list[float]:
    output = subprocess.run(floor.command("open", model, rounds), capture_output=True, text=True, check=True).stdout
    return json.loads(output)


if __name__ == "__main__":
    main()
