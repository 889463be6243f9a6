"""What one tenant at ten times its limit costs another: B's latency at a steady pace, alone and beside A.

    python benchmarks/neighbour.py

About half a minute. B must get every answer right; the two kinds of rounds take turns, so that what else the machine does
falls on both.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from subprocess import PIPE, Popen

from load import Connection, Target, paced
from models import JSON, Body, build
from roost_server import Roost

from roost_gateway.client import RoostClient

LIMIT_RPS = 50
OVER = 10
PACE_RPS = 200
ROUND_S = 4
ROUNDS = 3
GREEDY = "greedy"
_CONNECTIONS = 8


class TwoTenants(Roost):
    """Roost with a second tenant, `greedy`, who may call `LIMIT_RPS` times a second."""

    def _tenant_key(self, operator_key: str, file: Path) -> str:
        with RoostClient(self.url, operator_key) as operator:
            quota = {"requests_per_second": LIMIT_RPS}
            self.greedy_key = operator.create_tenant(GREEDY, quota)["key"]["secret"]
        return super()._tenant_key(operator_key, file)


def neighbour(server: TwoTenants, body: Body) -> dict[str, dict[str, float]]:
    """Figures of B alone and beside A. Raises WrongAnswer when B gets anything but 200."""
    took: dict[str, list[float]] = {"alone": [], "beside": []}
    refused: Counter[int] = Counter()
    for number in range(2 * ROUNDS):
        kind = ("alone", "beside")[number % 2]
        flood = _start_flood(server, body) if kind == "beside" else None
        took[kind] += paced(server.target("tiny"), body, rate=PACE_RPS, seconds=ROUND_S)
        if flood is not None:
            output, _ = flood.communicate()
            refused += Counter({int(line.split()[0]): int(line.split()[1]) for line in output.splitlines()})
    figures = {}
    for kind, values in took.items():
        values.sort()
        figures[kind] = {f"p{p}_ms": values[len(values) * p // 100] for p in (50, 95, 99)} | {"calls": len(values)}
    seconds = ROUNDS * ROUND_S
    figures["greedy"] = {"tried_rps": refused.total() / seconds, **{f"s{status}": n for status, n in refused.items()}}
    return figures


def _start_flood(server: TwoTenants, body: Body) -> "Popen[str]":
    """A process of its own: in this one it would hold up the clock that B is timed by."""
    command = [sys.executable, __file__, "flood", str(server.port), server.greedy_key, str(body.file)]
    return Popen(command, stdout=PIPE, text=True)


def flood(port: int, key: str, content: bytes) -> Counter[int]:
    """Call at ten times the limit for one round; how often each status came."""
    target = Target(port, f"/t/{GREEDY}/v2/models/tiny/infer", (("Authorization", f"Bearer {key}"),))
    request = target.request(Body(content, Path(), (("Content-Type", "application/json"),)))
    connections = [Connection(port) for _ in range(_CONNECTIONS)]
    statuses: Counter[int] = Counter()
    begin = time.perf_counter()
    for number in range(LIMIT_RPS * OVER * ROUND_S):
        wait = begin + number / (LIMIT_RPS * OVER) - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        connection = connections[number % _CONNECTIONS]
        if number >= _CONNECTIONS:
            statuses[_status(connection)] += 1
        connection.send(request)
        if time.perf_counter() - begin > ROUND_S:
            break
    return statuses


def _status(connection: Connection) -> int:
    while (answer := connection.receive()) is None:
        pass
    return answer[0]


def main() -> None:
    if sys.argv[1:2] == ["flood"]:
        statuses = flood(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_bytes())
        print("\n".join(f"{status} {number}" for status, number in statuses.items()))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tiny = build(work / "models")["tiny"]
        server = TwoTenants(work / "data", work)
        try:
            server.deploy(tiny, ["tiny"], min_scale=1)
            with RoostClient(server.url, server.greedy_key) as greedy:
                greedy.upload("tiny", tiny.file, options={"min-scale": 1})
            paced(server.target("tiny"), tiny.bodies[JSON], rate=PACE_RPS, seconds=1)
            figures = neighbour(server, tiny.bodies[JSON])
        finally:
            server.stop()
    for name, values in figures.items():
        print(f"{name:8}", " ".join(f"{key}={value:.3g}" for key, value in values.items()))
    print(f"p99 beside ÷ alone = {figures['beside']['p99_ms'] / figures['alone']['p99_ms']:.2f}")


if __name__ == "__main__":
    main()
