"""A real server for tests: `roost serve` as a child process, on a port of its own and a folder that outlives it."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from databases import url_of
from free_ports import free_port
from postgres_server import execute
from roost_gateway.client import ApiError, RoostClient, ServerNotThere
from roost_platform.domain.tenants import make_secret

START_LIMIT_S = 30
_LOG_LINES = 60


@dataclass(frozen=True)
class Process:
    """One that lived when it was looked at; `started` tells it from a later one with the same pid."""

    pid: int
    name: str
    started: int

    def lives(self) -> bool:
        found = _read(self.pid)
        return found is not None and found[0].started == self.started


def descendants(pid: int) -> list[Process]:
    """Children, their children and so on; what ended and waits to be reaped is left out."""
    everything = [
        found for entry in Path("/proc").iterdir() if entry.name.isdigit() and (found := _read(int(entry.name)))
    ]
    found, parents = [], {pid}
    while parents:
        generation = [process for process, parent in everything if parent in parents]
        found += generation
        parents = {process.pid for process in generation}
    return found


def _read(pid: int) -> tuple[Process, int] | None:
    """A process that is no zombie, and its parent's pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return None if fields[0] == "Z" else (Process(pid, name, int(fields[19])), int(fields[1]))


def until(condition: Callable[[], Any], *, within: float = 10.0, what: str = "it") -> float:
    """Wait until it holds; returns how many seconds that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < within, f"{what} did not come true within {within} s"
        time.sleep(0.005)
    return time.monotonic() - begin


class RoostProcess:
    """`roost serve` on `folder`. `environment` holds further settings, ROOST_… by name."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.data = folder / "data"
        self.log_file = folder / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.operator_key = make_secret()
        self.secrets = {self.operator_key}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOST_")}
        own = {"ROOST_OPERATOR_KEY": self.operator_key, "ROOST_DATA": str(self.data)}
        self.database_url = environment.get("ROOST_DATABASE_URL") or url_of(self.data)
        if not self.database_url.startswith("sqlite"):
            own["ROOST_DATABASE_URL"] = self.database_url
        self.environment = inherited | own | environment
        self.process: subprocess.Popen[bytes] | None = None

    # Its life

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for it; its output goes on in the log."""
        command = [sys.executable, "-m", "roost_gateway", "serve", "--port", str(self.port), *arguments]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        return self.process

    def start(self) -> Self:
        self.spawn()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_LIMIT_S
        while not self.answers_ready():
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}\n{self.log_tail()}"
            assert time.monotonic() < end, f"the server is not ready\n{self.log_tail()}"
            time.sleep(0.01)

    def answers_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: roost\r\nconnection: close\r\n\r\n")
                return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, within: float = 45) -> int:
        """SIGTERM, then wait: the exit status. Nothing of it may be left."""
        assert self.process is not None
        children = descendants(self.process.pid)
        self.signal(signal.SIGTERM)
        status = self.process.wait(within)
        assert not (left := alive(children)), f"left behind: {left}\n{self.log_tail()}"
        return status

    def kill(self) -> list[Process]:
        """SIGKILL; returns what its descendants were."""
        assert self.process is not None
        children = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        return children

    def end(self) -> None:
        """Whatever state it is in, it is gone after this."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()
        log = self.log_file.read_text(errors="replace")
        assert not any(secret in log for secret in self.secrets), "a key is in the log"

    def log_tail(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's entries of this name."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event.action") == name]

    # What runs

    def children(self) -> list[Process]:
        assert self.process is not None
        return descendants(self.process.pid)

    def replicas(self, model: str | None = None) -> list[Process]:
        """The processes that serve a model; spares and the zygote are none."""
        helpers = ("roost:zygote", "roost:spare")
        wanted = f"roost:{model}"[:15] if model else "roost:"
        return [p for p in self.children() if p.name.startswith(wanted) and p.name not in helpers]

    # Talking to it

    def client(self, key: str | None = None, tenant: str | None = None) -> RoostClient:
        return RoostClient(self.url, key or self.operator_key, tenant=tenant)

    def make_tenant(self, name: str = "acme", **quota: float) -> str:
        """The secret of the new tenant's admin key."""
        with self.client() as operator:
            secret: str = operator.create_tenant(name, quota)["key"]["secret"]
        self.secrets.add(secret)
        return secret

    def deploy(self, key: str, model: str, file: Path, **options: Any) -> dict[str, Any]:
        """Upload and wait until the version is ready; options as `min_scale=1`."""
        with self.client(key) as client:
            spelled = {name.replace("_", "-"): value for name, value in options.items()}
            version = client.upload(model, file, options=spelled)
            until(
                lambda: client.version(model, version["version"])["state"] != "deploying",
                what=f"{model} deployed",
            )
            found = client.version(model, version["version"])
            assert found["state"] == "ready", (found, self.log_tail())
            return found

    def figures(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """The metrics page: values by series name and labels."""
        from prometheus_client.parser import text_string_to_metric_families
        from urllib3 import request

        page = request("GET", f"{self.url}/metrics").data.decode()
        families = text_string_to_metric_families(page)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    # The database, read beside the server

    def query(self, query: str) -> list[tuple[Any, ...]]:
        if not self.database_url.startswith("sqlite"):
            return execute(self.database_url, query)
        with closing(sqlite3.connect(f"file:{self.data / 'roost.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def dump(self) -> str:
        """Every row of every table, as text."""
        if not self.database_url.startswith("sqlite"):
            tables = self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return "\n".join(row for (name,) in tables for (row,) in self.query(f"SELECT t::text FROM {name} t"))
        with closing(sqlite3.connect(f"file:{self.data / 'roost.db'}?mode=ro", uri=True)) as database:
            return "\n".join(database.iterdump())

    def ledger(self, columns: str = "request_id, outcome, status") -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {columns} FROM usage_events ORDER BY source, sequence")

    def shipped_ledger(self, key: str, columns: str = "request_id, outcome, status") -> list[tuple[Any, ...]]:
        """The ledger once everything answered so far is in it: the usage route waits for that."""
        with self.client(key) as client:
            client.usage()
        return self.ledger(columns)


def alive(processes: Iterable[Process]) -> list[Process]:
    return [process for process in processes if process.lives()]


def wait_until_gone(processes: Iterable[Process], within: float) -> float:
    """How many seconds it took until none of them lived."""
    watched = list(processes)
    return until(lambda: not alive(watched), within=within, what="the end of all its processes")


def refusal_of(call: Callable[[], Any]) -> ApiError:
    """The error that the server answers this call with."""
    try:
        answer = call()
    except ApiError as error:
        return error
    raise AssertionError(f"answered with {answer}")


__all__ = [
    "RoostProcess",
    "ServerNotThere",
    "alive",
    "descendants",
    "free_port",
    "refusal_of",
    "until",
    "wait_until_gone",
]
