"""A gateway's journal and its ledger on one machine whose power fails: `metering_power.py FOLDER SEED CUTS`, for a test.

Both forget what they did not sync. A journal's segment is removed once the ledger has it: were the ledger's commit not on
the disk by then, calls would be lost for good. Prints what it found as JSON.
"""

import asyncio
import json
import random
import shutil
import sys
import threading
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from metering_faulty import Disk
from metering_parts import append, now, request_ids
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper
from sqlite_power import SqliteDisk, library

TURNS, CALLS = 6, 3


async def main(folder: Path, seed: int, cuts: int) -> dict[str, int]:
    lock = threading.RLock()
    sqlite = library()
    assert sqlite is not None
    disk = SqliteDisk(lock)
    disk.install(sqlite)
    found = Counter[str]()
    template = folder / "template.db"
    made = Database(f"sqlite:///{template}")
    migrate(made.engine)
    made.close()
    for cut in range(cuts):
        (folder / str(cut) / "left").mkdir(parents=True)
        found.update(await one_cut(folder / str(cut), template, disk, lock, random.Random(seed + cut)))
        shutil.rmtree(folder / str(cut))
    return {**found, "syncs": disk.syncs}


async def one_cut(
    folder: Path, template: Path, disk: SqliteDisk, lock: AbstractContextManager[Any], chance: random.Random
) -> dict[str, int]:
    path = folder / "roost.db"
    await asyncio.to_thread(shutil.copyfile, template, path)
    files = Disk(folder / "journal", chance, lock)
    journal = Journal(folder / "journal", source="run", segment_bytes=900, sync_interval_s=0, files=files)
    database = Database(f"sqlite:///{path}")
    shipper = Shipper(journal_folder=folder / "journal", database=database, files=files)
    answered: list[str] = []
    for turn in range(chance.randint(1, TURNS)):
        for call in range(CALLS):
            append(journal, f"{turn}-{call}")
        await journal.written()
        answered += [f"{turn}-{call}" for call in range(CALLS)]
        if chance.random() < 0.5:
            await shipper.drain()
        if chance.random() < 0.3:
            await database.read(lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all())
    under_way = asyncio.create_task(shipper.drain())
    await asyncio.sleep(chance.random() * 0.02)
    left = folder / "left"
    with lock:
        files.cut_power(left / "journal")
        disk.cut_power(path, left, chance)
        removed = files.removed
    await under_way
    journal.close()
    database.close()
    return {**await recovered(left, answered), "segments_removed": removed}


async def recovered(left: Path, answered: list[str]) -> dict[str, int]:
    """What the next start finds."""
    database = Database(f"sqlite:///{left / 'roost.db'}")
    await Shipper(journal_folder=left / "journal", database=database).drain()
    await Settler(journal_folder=left / "journal", database=database, clock=now).settle()
    counted = Counter(await database.read(request_ids))
    whole = await database.read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").scalars().all())
    database.close()
    return {
        "cuts": 1,
        "answered": len(answered),
        "lost": sum(name not in counted for name in answered),
        "doubled": sum(times > 1 for times in counted.values()),
        "broken": int(whole != ["ok"]),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
