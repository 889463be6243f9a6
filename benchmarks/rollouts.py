"""Splits, rollouts and rollbacks under open-loop load: no call fails, and each version gets what its share says.

    python benchmarks/rollouts.py [--qps 500] [--out .work/rollouts]         some two minutes

The load comes from `roost loadtest` on the same machine. Shares are read from the gateway's own counters; each window's counts
are compared with the split by Pearson's chi-square. The rollout goes to an equal version; the last one goes to a version
that takes many times as long, and one that answers otherwise; both have to be rolled back. Exit status 0: all of it held.
`rollouts.svg` in the folder shows who answered when.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import onnx
from models import chain
from pictures import Moment, shares_picture
from roost_server import Roost

MODEL = "shared"
_SERIES = re.compile(r'roost_version_requests_total\{[^}]*version="(\d+)"[^}]*\} (\S+)')
_WINDOW_S = 8
SLOW = "p50<8ms,errors<5%"
"""What the serving versions keep easily, and the slow one does not."""
WRONG = "disagreement<5%,errors<5%"
_CRITICAL = {1: 10.83, 2: 13.82}
"""Chi-square at 0.1 %, by degrees of freedom."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Change versions under load.")
    parser.add_argument("--qps", type=float, default=500.0, help="requests a second [500]")
    parser.add_argument(
        "--out", type=Path, default=Path(".work/rollouts"), help="for the load test's report [.work/rollouts]"
    )
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    server = Roost(chosen.out / f"data-{time.time_ns()}", chosen.out, {"ROOST_ROLLOUT_INTERVAL_S": "0.5"})
    try:
        for number, products in enumerate((1, 1, 1, 40), start=1):
            file = chosen.out / f"version-{number}.onnx"
            onnx.save(chain(products, seed=number), file)
            deploy(server, file)
        held = under_load(server, chosen.qps, chosen.out)
    finally:
        server.stop()
    print("PASSED" if held else "FAILED")
    return 0 if held else 1


def under_load(server: Roost, qps: float, out: Path) -> bool:
    command = [
        *(sys.executable, "-m", "roost_gateway", "loadtest", MODEL, "--qps", str(qps), "--duration", "120s"),
        *("--seed", "8", "--out", str(out)),
    ]
    environment = os.environ | {"ROOST_URL": server.url, "ROOST_API_KEY": server.key}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as load:
        time.sleep(4)
        watch = Watch(server)
        held = [watch.told(what, run) for what, run in _acts(server)]
        watch.draw(out / "rollouts.svg")
        load.wait()
    record = json.loads((out / "record.json").read_text())
    answered = sum(second["answered"] for second in record["seconds"])
    failed = sum(sum(second["errors"].values()) + second["dropped"] for second in record["seconds"])
    print(f"{answered:,} calls answered, {failed} failed or not sent")
    return all(held) and failed == 0


def _acts(server: Roost) -> list[tuple[str, Callable[[], bool]]]:
    """What is done one after the other, and whether it went as it should."""
    return [
        ("90 / 10", lambda: shares(server, {1: 90, 2: 10})),
        ("50 / 30 / 20", lambda: shares(server, {1: 50, 2: 30, 3: 20})),
        ("rollback", lambda: rolled_back(server, 1)),
        ("rollout, equal", lambda: rollout(server, 2, "p99<500ms,errors<5%", wanted="promoted")),
        ("rollback", lambda: rolled_back(server, 1)),
        ("rollout, slow", lambda: rollout(server, 4, SLOW, wanted="rolled_back")),
        ("rollout, wrong", lambda: rollout(server, 3, WRONG, wanted="rolled_back")),
    ]


class Watch:
    """Who answers when, four looks a second, and what is done meanwhile."""

    def __init__(self, server: Roost) -> None:
        self._server = server
        self._began = time.perf_counter()
        self._looks: list[tuple[float, dict[int, float]]] = []
        self._moments: list[Moment] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def told(self, what: str, act: Callable[[], bool]) -> bool:
        self._moments.append((time.perf_counter() - self._began, what))
        return act()

    def draw(self, file: Path) -> None:
        self._over.set()
        self._thread.join()
        seconds = [second for second, _ in self._looks]
        sums = [counted for _, counted in self._looks]
        counts = [
            {version: after[version] - before.get(version, 0.0) for version in after}
            for before, after in pairwise(sums)
        ]
        shares_picture(file, seconds, counts, self._moments)

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self._looks.append((time.perf_counter() - self._began, by_version(self._server)))


def deploy(server: Roost, file: Path) -> None:
    """The first version takes the traffic; the others wait."""
    version = server.client.upload(MODEL, file, options={"min-scale": 1, "traffic": "false"})
    while version["state"] == "deploying":
        time.sleep(0.1)
        version = server.client.version(MODEL, version["version"])


def by_version(server: Roost) -> dict[int, float]:
    """Calls by version, all outcomes together."""
    with urllib.request.urlopen(f"{server.url}/metrics") as page:
        found = _SERIES.findall(page.read().decode())
    sums: dict[int, float] = {}
    for version, value in found:
        sums[int(version)] = sums.get(int(version), 0.0) + float(value)
    return sums


def shares(server: Roost, percents: dict[int, int]) -> bool:
    server.client.set_traffic(MODEL, {"split": {str(version): percent for version, percent in percents.items()}})
    time.sleep(0.5)  # calls that were under way
    before = by_version(server)
    time.sleep(_WINDOW_S)
    after = by_version(server)
    seen = {version: after[version] - before.get(version, 0.0) for version in percents}
    total = sum(seen.values())
    square = sum((seen[v] - total * p / 100) ** 2 / (total * p / 100) for v, p in percents.items())
    told = ", ".join(f"version {v}: {100 * seen[v] / total:.2f} % of {p} %" for v, p in percents.items())
    print(f"{told}; {total:,.0f} calls, chi-square {square:.3f}", flush=True)
    return square < _CRITICAL[len(percents) - 1]


def rolled_back(server: Roost, version: int) -> bool:
    began = time.perf_counter()
    server.client.rollback(MODEL, version)
    took = time.perf_counter() - began
    time.sleep(0.5)
    before = by_version(server)
    time.sleep(1)
    after = by_version(server)
    others = sum(after[v] - before.get(v, 0.0) for v in after if v != version)
    print(
        f"rolled back to version {version} in {1000 * took:.0f} ms; {others:.0f} calls went elsewhere after that",
        flush=True,
    )
    return took < 1 and others == 0


def rollout(server: Roost, to: int, guard: str, *, wanted: str) -> bool:
    began = time.perf_counter()
    server.client.begin_rollout(MODEL, {"to": to, "steps": [5, 25, 50], "every_s": 0, "guard": guard})
    while (now := server.client.rollouts(MODEL)["rollouts"][0])["state"] == "running":
        time.sleep(0.25)
        if time.perf_counter() - began > 60:
            break
    took = time.perf_counter() - began
    print(f"rollout to version {to} ({guard}): {now['state']} at {now['percent']} % after {took:.1f} s", flush=True)
    return now["state"] == wanted


if __name__ == "__main__":
    sys.exit(main())
