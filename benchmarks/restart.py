"""How long a restart takes and what sleeping costs, with many models registered and none awake.

Usage: restart.py [--models 1000] [--starts 5] [--idle 20]. Prints one JSON document: milliseconds from the start of the
process to `/readyz` and to the first right answer of a model that was asleep, median and each, and the CPU time that a
start takes; then the CPU of the whole process tree while nobody calls, in percent of one core, and its memory (PSS).
`--keep FOLDER` keeps the data for a next run.
"""

import argparse
import asyncio
import json
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from load import Connection
from processes import Tree, free_port

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what fills a data folder is shared with the test of the same restart

from campaign_registered import TENANT, name_of, register_many  # noqa: E402

_START_LIMIT_S = 60.0
_SLEEP_S = 12.0
"""After the one call: a model with the shortest window sleeps some ten seconds later."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds over which idle CPU is taken; 0 = not at all")
    parser.add_argument("--keep", type=Path, help="folder with the data of an earlier run, made when absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roost-restart-") as temporary:
        folder = options.keep or Path(temporary)
        key = _prepared(folder, options.models)
        print(json.dumps(_measure(folder, key, options), indent=1))


def _prepared(folder: Path, count: int) -> str:
    file = folder / f"key-{count}"
    if not file.exists():
        shutil.rmtree(folder / "data", ignore_errors=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(asyncio.run(register_many(folder / "data", count, window=6)))
    return file.read_text()


def _measure(folder: Path, key: str, options: argparse.Namespace) -> dict[str, Any]:
    ready, answered, cpu = [], [], []
    figures: dict[str, Any] = {}
    for start in range(options.starts):
        server, port = _start(folder)
        try:
            ready.append(_until_ready(server, port))
            cpu.append(sum(server.cpu_s().values()) * 1e3)
            _predict(port, key, number := random.randint(1, options.models))
            answered.append((time.perf_counter() - server.started) * 1e3)
            if start == 0 and options.idle:
                figures = _idle(server, options.idle)
        finally:
            server.stop()
        print(
            f"start {start + 1}: ready {ready[-1]:.0f} ms ({cpu[-1]:.0f} ms of CPU), {name_of(number)} {answered[-1]:.0f} ms",
            file=sys.stderr,
        )
    return {
        "models": options.models,
        "ready_ms": median(ready),
        "first_answer_ms": median(answered),
        "cpu_until_ready_ms": median(cpu),
        "each_ready_ms": [round(ms) for ms in ready],
        "each_first_answer_ms": [round(ms) for ms in answered],
    } | figures


def _start(folder: Path) -> tuple[Tree, int]:
    port = free_port()
    command = [sys.executable, "-m", "roost_gateway", "serve", "--port", str(port), "--data", str(folder / "data")]
    environment = {"ROOST_OPERATOR_KEY": "roost_restart_operator_key_0123456789"}
    return Tree(command, log=folder / "server.log", environment=environment), port


def _until_ready(server: Tree, port: int) -> float:
    """Milliseconds since the process was started, once `/readyz` says 200."""
    request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    while time.perf_counter() - server.started < _START_LIMIT_S:
        if not server.alive:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request)
                if connection.recv(65536).startswith(b"HTTP/1.1 200 "):
                    return (time.perf_counter() - server.started) * 1e3
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"the server is not ready; see {server.log}")


def _predict(port: int, key: str, number: int) -> None:
    """One call of the model that adds `number`, which sleeps; its whole answer must be right."""
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
    connection = Connection(port)
    try:
        head = (
            f"POST /t/{TENANT}/v2/models/{name_of(number)}/infer HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer, _ = connection.call((head + body).encode())
    finally:
        connection.close()
    found = json.loads(answer)["outputs"][0]["data"]
    if found != [x + number for x in (1, 2, 3, 4)]:
        raise RuntimeError(f"{name_of(number)} answered {found}")


def _idle(server: Tree, seconds: float) -> dict[str, Any]:
    time.sleep(_SLEEP_S)  # the model called is asleep again
    before = server.cpu_s()
    time.sleep(seconds)
    spent = {part: now - before[part] for part, now in server.cpu_s().items()}
    return {
        "idle_cpu_percent": round(sum(spent.values()) / seconds * 100, 2),
        "idle_cpu_gateway_percent": round(spent["own"] / seconds * 100, 2),
        "pss_mib": round(server.pss_mib(), 1),
        "processes": len(server.pids()),
    }


if __name__ == "__main__":
    main()
