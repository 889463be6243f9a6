"""What metering costs: requests a second with it and without, of servers that differ in nothing else, by turns."""

import shutil
import sys
from pathlib import Path

from bench import Bench, Figures, Round
from load import wrk
from measures_rate import closed_loop
from models import JSON
from roost_server import Roost

METERED, NOT_SHIPPED, UNMETERED = "metered", "metered, not shipped meanwhile", "not metered"

_TURNS = 6
"""Short turns, many of them: what else this machine does falls on all alike."""
_SECONDS = 2
_CONNECTIONS = 16
_SCRIPT = Path(__file__).with_name("unmetered_server.py")
_NEVER = {"ROOST_JOURNAL_SHIP_INTERVAL_S": "3600"}


class _Unmetered(Roost):
    def _command(self, port: int, data: Path) -> list[str]:
        return [sys.executable, str(_SCRIPT), str(port), str(data)]


def metering(bench: Bench, rotation: int) -> Round:
    """The tiny model, as fast as it goes: nothing else makes so many calls, so nowhere is the share of metering larger."""
    folder = bench.work / "metering"
    shutil.rmtree(folder, ignore_errors=True)
    body = bench.models["tiny"].bodies[JSON]
    servers: dict[str, Roost] = {}
    try:
        servers[METERED] = Roost(folder / "metered", bench.work)
        servers[NOT_SHIPPED] = Roost(folder / "unshipped", bench.work, _NEVER)
        servers[UNMETERED] = _Unmetered(folder / "unmetered", bench.work)
        for server in servers.values():
            server.deploy(bench.models["tiny"], ["tiny"], min_scale=1)
            wrk(server.target("tiny"), body, connections=_CONNECTIONS, seconds=1)
        turns: dict[str, list[Figures]] = {name: [] for name in servers}
        names = list(servers)
        for turn in range(_TURNS):
            first = (turn + rotation) % len(names)
            for name in names[first:] + names[:first]:
                turns[name].append(closed_loop(servers[name], "tiny", body, _CONNECTIONS, _SECONDS, warming_s=0))
    finally:
        for server in servers.values():
            server.stop()
    return {name: _whole(figures, turns[UNMETERED]) for name, figures in turns.items()}


def _whole(turns: list[Figures], without: list[Figures]) -> Figures:
    """Means over the turns; `of_unmetered`: the middle of the ratios of turns that followed each other."""
    figures = {key: sum(turn[key] for turn in turns) / len(turns) for key in turns[0]}
    ratios = sorted(turn["rps"] / other["rps"] for turn, other in zip(turns, without, strict=True))
    figures["of_unmetered"] = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
    return figures
