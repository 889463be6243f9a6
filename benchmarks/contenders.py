"""The servers that are measured beside each other: started, asked, stopped."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from load import Connection, Target, WrongAnswer
from models import BINARY, JSON, Model
from processes import Tree, free_port, wait_until

_HERE = Path(__file__).resolve().parent
_START_S = 90.0


class Contender:
    """A running server."""

    def __init__(self, command: list[str], *, port: int, log: Path, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self.tree = Tree(command, log=log, environment=environment)

    def target(self, model: str) -> Target:
        return Target(self.port, f"/v2/models/{model}/infer")

    def wait_for_answer(self, model: Model, kinds: Iterable[str] = (JSON, BINARY)) -> float:
        """Milliseconds from the start of the process to its first right answer, to each kind of body."""

        def answers() -> bool:
            if not self.tree.alive:
                raise RuntimeError(f"the server ended; see {self.tree.log}")
            try:
                verify(self, model, model.name, kinds)
            except (OSError, WrongAnswer):
                return False
            return True

        wait_until(answers, limit_s=_START_S, what=f"an answer of {type(self).__name__}")
        return (time.perf_counter() - self.tree.started) * 1e3

    def stop(self) -> None:
        self.tree.stop()


class Plain(Contender):
    """FastAPI + uvicorn + onnxruntime; see plain_server.py."""

    def __init__(self, models_folder: Path, work: Path) -> None:
        port = free_port()
        command = [sys.executable, str(_HERE / "plain_server.py"), str(port), str(models_folder)]
        super().__init__(command, port=port, log=work / "plain.log")


class Runtime(Contender):
    """Roost's runtime alone over HTTP: what stands behind the gateway in a cluster."""

    def __init__(self, model: Model, work: Path) -> None:
        port = free_port()
        command = [sys.executable, "-m", "roost_runtimes", "serve", "--host", "127.0.0.1", "--port", str(port)]
        super().__init__(
            [*command, "--model", str(model.file), "--name", model.name], port=port, log=work / "runtime.log"
        )


class InProcess:
    """Runs in_process.py; not a server."""

    def __init__(self, models_folder: Path, work: Path) -> None:
        self._folder = models_folder
        self._work = work

    def command(self, job: str, model: str, amount: float) -> list[str]:
        return [sys.executable, str(_HERE / "in_process.py"), str(self._folder), job, model, f"{amount:g}"]

    def holding(self, model: str, count: int) -> Tree:
        """A process that holds `count` sessions, ready."""
        log = self._work / f"hold-{time.monotonic_ns()}.log"
        tree = Tree(self.command("hold", model, count), log=log)
        wait_until(lambda: "ready" in log.read_text(), limit_s=_START_S, what="sessions in a process")
        log.unlink()
        return tree


def verify(contender: Contender, model: Model, name: str, kinds: Iterable[str] = (JSON, BINARY)) -> None:
    """Raises WrongAnswer unless each kind of body gets the answer of onnxruntime from the model called `name`."""
    connection = Connection(contender.port)
    try:
        for kind in kinds:
            answer, _ = connection.call(contender.target(name).request(model.bodies[kind]))
            check(model, answer, f"{type(contender).__name__}, {name}, {kind}")
    finally:
        connection.close()


def check(model: Model, answer: bytes, where: str) -> None:
    if not model.is_right(answer):
        raise WrongAnswer(f"{where}: a wrong answer: {answer[:300].decode(errors='replace')}")
