"""An outbox and its shipper in a process of its own, to be killed at a chosen step of what it does to disk and database."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from sqlalchemy import event

from metering_faulty import FaultyFiles
from resource_parts import stretch
from roost_platform.database.connection import Database
from roost_platform.metering.outbox import Outbox
from roost_platform.metering.outbox_shipper import OutboxShipper

STRETCHES = 6
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "roost_platform.metering.outbox_shipper", "resource_parts"])


class Steps:
    """Counts them, and kills this process before the chosen one."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._lock = threading.Lock()

    def step(self, *_: Any) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run_and_kill(url: str, folder: Path, source: str, *, kill_at: int) -> tuple[bool, set[str]]:
    """Whether it came to its end unharmed, and the ids that were certainly written before."""
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_live, args=(url, folder, source, kill_at, sender))
    child.start()
    sender.close()
    text = b""
    while chunk := os.read(receiver.fileno(), 4096):
        text += chunk
    child.join()
    receiver.close()
    assert child.exitcode in (0, -9)
    return child.exitcode == 0, set(text.decode().split("\n")[:-1])


def _live(url: str, folder: Path, source: str, kill_at: int, pipe: Pipe) -> None:
    steps = Steps(kill_at)
    database = Database(url)
    for what in ("before_cursor_execute", "begin", "commit"):
        event.listen(database.engine, what, steps.step)
    outbox = Outbox(folder, source=source, segment_bytes=600, files=FaultyFiles(steps.step))
    shipper = OutboxShipper(folder=folder, database=database, stretch_bytes=500)

    def tell(first: int, until: int) -> None:
        for number in range(first, until):
            outbox.tell(stretch(number, source=source))
        while outbox.written < until:
            time.sleep(0.001)
        for number in range(first, until):
            os.write(pipe.fileno(), f"{source}:one/{number}\n".encode())

    tell(0, STRETCHES // 2)
    asyncio.run(shipper.drain())
    tell(STRETCHES // 2, STRETCHES)
    outbox.close()
    asyncio.run(OutboxShipper(folder=folder, database=database).drain())
    database.close()
