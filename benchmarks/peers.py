"""Other model servers beside Roost: the same model and body, the same wrk. Neither part of CI nor of `make bench`.

Usage: peers.py [--only mlserver,litserve] [--rotations 3] [--seconds 4] [--out FILE]. Each gets a virtual environment under
.work/peers (ray and kserve are large); the tables go to the standard output, and to FILE as Markdown; every figure goes to
.work/peers/figures.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import venv
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import PLAIN, ROOST, Figures, Round, take_turns
from contenders import Contender, Plain
from load import WrongAnswer, require_wrk
from measures_rate import closed_loop
from models import JSON, Model, build
from processes import free_port
from report import grid, heading, machine, render
from roost_server import Roost
from summary import ratios
from tables import Column, Table

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".work" / "peers"
ONNXRUNTIME = "onnxruntime>=1.31,<2"
PACKAGES = {
    "mlserver": ["mlserver==1.7.1"],
    "litserve": ["litserve==0.2.19"],
    "kserve": ["kserve==0.21.0"],
    "bentoml": ["bentoml>=1.4.30,<1.5"],
    "ray": ["ray[serve]==2.60.0", "orjson"],
}
TABLE = Table(
    "peers",
    "Tiny model, JSON, 16 connections",
    (
        Column("rps", "requests/s"),
        Column("cpu_us", "server CPU µs/request"),
        Column("p50_ms", "p50 ms", 2),
        Column("p99_ms", "p99 ms", 2),
        Column("pss_mib", "memory MiB", spread=False),
    ),
    bases=(),
    over=(ROOST, PLAIN),
)
AHEAD = 3
"""How many times the requests per second of each peer Roost is meant to answer."""


class Peer(Contender):
    """One server under its own Python."""

    def __init__(self, name: str, model: Model, work: Path) -> None:
        port = free_port()
        command = [str(_python(name)), str(HERE / "peer_servers" / f"serve_{name}.py")]
        environment = {
            "PEER_PORT": str(port),
            "PEER_MODEL": str(model.file),
            "PYTHONPATH": str(HERE / "peer_servers"),
            "BENTOML_DO_NOT_TRACK": "1",
            "LIT_DISABLE_VERSION_CHECK": "1",
        }
        super().__init__(command, port=port, log=work / f"{name}.log", environment=environment)


def main() -> None:
    options = _options()
    require_wrk()
    names = [name for name in (options.only.split(",") if options.only else PACKAGES) if _install(name)]
    shutil.rmtree(WORK / "data", ignore_errors=True)
    for log in WORK.glob("*.log"):
        log.unlink()
    model = build(WORK / "models")["tiny"]
    document = {
        "machine": machine(),
        "command": " ".join(["benchmarks/peers.py", *sys.argv[1:]]),
        "rotations": options.rotations,
    }
    begun = time.monotonic()
    with ExitStack() as stack:
        roost = Roost(WORK / "data", WORK)
        roost.deploy(model, ["tiny"])
        contenders: dict[str, Contender] = {ROOST: roost, PLAIN: Plain(WORK / "models", WORK)}
        contenders |= {name: Peer(name, model, WORK) for name in names}
        for contender in contenders.values():
            stack.callback(contender.stop)
        for name, contender in list(contenders.items()):
            try:
                contender.wait_for_answer(model, [JSON])
            except (RuntimeError, TimeoutError, WrongAnswer) as error:
                print(f"{name} is left out: {error}")
                del contenders[name]
        rounds: list[Round] = []
        for rotation in range(options.rotations):
            jobs = {
                name: lambda c=contender: _measure(c, model, options.seconds) for name, contender in contenders.items()
            }
            rounds.append(take_turns(jobs, rotation))
    document |= {"minutes": (time.monotonic() - begun) / 60, "rounds": rounds}
    (WORK / "figures.json").write_text(json.dumps(document, indent=1))
    lines = [*heading(document), "", *_aims(names, rounds), "", *render(TABLE, rounds)]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def _aims(names: list[str], rounds: list[Round]) -> list[str]:
    rows = []
    for name in names:
        if found := ratios(rounds, ROOST, name, "rps"):
            met = "met" if median(found) >= AHEAD else "**missed**"
            rows.append([f"Roost's requests/s ÷ those of {name}", f"≥ {AHEAD}", f"{median(found):.2f}", met])
    return grid(["what", "aim", "reached", ""], rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"which of {', '.join(PACKAGES)}, with commas between")
    parser.add_argument("--rotations", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--out", type=Path, help="file for the tables")
    return parser.parse_args()


def _measure(contender: Contender, model: Model, seconds: int) -> Figures:
    figures = closed_loop(contender, model.name, model.bodies[JSON], 16, seconds)
    return figures | {"pss_mib": contender.tree.pss_mib()}


def _python(name: str) -> Path:
    return WORK / name / "bin" / "python"


def _install(name: str) -> bool:
    """A virtual environment with the peer in it, kept for the next time; False when pip cannot make it."""
    done = WORK / name / "installed"
    if done.exists():
        return True
    print(f"installing {name}", flush=True)
    venv.create(WORK / name, with_pip=True, clear=True)
    command = [str(_python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run([*command, ONNXRUNTIME, *PACKAGES[name]], check=False).returncode == 0
    if installed:
        done.touch()
    else:
        print(f"{name} is left out: it cannot be installed here")
    return installed


if __name__ == "__main__":
    main()
