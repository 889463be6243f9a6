"""Calls under way: what a run leaves behind says, at any moment of its end, what became of every call that it took on."""

import asyncio
import os
import resource
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metering_killed import processes
from metering_parts import NOON_US, append, balances, ledger_in, now, request_ids, unknown_ids
from roost_platform.domain.errors import StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.files import Files, is_sealed
from roost_platform.metering.intents import Intent, Intents, Left, OpenCall, read_intents, unanswered
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper
from roost_platform.metering.sources import Balance

REFUSED = {"outcome": Outcome.THROTTLED, "status": 429, "compute_us": 0, "rows": 0}


def left_in(folder: Path, source: str = "run") -> Left:
    left = read_intents(folder / f"{source}.open")
    assert left is not None
    return left


def names(left: Left) -> list[str]:
    return [call.request_id for call in left.calls]


def test_a_call_is_there_with_all_that_is_known_of_it_from_open_to_complete(tmp_path):
    intents = Intents(tmp_path, source="run", clock_ns=lambda: NOON_US * 1000 + 999)
    first = intents.open("acme", "résnet", 3, "a:1")
    second = intents.open("t" * 63, "m" * 63, 0, "r" * 128)
    second.chose(2**31 - 1)
    second.remember(7, 5)
    left = left_in(tmp_path)
    assert left == Left(
        source="run",
        started_us=NOON_US,
        opened=2,
        unstored=0,
        calls=(
            OpenCall(1, NOON_US, "acme", "résnet", 3, "a:1", None, 1),
            OpenCall(2, NOON_US, "t" * 63, "m" * 63, 2**31 - 1, "r" * 128, 7, 5),
        ),
        restarted=False,
    )
    intents.complete([first])
    assert names(left_in(tmp_path)) == ["r" * 128]
    intents.withdraw([second])
    third = intents.open("acme", "iris", 1, "c")
    left = left_in(tmp_path)
    assert (names(left), left.opened, left.unstored) == (["c"], 3, 1)
    assert left.calls[0] == OpenCall(3, NOON_US, "acme", "iris", 1, "c", None, 1), "nothing is left of who had the slot"
    intents.complete([third])
    intents.close()
    intents.close()
    assert left_in(tmp_path) == Left("run", NOON_US, 3, 1, (), restarted=False)


def test_the_file_is_locked_while_its_run_lives_and_grows_with_the_calls(tmp_path):
    intents = Intents(tmp_path, source="run")
    taken = [intents.open("acme", "iris", 1, f"r{number}") for number in range(1000)]
    assert not is_sealed(tmp_path / "run.open")
    assert names(left_in(tmp_path)) == [f"r{number}" for number in range(1000)]
    size = (tmp_path / "run.open").stat().st_size
    intents.complete(taken)
    again = [intents.open("acme", "iris", 1, "again") for _ in range(1000)]
    assert (tmp_path / "run.open").stat().st_size == size < 400_000
    intents.close()
    assert is_sealed(tmp_path / "run.open")
    assert len(left_in(tmp_path).calls) == len(again)
    with pytest.raises(FileExistsError):
        Intents(tmp_path, source="run")
    assert len(left_in(tmp_path).calls) == len(again), "another run of the name changed nothing"


def test_no_call_is_taken_on_after_the_end(tmp_path):
    intents = Intents(tmp_path, source="run")
    intents.close()
    with pytest.raises(RuntimeError, match="closed"):
        intents.open("acme", "iris", 1, "late")


def test_an_id_that_is_no_text_is_noted_all_the_same(tmp_path):
    intents = Intents(tmp_path, source="run")
    intents.open("acme", "iris", 1, "lone \ud800 surrogate\nand a line")
    assert names(left_in(tmp_path)) == ["lone ? surrogate\nand a line"]
    intents.close()


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(200_000), b"roost" * 40_000])
def test_what_is_no_such_file_is_told_apart(tmp_path, content):
    (tmp_path / "run.open").write_bytes(content)
    assert read_intents(tmp_path / "run.open") is None


def test_slots_torn_by_a_power_cut_are_read_as_far_as_they_go(tmp_path):
    intents = Intents(tmp_path, source="run")
    for number in range(40):
        intents.open("acme", "iris", 1, f"r{number}")
    intents.complete([])
    whole = (tmp_path / "run.open").read_bytes()
    (tmp_path / "dead.open").write_bytes(whole[:-5000] + bytes(1000) + whole[-4000:-700])
    left = left_in(tmp_path, "dead")
    assert left.opened == 40
    assert 30 < len(left.calls) < 40
    assert {call.request_id for call in left.calls} <= {"", *(f"r{number}" for number in range(40))}
    intents.close()


def test_only_what_the_ledger_does_not_hold_is_unanswered():
    def call(number: int, sequence: int | None, requests: int = 1) -> OpenCall:
        return OpenCall(number, NOON_US, "acme", "iris", 1, f"r{number}", sequence, requests)

    calls = (call(1, None), call(2, 5), call(3, 6), call(4, 9, 3), call(5, 9, 4))
    left = Left("run", NOON_US, 5, 0, calls, restarted=False)
    assert [each.number for each in unanswered(left, {5: 1, 9: 3})] == [1, 3, 5]
    assert [each.number for each in unanswered(left, {5: 1, 6: 1, 9: 40})] == [1]


def test_without_room_for_another_call_it_is_refused_and_those_under_way_are_not_harmed(tmp_path):
    results, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_fill_the_disk, args=(tmp_path, sender))
    child.start()
    sender.close()
    taken, code = results.recv()
    child.join()
    results.close()
    assert code == "storage_full"
    assert taken == 256
    left = left_in(tmp_path)
    assert (left.opened, names(left)) == (taken, [f"r{number}" for number in range(taken)])


def _fill_the_disk(folder: Path, pipe: Pipe) -> None:
    intents = Intents(folder, source="run")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    taken = 0
    try:
        while True:
            intents.open("acme", "iris", 1, f"r{taken}")
            taken += 1
    except StorageFull as error:
        pipe.send((taken, error.code))


class Snapshots(Files):
    """Copies the folder before and after each write: the moments between line and slot at which a kill may fall."""

    def __init__(self, folder: Path) -> None:
        self.failing = False
        self.taken: list[Path] = []
        self._folder = folder

    def write(self, descriptor: int, data: bytes) -> int:
        self._take()
        if self.failing:
            raise OSError(28, "no room")
        written = super().write(descriptor, data)
        self._take()
        return written

    def _take(self) -> None:
        copy = self._folder.with_name(f"moment{len(self.taken)}")
        shutil.copytree(self._folder, copy)
        self.taken.append(copy)


@dataclass
class Model:
    """What became of every call, by its id."""

    under_way: dict[str, Intent] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    unstored: int = 0
    refused: int = 0
    """Stored refusals, which have one id for all."""


class Calls(RuleBasedStateMachine):
    """A run takes calls on, ends them, fails to write them; and at any moment it may have been killed."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "journal"
        self.folder.mkdir()
        self.files = Snapshots(self.folder)
        self.journal = self._made()
        self.model = Model()
        self.numbers = iter(range(10**6))

    def _made(self) -> Journal:
        async def make() -> Journal:
            return Journal(self.folder, source="run", segment_bytes=2000, files=self.files)

        return self.loop.run_until_complete(make())

    @rule(count=st.integers(1, 4))
    def open(self, count):
        for _ in range(count):
            name = f"c{next(self.numbers)}"
            self.model.under_way[name] = self.journal.intents.open("acme", "iris", 1, name)

    @rule(count=st.integers(0, 6), refusals=st.integers(0, 3), fails=st.booleans())
    def end(self, count, refusals, fails):
        """One turn: so many of those under way end, in any order of their beginning, and some are refused."""
        ended = list(self.model.under_way)[-count:] if count else []
        before = len(self.files.taken)
        stored = self.loop.run_until_complete(self._end(ended, refusals, fails=fails))
        under_way = set(self.model.under_way)
        for name in ended:
            del self.model.under_way[name]
        if not ended and not refusals:
            return
        if not stored:
            self.model.unstored += len(ended) + refusals
        moments = self.files.taken[before:]
        for moment in moments:  # killed before the write, or after it
            done = moment is moments[-1] and stored
            self._check(moment, self.model.stored + (ended if done else []), under_way, refusals, done=done)
            shutil.rmtree(moment)
        if stored:
            self.model.stored += ended
            self.model.refused += refusals

    async def _end(self, ended: list[str], refusals: int, *, fails: bool) -> bool:
        self.files.failing = fails
        for name in ended:
            append(self.journal, name, intent=self.model.under_way[name])
        for _ in range(refusals):
            append(self.journal, "refused", **REFUSED)
        try:
            await self.journal.written()
        except StorageFull:
            return False
        finally:
            self.files.failing = False
        return True

    @rule(model=st.sampled_from(["iris", "\ud800"]))
    def refuse_what_is_no_text(self, model):
        with pytest.raises(TypeError):
            self.loop.run_until_complete(self._append_badly(model))
        self.model.unstored += 1

    async def _append_badly(self, model: str) -> None:
        append(self.journal, "bad \ud800", model=model)

    @invariant()
    def the_file_says_what_is_under_way(self):
        left = left_in(self.folder)
        model = self.model
        assert names(left) == list(model.under_way)
        assert left.unstored == model.unstored == self.journal.intents.unstored
        ended = len(model.stored) + model.refused + model.unstored
        assert max(left.opened, 0) == ended + len(model.under_way) == self.journal.intents.opened

    def _check(self, moment: Path, stored: list[str], under_way: set[str], refusals: int, *, done: bool) -> None:
        with tempfile.TemporaryDirectory(dir=self.base) as name, ledger_in(Path(name)) as database:
            shutil.copytree(moment, Path(name) / "journal")
            found = self.loop.run_until_complete(settled(Path(name) / "journal", database))
            (book,), calls, unknown = found
            refused = self.model.refused + (refusals if done else 0)
            assert Counter(calls) == Counter(stored)
            assert book.completed == len(stored) + refused
            assert book.unaccounted == 0
            assert sorted(unknown) == sorted([*(under_way - set(stored)), *["refused"] * (0 if done else refusals)])
            assert book.unknown == len(unknown)

    def teardown(self):
        self.journal.close()
        with ledger_in(self.base) as database:
            (book,), calls, unknown = self.loop.run_until_complete(settled(self.folder, database))
        model = self.model
        assert Counter(calls) == Counter(model.stored)
        assert sorted(unknown) == sorted(model.under_way)
        wanted = len(model.stored) + model.refused
        assert book == Balance("run", book.opened, wanted, model.unstored, len(model.under_way))
        assert book.unaccounted == 0
        self.loop.close()
        shutil.rmtree(self.base)


async def settled(folder: Path, database) -> tuple[list[Balance], list[str], list[str]]:
    """What is written down of the runs in a folder after their end: books, ids in the ledger, ids of unknown calls."""
    await Shipper(journal_folder=folder, database=database).drain()
    settler = Settler(journal_folder=folder, database=database, clock=now)
    assert await settler.settle() == 1
    assert not await asyncio.to_thread(os.listdir, folder)
    assert await Auditor(database=database, clock=now).look() == []
    calls = [name for name in await database.read(request_ids) if name != "refused"]
    return await database.read(balances), calls, await database.read(unknown_ids)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)


async def test_what_was_noted_is_when_it_came_not_when_it_ended(tmp_path):
    before = datetime.now(UTC)
    intents = Intents(tmp_path, source="run")
    intents.open("acme", "iris", 1, "r")
    (call,) = left_in(tmp_path).calls
    assert before.timestamp() - 1 < call.time_us / 1e6 < datetime.now(UTC).timestamp() + 1
    intents.close()
