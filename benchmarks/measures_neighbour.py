"""What one tenant at ten times its limit costs another: B's latency at a steady pace, alone and beside A."""

import shutil
import sys
from collections import Counter
from pathlib import Path
from subprocess import PIPE, Popen

from bench import Bench, Figures, Round
from load import Target, paced
from models import JSON, Body
from roost_server import Roost

from roost_gateway.client import RoostClient

ALONE, BESIDE = "B alone", "B beside A at ten times its limit"

_LIMIT_RPS = 50
_OVER = 10
_PACE_RPS = 200
_GREEDY = "greedy"
_FLOOD = Path(__file__).with_name("flood.py")


class _TwoTenants(Roost):
    """Roost with a second tenant, who may call `_LIMIT_RPS` times a second."""

    def _tenant_key(self, operator_key: str, file: Path) -> str:
        with RoostClient(self.url, operator_key) as operator:
            quota = {"requests_per_second": _LIMIT_RPS}
            self.greedy_key = operator.create_tenant(_GREEDY, quota)["key"]["secret"]
        return super()._tenant_key(operator_key, file)

    def start_flood(self, body: Body, seconds: float) -> "Popen[str]":
        """A process of its own: in this one it would hold up the clock that B is timed by."""
        target = Target(self.port, f"/t/{_GREEDY}/v2/models/tiny/infer")
        rate = _LIMIT_RPS * _OVER
        arguments = [str(self.port), target.path, self.greedy_key, str(body.file), str(rate), f"{seconds:g}"]
        child = Popen([sys.executable, str(_FLOOD), *arguments], stdin=PIPE, stdout=PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()  # its start is over
        return child


def neighbour(bench: Bench, rotation: int) -> Round:
    """Alone and beside take turns, twice each. Raises WrongAnswer when B gets anything but 200."""
    tiny, data = bench.models["tiny"], bench.work / "neighbours"
    shutil.rmtree(data, ignore_errors=True)
    server = _TwoTenants(data, bench.work)
    try:
        server.deploy(tiny, ["tiny"], min_scale=1)
        with RoostClient(server.url, server.greedy_key) as greedy:
            greedy.upload("tiny", tiny.file, options={"min-scale": 1})
        return _both(server, tiny.bodies[JSON], bench.sizes.seconds, rotation)
    finally:
        server.stop()


def _both(server: _TwoTenants, body: Body, seconds: int, rotation: int) -> Round:
    target = server.target("tiny")
    paced(target, body, rate=_PACE_RPS, seconds=1)
    took: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    greedy: Counter[str] = Counter()
    for number in range(4):
        if (number + rotation) % 2:
            flood = server.start_flood(body, seconds)
            assert flood.stdin is not None
            print(file=flood.stdin, flush=True)
            took[BESIDE] += paced(target, body, rate=_PACE_RPS, seconds=seconds)
            output, _ = flood.communicate()
            if flood.returncode:
                raise RuntimeError("the flood ended early")
            greedy += Counter({line.split()[0]: int(line.split()[1]) for line in output.splitlines()})
        else:
            took[ALONE] += paced(target, body, rate=_PACE_RPS, seconds=seconds)
    figures: Round = {name: _latency(sorted(values)) for name, values in took.items()}
    other = greedy.total() - greedy["200"] - greedy["429"]
    if other:
        raise RuntimeError(f"A got other answers than 200 and 429: {dict(greedy)}")
    figures[BESIDE] |= {
        "a_answered": greedy["200"] / (2 * seconds),
        "a_refused": greedy["429"] / (2 * seconds),
    }
    return figures


def _latency(ordered: list[float]) -> Figures:
    return {f"p{share}_ms": ordered[len(ordered) * share // 100] for share in (50, 95, 99)}
