"""A task that is cancelled just as its answer comes ends: a server that stops must not wait for its loops for ever."""

import asyncio
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from databases import url_of
from roost_platform.database.connection import Database


async def test_cancelled_in_the_moment_of_the_answer_is_cancelled(tmp_path: Path, each_database: str):
    done = threading.Event()

    def work(connection: Connection) -> None:
        done.set()

    with closing(Database(url_of(tmp_path))) as database:
        reading = asyncio.create_task(database.read(work))
        await asyncio.sleep(0)  # it waits for its answer from here on
        assert done.wait(10)  # the event loop stands still meanwhile, and the answer lies ready for it
        time.sleep(0.05)  # noqa: ASYNC251
        asyncio.get_running_loop().call_soon(reading.cancel)
        with pytest.raises(asyncio.CancelledError):
            await reading
