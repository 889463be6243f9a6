"""A gateway's metering in a process of its own, to be killed while it acknowledges calls and ships them."""

import asyncio
import multiprocessing
import os
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from metering_parts import append, request_ids
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.usage import Outcome
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

REFUSAL = "refusal"
"""The id of refusals, of which one comes with each call in the same batch."""
CALLERS = 8
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "roost_platform.metering.shipper", "roost_platform.metering.journal"])


def run_and_kill(url: str, folder: Path, source: str, *, after: int) -> list[str]:
    """Run a gateway's metering until it has acknowledged so many calls, kill it; returns all that it acknowledged."""
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_meter_for_ever, args=(url, folder, source, sender))
    child.start()
    sender.close()
    text = b""
    while chunk := os.read(receiver.fileno(), 4096):
        text += chunk
        if text.count(b"\n") >= after:
            child.kill()
    child.join()
    receiver.close()
    assert child.exitcode == -9
    child.close()
    return text.decode().split("\n")[:-1]


def _meter_for_ever(url: str, folder: Path, source: str, pipe: Pipe) -> None:
    asyncio.run(_meter(url, folder, source, pipe))


async def _meter(url: str, folder: Path, source: str, pipe: Pipe) -> None:
    database = Database(url)
    with suppress(Unavailable):
        await database.read(request_ids)  # connected before the first call: a short life is for shipping
    journal = Journal(folder / "journal", source=source, segment_bytes=2000)
    shipper = Shipper(journal_folder=folder / "journal", database=database, interval_s=0.002, stretch_bytes=3000)
    settler = Settler(journal_folder=folder / "journal", database=database, clock=_now, interval_s=0.002)
    with suppress(Unavailable):
        await settler.begin(source)

    async def call(caller: int) -> None:
        number = 0
        while True:
            request_id = f"{source}-{caller}-{number}"
            intent = journal.intents.open("acme", "iris", 1, request_id)
            await asyncio.sleep(0.001)  # under way: and the shipper has its share of a short life
            append(journal, request_id, intent=intent)
            append(journal, REFUSAL, outcome=Outcome.THROTTLED, status=429, compute_us=0, rows=0)
            await journal.written()
            os.write(pipe.fileno(), f"{request_id}\n".encode())
            number += 1

    await asyncio.gather(shipper.run(), settler.run(), *(call(i) for i in range(CALLERS)))


def _now() -> datetime:
    return datetime.now(UTC)
