"""How tests speak to a serving core without a door: requests, answers, and a model that waits for the test."""

import asyncio
import threading

import numpy as np
import orjson

from roost_runtimes.core import Answer, Core, Request
from roost_runtimes.model import Model, ModelError, RunControl, TensorSpec


def infer_request(data, *, name="m", tensor="x", datatype="FP32", shape=None, headers=None, **document) -> Request:
    array = np.array(data)
    one = {"name": tensor, "datatype": datatype, "shape": list(array.shape) if shape is None else shape}
    body = orjson.dumps({"inputs": [one | {"data": array.ravel().tolist()}]} | document)
    return Request("POST", f"/v2/models/{name}/infer", headers or {}, body)


def ask(core: Core, request: Request) -> Answer:
    """For what is answered within one pump."""
    answers: list[Answer] = []
    core.submit(request, answers.append)
    core.pump()
    (answer,) = answers
    return answer


def get(core: Core, path: str, **headers: str) -> Answer:
    return ask(core, Request("GET", path, headers))


def submit(core: Core, request: Request):
    """The ticket, and a future of the answer."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return core.submit(request, future.set_result), future


def document(answer: Answer):
    return orjson.loads(b"".join(answer.body))


def outputs(answer: Answer):
    assert answer.status == 200, document(answer)
    return {one["name"]: one["data"] for one in document(answer)["outputs"]}


class Gauge(Model):
    """x -> x, held up until the test opens the gate; tells how many runs overlap and counts cancellations."""

    platform = "test"

    def __init__(self) -> None:
        self.name, self.version = "m", "1"
        self.inputs = self.outputs = [TensorSpec("x", "FP32", (-1,))]
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.most = 0
        self.runs = 0
        self._now = 0
        self._lock = threading.Lock()

    def run(self, feeds, outputs=None, control=None):
        with self._lock:
            self._now += 1
            self.runs += 1
            self.most = max(self.most, self._now)
        self.started.release()
        assert control is not None
        control.wait(self.gate)
        with self._lock:
            self._now -= 1
        if control.cancelled:
            raise ModelError("cancelled", code="cancelled")
        return [feeds["x"]]

    def control(self):
        return Gate()

    def warm_up(self):
        pass


class Gate(RunControl):
    def __init__(self) -> None:
        self.cancelled = False
        self._gate: threading.Event | None = None

    def wait(self, gate: threading.Event) -> None:
        self._gate = gate
        gate.wait(30)

    def cancel(self) -> None:
        self.cancelled = True
        if self._gate is not None:
            self._gate.set()
