"""Brings what the journal wrote from the page cache to the disk, on a thread of its own."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from roost_platform.domain.errors import StorageFull
from roost_platform.metering.files import Files
from roost_platform.metering.intents import Intents
from roost_platform.metering.segments import Segment

_INTENTS_EVERY_S = 1.0
"""How often the calls under way are brought to the disk: for power cuts only, which may set their counts apart anyway."""
_log = logging.getLogger(__name__)


class Turn(asyncio.Future[None]):
    """Done when the events of one turn of the event loop are safe. Many callers await the same one."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(loop=loop)
        self._told: list[Callable[[StorageFull | None], None]] = []

    def cancel(self, msg: object = None) -> bool:
        """Refuse: a cancelled caller would take all others with it. It gets its cancellation when the turn is done."""
        return False

    def then(self, told: Callable[[StorageFull | None], None]) -> None:
        """Call `told` at once when it is settled: for callers that are no tasks. Only before it is."""
        self._told.append(told)

    def settle(self, error: StorageFull | None) -> None:
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
            self.exception()  # counts as seen: whoever did not wait for it does not care
        told, self._told = self._told, []
        for each in told:
            try:
                each(error)
            except Exception:  # noqa: BLE001 - whoever comes after must be told all the same
                _log.exception("answer_failed")


class Syncer:
    """Runs fdatasync after writes, at most once per `interval_s`; closes segments that the journal is done with.

    With an interval of 0 it is a group commit: it starts at once, and all turns that were written while the disk was
    busy are settled by the next fdatasync together.
    """

    def __init__(self, *, interval_s: float, intents: Intents, files: Files) -> None:
        self.failures = 0
        self._intents = intents
        self._intents_due = 0.0
        self._files = files
        self._interval_s = interval_s
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._segment: Segment | None = None
        self._named: Segment | None = None
        self._retired: list[Segment] = []
        self._turns: list[Turn] = []
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def wrote(self, segment: Segment) -> None:
        self._segment = segment
        if not self._work.is_set():
            self._work.set()

    def settle(self, turn: Turn) -> None:
        """Settle this turn after an fdatasync that began after now."""
        with self._lock:
            self._turns.append(turn)
        self._work.set()

    def retire(self, segment: Segment) -> None:
        """The journal will not write to it any more: sync it a last time and close it."""
        with self._lock:
            self._retired.append(segment)
            if self._segment is segment:
                self._segment = None
        self._work.set()

    def stop(self) -> None:
        """Sync what is left, then end the thread."""
        self._stopping.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._work.wait()
            stopping = self._stopping.is_set()
            self._work.clear()  # before the work is taken: what comes later sets it again
            self._round()
            if stopping:
                return
            self._stopping.wait(self._interval_s)

    def _round(self) -> None:
        with self._lock:
            turns, self._turns = self._turns, []
            retired, self._retired = self._retired, []
            segment = self._segment
        error = None
        for each in (*retired, *([segment] if segment else [])):
            error = self._sync(each) or error
        for each in retired:
            self._close(each)
        if turns:
            _from_thread(turns[0].get_loop(), lambda: _settle(turns, error))
        self._sync_intents()

    def _close(self, segment: Segment) -> None:
        try:
            segment.close()
        except OSError:  # it is closed all the same, and what it held was synced before
            self.failures += 1
            _log.exception("journal_close_failed", extra={"segment": segment.path.name})

    def _sync_intents(self) -> None:
        now = time.monotonic()
        if now < self._intents_due and not self._stopping.is_set():
            return
        self._intents_due = now + _INTENTS_EVERY_S
        try:
            self._intents.sync()
        except OSError:
            self.failures += 1
            _log.exception("journal_sync_failed", extra={"segment": self._intents.path.name})

    def _sync(self, segment: Segment) -> StorageFull | None:
        try:
            segment.sync()
            if segment is not self._named:
                self._files.sync_folder(segment.path.parent)
                self._named = segment
        except OSError as error:
            self.failures += 1
            _log.exception("journal_sync_failed", extra={"segment": segment.path.name})
            failure = StorageFull("the usage of this call could not be stored", retry_after_s=1)
            failure.__cause__ = error
            return failure
        return None


def _settle(turns: list[Turn], error: StorageFull | None) -> None:
    for turn in turns:
        turn.settle(error)


def _from_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:  # the loop has ended, and with it everybody who could have waited
        return
