"""Roost on Ray Serve beside plain Ray Serve and beside the local engine: rate, latency and waking from zero. Needs Ray and wrk.

    make test-ray                                                    # once: makes .work/ray-venv
    .work/ray-venv/bin/python -m pip install onnx
    .work/ray-venv/bin/python benchmarks/ray_engine.py [--turns 4] [--out .work/ray-bench]        some eight minutes

Plain Ray Serve: one deployment that runs the same file with onnxruntime and answers the same JSON. All serve one replica.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench import Figures
from contenders import Contender
from load import Target, wrk
from measures_rate import closed_loop
from models import JSON, Model, build
from processes import free_port, wait_until
from roost_server import Roost

_SECONDS = 4
_CONNECTIONS = 16
_START_S = 180.0
_WAKES = 3
ON_RAY, PLAIN, LOCAL = "Roost on Ray Serve", "plain Ray Serve", "Roost, local engine"
THROUGH, HAPROXY = "Roost on Ray Serve, through its proxy", "plain Ray Serve, HAProxy"
_RAY = {"ROOST_ENGINE": "ray"}
_ROOSTS: dict[str, dict[str, str]] = {ON_RAY: _RAY, THROUGH: _RAY | {"ROOST_RAY_INGRESS": "proxy"}, LOCAL: {}}
_PLAINS: dict[str, dict[str, str]] = {PLAIN: {}, HAPROXY: {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}


class PlainRay(Contender):
    """See plain_ray.py."""

    def __init__(self, model: Model, work: Path, environment: dict[str, str]) -> None:
        port = free_port()
        command = [sys.executable, str(Path(__file__).with_name("plain_ray.py")), str(port), str(model.file)]
        super().__init__(command, port=port, log=work / "plain.log", environment=environment)
        body = model.bodies[JSON].content
        wait_until(lambda: answers(self.target("tiny"), body), limit_s=_START_S, what="plain Ray Serve")

    def target(self, model: str) -> Target:
        return Target(self.port, "/plain")


def answers(target: Target, body: bytes) -> bool:
    headers = {"content-type": "application/json", **dict(target.headers)}
    request = urllib.request.Request(f"http://127.0.0.1:{target.port}{target.path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Roost on Ray Serve.")
    parser.add_argument("--turns", type=int, default=4, help="of four seconds each [4]")
    parser.add_argument("--out", type=Path, default=Path(".work/ray-bench"), help="for data and logs [.work/ray-bench]")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    model = build(chosen.out / "models")["tiny"]
    found: dict[str, list[Figures]] = {name: [] for name in (*_PLAINS, *_ROOSTS)}
    wakes: dict[str, list[float]] = {}
    # One after the other: two Rays on two cores would measure each other.
    for name, figures in found.items():
        server: Contender
        if name in _PLAINS:
            server = PlainRay(model, chosen.out, _PLAINS[name])
        else:
            ports = {"ROOST_INTERNAL_PORT": str(free_port()), "ROOST_RAY_HTTP_PORT": str(free_port())}
            server = Roost(chosen.out / name.replace(" ", "-"), chosen.out, ports | _ROOSTS[name])
            deploy(server, model)
        try:
            wrk(server.target("tiny"), model.bodies[JSON], connections=_CONNECTIONS, seconds=2)
            for _ in range(chosen.turns):
                figures.append(closed_loop(server, "tiny", model.bodies[JSON], _CONNECTIONS, _SECONDS, warming_s=0))
            wakes[name] = [woken(server, model) for _ in range(_WAKES)]
        finally:
            server.stop()
            subprocess.run(["sleep", "2"], check=False)
    plain = statistics.median(one["rps"] for one in found[PLAIN])
    for name, turns in found.items():
        rate = statistics.median(one["rps"] for one in turns)
        p50, p99 = (statistics.median(one[key] for one in turns) for key in ("p50_ms", "p99_ms"))
        print(
            f"{name}: {rate:,.0f} requests/s ({rate / plain:.2f} of plain), p50 {p50:.1f} ms, p99 {p99:.1f} ms;"
            f" woken in {statistics.median(wakes[name]):.0f} ms"
        )


def deploy(server: Roost, model: Model) -> None:
    version = server.client.upload("tiny", model.file, options={"max-scale": 1, "window": 6})
    while version["state"] == "deploying":
        time.sleep(0.2)
        version = server.client.version("tiny", version["version"])
    if version["state"] != "ready":
        raise RuntimeError(f"{version}")


def woken(server: Contender, model: Model) -> float:
    """Milliseconds of a call to a model that sleeps."""
    if isinstance(server, Roost):
        client = server.client

        def awake() -> bool:
            return any(one["replicas_ready"] for one in client.status("tiny")["revisions"])

        answers(server.target("tiny"), model.bodies[JSON].content)
        wait_until(awake, limit_s=30, what="seen awake")  # what was woken a moment ago is not seen to be yet
        wait_until(lambda: not awake(), limit_s=120, what="sleep")
    else:
        time.sleep(30)  # its downscale delay, and some
    began = time.perf_counter()
    if not answers(server.target("tiny"), model.bodies[JSON].content):
        raise RuntimeError("not woken")
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
