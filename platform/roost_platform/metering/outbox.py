"""The outbox: where what tenants held waits on this disk until the database has it.

Whoever tells it of a stretch neither waits nor fails: a thread of its own writes and syncs. What cannot be kept is dropped,
counted and logged. Nobody is ever charged for it, and no call is refused because of it.
"""

import logging
import threading
from collections import deque
from pathlib import Path

from roost_platform.domain.resources import ResourceUsage
from roost_platform.metering.files import REAL_FILES, Files, remove_leftovers
from roost_platform.metering.lines import encode_batch
from roost_platform.metering.resource_lines import encode_usage
from roost_platform.metering.segments import Segment, find_segments

_log = logging.getLogger(__name__)
_GATHER_S = 0.02
"""Stretches are told in bursts: what comes within this is written at once."""
_RETRY_S = 1.0
_SYNC_S = 1.0
_BATCH = 500


class Outbox:
    """Writes stretches to segments `<source>-<n>.jsonl` in `folder`.

    What survives: some hundredths of a second after it was told, a stretch survives `kill -9` of this process; a power cut
    may take the last second. While the disk refuses writes, or `limit_bytes` wait there, stretches stay in memory, at most
    `most_waiting` of them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        segment_bytes: int = 1024**2,
        limit_bytes: int = 256 * 1024**2,
        most_waiting: int = 10_000,
        files: Files = REAL_FILES,
    ) -> None:
        """`source` names this run and is never used again. A segment of `segment_bytes` is closed and the next one begun."""
        self.written = 0
        """Stretches written by this run."""
        self.failures = 0
        """Batches that could not be written, and syncs that failed."""
        self._folder = folder
        self._source = source
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._most_waiting = most_waiting
        self._files = files
        self._waiting: deque[ResourceUsage] = deque()
        self._batch: list[ResourceUsage] = []  # the thread's: taken from those, and not written yet
        self._turned_away = 0  # counted on the event loop,
        self._unwritable = 0  # and on the thread
        self._dropping = False
        self._failing = False
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._segment: Segment | None = None
        self._segments = 0
        self._named = False  # its name survives a power cut
        self._unsynced = False
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Stretches that could not be kept: nobody is charged for them."""
        return self._turned_away + self._unwritable

    @property
    def waiting(self) -> int:
        """Stretches that are in memory only."""
        return len(self._waiting) + len(self._batch)

    def tell(self, usage: ResourceUsage) -> None:
        """Take a stretch. Returns at once and raises nothing."""
        if self._stopping.is_set() or len(self._waiting) >= self._most_waiting:
            self._turned_away += 1
            if not self._dropping:  # once per outage
                _log.error("held_resources_dropped", extra={"waiting": len(self._waiting), "id": usage.id})
            self._dropping = True
            return
        self._dropping = False
        self._waiting.append(usage)
        if not self._work.is_set():
            self._work.set()

    def close(self) -> None:
        """Write what is left, sync and seal it (blocks for one fdatasync). What is told later is dropped."""
        self._stopping.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            # It wakes by itself only to sync what was written a moment ago.
            if self._work.wait(_SYNC_S if self._unsynced else None):
                self._stopping.wait(_GATHER_S)
                self._work.clear()  # before the work is taken: what comes later sets it again
                self._write_all()
            else:
                self._sync()
        self._write_all()
        if self.waiting:
            _log.error("held_resources_dropped", extra={"waiting": self.waiting})
        self._unwritable += self.waiting
        self._sync()
        self._seal()

    def _write_all(self) -> None:
        while self._waiting or self._batch:
            if not self._batch:
                self._batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                self._write(self._batch)
            except OSError:
                self._failed("outbox_write_failed")
                if self._stopping.wait(_RETRY_S):
                    return
            else:
                self._failing = False
                self._batch = []

    def _write(self, batch: list[ResourceUsage]) -> None:
        lines = [line for usage in batch if (line := _line(usage)) is not None]
        if lines:
            self._append(encode_batch(lines))
        self._unwritable += len(batch) - len(lines)
        self.written += len(lines)

    def _append(self, batch: bytes) -> None:
        if self._segment is not None and self._segment.size >= self._segment_bytes:
            self._sync()
            self._seal()
        waiting = sum(segment.size for segment in find_segments(self._folder))
        if waiting >= self._limit_bytes:
            raise OSError(f"{waiting} bytes of held resources wait to be shipped")
        if self._segment is None:
            self._segments += 1
            self._segment = Segment.create(self._folder, f"{self._source}-{self._segments}", self._files)
            self._named = False
        try:
            self._segment.write(batch)
        except OSError:
            self._segment.abandon()
            self._seal()
            raise
        self._unsynced = True

    def _sync(self) -> None:
        self._unsynced = False
        if self._segment is not None:
            try:
                self._segment.sync()
                if not self._named:
                    self._files.sync_folder(self._folder)
                    self._named = True
            except OSError:
                self._failed("outbox_sync_failed")

    def _seal(self) -> None:
        """It is not written to any more, whatever the disk says to that."""
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.close()
            except OSError:
                self._failed("outbox_close_failed")

    def _failed(self, what: str) -> None:
        self.failures += 1
        if not self._failing:  # once per outage
            _log.exception(what)
        self._failing = True


def _line(usage: ResourceUsage) -> bytes | None:
    try:
        return encode_usage(usage)
    except Exception:  # noqa: BLE001 - whatever it is: the thread must live on for the others
        _log.exception("held_resources_unfit")
        return None
