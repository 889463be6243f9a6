"""One gateway leads, never two; one that is killed, cut off or hung is replaced within ten seconds."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway_parts import until
from postgres_faults import PostgresProxy
from postgres_server import execute, shared_server
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.leadership import Leadership

STAND = """
import asyncio, sys
from roost_platform.database.connection import Database
from roost_platform.database.leadership import Leadership

async def main():
    leadership = Leadership(Database(sys.argv[1]))
    standing = asyncio.create_task(leadership.run())
    while True:
        print(leadership.held, flush=True)
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


@contextmanager
def candidate(url: str, folder: Path, name: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """A process that stands for election: its pid, and what it said last of whether it leads."""
    said = folder / name
    with said.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", STAND, url], stdout=output)
    try:
        yield process.pid, lambda: (said.read_text().splitlines() or [""])[-1]
    finally:
        process.kill()
        process.wait()


@contextmanager
def standing(url: str) -> Iterator[Leadership]:
    database = Database(url)
    leadership = Leadership(database)
    task = asyncio.ensure_future(leadership.run())
    try:
        yield leadership
    finally:
        task.cancel()
        database.close()


def sessions(url: str) -> list[int]:
    """Server processes of those who stand for election."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'roost leader' AND datname = current_database()"
    return [pid for (pid,) in execute(url, query)]


async def test_exactly_one_leads(on_postgres: str):
    with standing(on_postgres) as one:
        await until(lambda: one.held)
        with standing(on_postgres) as other:
            await until(lambda: len(sessions(on_postgres)) == 2)
            assert one.held
            assert not other.held


async def test_a_leader_that_is_killed_is_replaced(on_postgres: str, tmp_path: Path):
    with candidate(on_postgres, tmp_path, "one") as (pid, says):
        await until(lambda: says() == "True")
        with standing(on_postgres) as other:
            await until(lambda: len(sessions(on_postgres)) == 2)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: other.held)


async def test_a_leader_that_hangs_is_replaced_and_knows_when_it_wakes(on_postgres: str, tmp_path: Path):
    """Its machine still answers for it, but it says nothing: the server ends its session."""
    with candidate(on_postgres, tmp_path, "one") as (pid, says):
        await until(lambda: says() == "True")
        with standing(on_postgres) as other:
            await until(lambda: len(sessions(on_postgres)) == 2)
            os.kill(pid, signal.SIGSTOP)
            begin = time.monotonic()
            await until(lambda: other.held)
            assert time.monotonic() - begin > 4, "not before the first one had counted itself out"
            heard = (tmp_path / "one").stat().st_size
            os.kill(pid, signal.SIGCONT)
            await until(lambda: (tmp_path / "one").stat().st_size > heard + 30)
            said_later = (tmp_path / "one").read_text()[heard:].split()
            assert "True" not in said_later, "not for a moment"


async def test_a_leader_that_is_cut_off_stops_leading_before_another_begins(on_postgres: str):
    with PostgresProxy(shared_server().port) as proxy:
        far = on_postgres.replace(str(shared_server().port), str(proxy.port))
        with standing(far) as cut_off:
            await until(lambda: cut_off.held)
            with standing(on_postgres) as other:
                await until(lambda: len(sessions(on_postgres)) == 2)
                proxy.slow_s = 3600  # silence, in a network that still says that all is well
                while not other.held:
                    both = cut_off.held and other.held
                    assert not both
                    await asyncio.sleep(0.005)
                assert not cut_off.held


async def test_a_connection_that_is_closed_is_noticed_at_once(on_postgres: str):
    with standing(on_postgres) as leadership:
        await until(lambda: leadership.held)
        (first,) = sessions(on_postgres)
        execute(on_postgres, f"SELECT pg_terminate_backend({first})")
        await until(lambda: not leadership.held)
        await until(lambda: leadership.held)
        assert sessions(on_postgres) != [first]


async def test_the_only_gateway_of_a_sqlite_database_leads(tmp_path: Path):
    database = Database(sqlite_url(tmp_path / "roost.db"))
    leadership = Leadership(database)
    assert leadership.held
    await leadership.run()
    assert leadership.held
    database.close()
