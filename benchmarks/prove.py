"""The proof that models scale, on the local engine of this machine: from zero, under load, with versions changing meanwhile.

Runs by `make prove`, some six minutes. A model of some 5 ms gets steps of 50, 200, 400 and 50 requests/s, one of some 25 ms a
spike, both scaled down to what the cores of this machine carry beside the gateway and the load tester. Meanwhile another
version of the model is deployed, and rolled back. Each run is judged by `roost loadtest`, whose reports are left in `--out`.
Exit status 0: both passed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import onnx
from models import chain
from roost_server import TENANT, Roost

from roost_gateway.cli.samples import sample_body
from roost_gateway.client import ApiError, RoostClient

SHARE = 0.3
"""Of all cores, for the models at the highest rate: the gateway, the load tester and the kernel have the rest."""
WITHIN = 1
"""Replicas by which the engine may differ from what Knative's autoscaler would have wanted,"""
AGREEING = 0.95
"""in so many seconds."""
_WARM_CALLS = 30


@dataclass(frozen=True)
class Story:
    """One run: a model, its policy, and a load whose rates are for a machine that carries them all."""

    name: str
    products: int
    """Of matrices, some 0.33 ms each."""
    shape: str
    """With {} for each rate."""
    rates: tuple[float, ...]
    p99: str
    lasts_s: int
    scaling: dict[str, float | int | str]


STORIES = (
    Story(
        "steps",
        15,
        "steps:{}x30s,{}x40s,{}x40s,{}x30s",
        (50, 200, 400, 50),
        "300ms",
        140,
        {"container-concurrency": 1, "window": 20, "panic-window-percentage": 30, "max-scale": 8},
    ),
    Story(
        "spike",
        76,
        "spike:{}-{},30s,20s,50s",
        (10, 60),
        "600ms",
        100,
        {"container-concurrency": 1, "window": 20, "panic-window-percentage": 30, "max-scale": 8},
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Prove on this machine that models scale.")
    parser.add_argument("--out", type=Path, default=Path(".work/prove"), help="for records and reports [.work/prove]")
    parser.add_argument("--only", choices=[story.name for story in STORIES], help="one of the runs")
    chosen = parser.parse_args()
    work: Path = chosen.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    server = Roost(work / f"data-{time.time_ns()}", work)
    passed = True
    try:
        for story in STORIES:
            if chosen.only in {None, story.name}:
                passed = prove(server, story, chosen.out / story.name) and passed
    finally:
        server.stop()
    print(f"\n{'PASSED' if passed else 'FAILED'}; reports: {chosen.out}/*/report.html")
    return 0 if passed else 1


def prove(server: Roost, story: Story, out: Path) -> bool:
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"version-{number}.onnx" for number in (1, 2)]
    for seed, file in enumerate(files):
        onnx.save(chain(story.products, seed=seed), file)
    deploy(server.client, story.name, files[0], story.scaling | {"min-scale": 0})
    with RoostClient(server.url, server.key, tenant=TENANT) as client:  # it need not ask for the tenant each time
        alone_s = time_alone(client, story.name)
    scale = min(1.0, SHARE * len(os.sched_getaffinity(0)) / (max(story.rates) * alone_s))
    shape = story.shape.format(*(f"{rate * scale:.1f}" for rate in story.rates))
    print(f"\n{story.name}: {1000 * alone_s:.1f} ms a call, rates x {scale:.2f}: {shape}", flush=True)
    server.wait_until_asleep([story.name])
    command = [
        *(sys.executable, "-m", "roost_gateway", "loadtest", story.name, "--shape", shape, "--p99", story.p99),
        *("--back-to-zero", "--out", str(out), "--seed", "6"),
    ]
    environment = os.environ | {"ROOST_URL": server.url, "ROOST_API_KEY": server.key}
    meanwhile = threading.Thread(target=change_versions, args=(server, story, files[1]), daemon=True)
    with subprocess.Popen(command, env=environment) as run:
        meanwhile.start()
        status = run.wait()
    meanwhile.join()
    share = agreement(json.loads((out / "record.json").read_text()), story.name)
    print(f"{story.name}: replicas within {WITHIN} of Knative's own in {100 * share:.1f} % of seconds")
    return status == 0 and share >= AGREEING


def deploy(client: RoostClient, name: str, file: Path, options: dict[str, float | int | str]) -> None:
    """Returns when the version serves."""
    version = client.upload(name, file, options=options)
    while version["state"] == "deploying":
        time.sleep(0.1)
        version = client.version(name, version["version"])
    if version["state"] == "failed":
        raise RuntimeError(version["reason"])


def time_alone(client: RoostClient, name: str) -> float:
    """Median seconds of one call at a time."""
    signature = client.version(name, 1)["signature"]
    body = json.dumps(sample_body(signature)).encode()
    took = []
    for _ in range(_WARM_CALLS):
        begin = time.perf_counter()
        client.predict(name, body)
        took.append(time.perf_counter() - begin)
    return statistics.median(took[_WARM_CALLS // 3 :])


def change_versions(server: Roost, story: Story, second: Path) -> None:
    """Another version at half the time, and back to the first at four fifths of it."""
    begin = time.monotonic()
    with RoostClient(server.url, server.key) as client:
        time.sleep(0.5 * story.lasts_s)
        try:
            deploy(client, story.name, second, {})
            time.sleep(max(0.0, begin + 0.8 * story.lasts_s - time.monotonic()))
            client.rollback(story.name, 1)
        except ApiError as error:
            print(f"{story.name}: the versions were not changed: {error}", flush=True)


def agreement(record: dict, model: str) -> float:
    """Share of seconds in which the ready replicas of what has traffic were as many as Knative's, or nearly."""
    ((target, curve),) = [
        (target, dict(curve))
        for target, curve in record["platform"]["prediction"].items()
        if target.endswith(f"/{model}")
    ]
    ready = {
        each["second"]: each["replicas"][target]["ready"]
        for each in [*record["seconds"], *record["after"]]
        if each["replicas"].get(target, {}).get("ready") is not None
    }
    near = [abs(ready[second] - curve[second]) <= WITHIN for second in ready if second in curve]
    return sum(near) / len(near) if near else 0.0


if __name__ == "__main__":
    sys.exit(main())
