"""A model for the engine contract: its artifact is a JSON file that says how it behaves, its input how long it takes.

    load_s       seconds that loading takes                exit_at_load   exit status at load, after a line of output
    refuse       message of a refusal at load              answer         what `answer` returns
    says         a line printed at load
    stubborn     true: runs cannot be cancelled            spins          true: runs compute, on the event loop
Input `seconds` FP32[1]: how long a run takes; -1 kills the process. Outputs: `answer`, and `overlap`, the most runs that
were under way at once in this process.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from roost_runtimes.model import Array, Model, ModelError, RunControl, TensorSpec


class SleeperControl(RunControl):
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class SleeperModel(Model):
    platform = "sleeper"
    inputs = (TensorSpec("seconds", "FP32", (1,)),)
    outputs = (TensorSpec("answer", "INT32", (1,)), TensorSpec("overlap", "INT32", (1,)))

    def __init__(self, path: str, *, name: str, version: str, baked: bool = False) -> None:
        self.name = name
        self.version = version
        behaviour = json.loads(Path(path).read_text())
        self._answer = behaviour.get("answer", 0)
        self._stubborn = behaviour.get("stubborn", False)
        self._spins = behaviour.get("spins", False)
        self._running = 0
        self._most = 0
        self._lock = threading.Lock()
        if "says" in behaviour:
            print(behaviour["says"], flush=True)
        time.sleep(behaviour.get("load_s", 0))
        if "refuse" in behaviour:
            raise ModelError(behaviour["refuse"])
        if "exit_at_load" in behaviour:
            print("about to exit", flush=True)
            os._exit(behaviour["exit_at_load"])

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, control: RunControl | None = None
    ) -> list[Array]:
        seconds = float(feeds["seconds"][0])
        with self._lock:
            self._running += 1
            self._most = max(self._most, self._running)
        try:
            if seconds < 0:
                os.kill(os.getpid(), signal.SIGKILL) if seconds == -1 else os._exit(int(-seconds))
            self._sleep(seconds, control)
        finally:
            with self._lock:
                self._running -= 1
        results = {"answer": np.array([self._answer], np.int32), "overlap": np.array([self._most], np.int32)}
        return [results[n] for n in outputs or ("answer", "overlap")]

    def _sleep(self, seconds: float, control: RunControl | None) -> None:
        if self._spins:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        elif isinstance(control, SleeperControl) and not self._stubborn:
            if control.cancelled.wait(seconds):
                raise ModelError("the run was cancelled", code="cancelled")
        else:
            time.sleep(seconds)

    def control(self) -> SleeperControl:
        return SleeperControl()

    def warm_up(self) -> None:
        if not self._spins:
            time.sleep(0.002)  # slower than what runs inline: runs go to threads and may overlap
