"""How good the load tester itself is: `python benchmarks/loadtest.py` (about a minute; wrk is asked too where it is installed).

    cost    CPU time a request of Locust's HttpUser, FastHttpUser, and of OpenLoopUser, all in plain `locust -f`, one process
    lag     how late requests are sent at 500 a second
    limit   the highest rate at which one process sends 99 % within 10 ms of when they are due
    cross   what wrk and we say of one server that answers so many requests a second and no more

The server is the one of the tester's own tests, in a process of its own. On two cores that others use too, read ratios.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "loadtest")]

from loadtest_server import serving  # noqa: E402 - found by the line above
from roost_loadtest.record import Record  # noqa: E402

BODY = '{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'
LOCUSTFILE = """
import time
from locust import FastHttpUser, HttpUser, events
from roost_loadtest.arrivals import Process
from roost_loadtest.shapes import constant
from roost_loadtest.user import OpenLoopUser

BODY = {body!r}.encode()
HEADERS = {{"Content-Type": "application/json", "Authorization": "Bearer x"}}

def ask(user):
    user.client.post("/t/acme/v2/models/iris/infer", data=BODY, headers=HEADERS)

class Http(HttpUser):
    host = "{url}"
    tasks = [ask]

class Fast(FastHttpUser):
    host = "{url}"
    tasks = [ask]

class Open(OpenLoopUser):
    host = "{url}"
    shape = constant({rate}, {seconds})
    process = Process.UNIFORM
    path = "/t/acme/v2/models/iris/infer"
    headers = HEADERS

    def body(self, number):
        return BODY

@events.test_start.add_listener
def start(environment, **_):
    environment.began = time.process_time()

@events.quitting.add_listener
def end(environment, **_):
    total = environment.stats.total
    print("COST", (time.process_time() - environment.began) / total.num_requests, total.num_requests, total.num_failures)
"""


def cost(rate: int, seconds: int, users: int = 20) -> dict[str, float]:
    """Microseconds of CPU a request, by kind of user: closed ones as fast as they can, the open-loop one at `rate`."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        file = Path(folder) / "locustfile.py"
        file.write_text(LOCUSTFILE.format(url=url, rate=rate, seconds=seconds, body=BODY))
        for kind in ("Http", "Fast", "Open"):
            how = ["-u", "1"] if kind == "Open" else ["-u", str(users), "-r", str(users), "-t", f"{seconds}s"]
            command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary", *how, kind]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            told = re.search(r"COST (\S+) (\d+) (\d+)", done.stdout)
            if told is None or told[3] != "0":
                raise AssertionError((done.stdout + done.stderr)[-3000:])
            found[kind] = float(told[1]) * 1e6
    return found


def run(url: str, qps: float, seconds: float, *options: str) -> Record:
    """One run of the program, as `roost loadtest` starts it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body.json"
        file.write_text(BODY)
        command = [sys.executable, "-m", "roost_loadtest", "run", "acme/iris", "--url", url, "--quiet", "--no-billing"]
        how = [f"--qps={qps}", f"--duration={seconds}s", f"--payload={file}", f"--out={folder}", "--process=constant"]
        subprocess.run([*command, *how, *options], check=True)
        return Record.from_json((Path(folder) / "record.json").read_text())


def lag(rate: float, seconds: float) -> dict[str, float]:
    with serving() as url:
        generator = run(url, rate, seconds).generator
    quantiles = {f"p{q * 100:g} ms": generator.lag.quantile(q) * 1e3 for q in (0.5, 0.9, 0.99, 0.999)}
    return quantiles | {"largest ms": generator.lag.largest * 1e3, "cpu share": generator.cpu}


def limit(seconds: float) -> dict[str, float]:
    """Upwards from 1,000 a second by a quarter each time, until a rate is not held three times in a row."""
    rate, held, misses = 1000.0, {}, 0
    with serving() as url:
        while misses < 3:
            record = run(url, rate, seconds)
            generator = record.generator
            late = generator.lag.quantile(0.99)
            if late <= 0.010 and not sum(second.dropped for second in record.seconds):
                held = {"requests a second": rate, "lag p99 ms": late * 1e3, "cpu share": generator.cpu}
                rate, misses = rate * 1.25, 0
            else:
                misses += 1
    return held


def cross(capacity: int, seconds: int) -> dict[str, float]:
    """Answers a second that a server of known capacity is seen to give."""
    with serving("--capacity", str(capacity)) as url:
        record = run(url, 2 * capacity, seconds, "--connections=64")
    inner = record.seconds[1:]
    found = {"known": float(capacity), "ours": sum(second.finished for second in inner) / len(inner)}
    if shutil.which("wrk"):
        with serving("--capacity", str(capacity)) as url, tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(BODY)
            file.flush()
            script = str(Path(__file__).with_name("post.lua"))
            command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", script, f"{url}/x"]
            environment = os.environ | {"BENCH_BODY": file.name}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        told = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        found["wrk"] = float(told[1]) if told else float("nan")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    seconds = 3 if chosen.quick else 8
    costs = cost(6000, seconds)
    figures = {
        "CPU us a request": costs,
        "requests a second and core": {kind: 1e6 / us for kind, us in costs.items()},
        "ratio of OpenLoopUser": {kind: us / costs["Open"] for kind, us in costs.items()},
        "send lag at 500/s": lag(500, seconds),
        "own limit": limit(seconds / 2),
        "answers a second of a server of known capacity": cross(400, seconds),
    }
    for name, row in figures.items():
        print(f"{name:50s} " + "  ".join(f"{key} {value:,.2f}" for key, value in row.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
