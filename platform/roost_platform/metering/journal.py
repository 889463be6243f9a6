"""The journal: an append-only file that makes an answered call durable before its answer's last byte leaves.

All events of one turn of the event loop are written with one system call, which is what makes it cheap enough to do for
every call. Everything here but the syncing runs on the event loop's thread.
"""

import asyncio
import logging
import re
from pathlib import Path

from roost_platform.domain.errors import StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.backlog import Backlog
from roost_platform.metering.files import REAL_FILES, Files, remove_leftovers
from roost_platform.metering.intents import Intent, Intents
from roost_platform.metering.lines import encode, encode_batch
from roost_platform.metering.refusals import Refusals, is_summed
from roost_platform.metering.segments import Segment, find_segments
from roost_platform.metering.syncer import Syncer, Turn

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_log = logging.getLogger(__name__)


class Journal:
    """Writes usage events to segments `<source>-<n>.jsonl` in `folder`.

    What survives: an event whose turn was awaited survives `kill -9` of this process. A power cut or a crash of the
    kernel may lose what was written less than `sync_interval_s` (plus one fdatasync) before it; with 0 it loses
    nothing, because `written` then waits for the disk.

    A batch that cannot be written whole is withdrawn with its sequence numbers, so the sequences of a source have no
    gaps: a gap in the ledger is lost data. One exception to "an error means not counted": with `sync_interval_s=0`, a
    failed fdatasync fails its turns although their lines may have reached the file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        segment_bytes: int = 64 * 1024**2,
        limit_bytes: int = 4 * 1024**3,
        sync_interval_s: float = 0.05,
        backlog: Backlog | None = None,
        files: Files = REAL_FILES,
    ) -> None:
        """`source` names this run and is never used again; up to 32 letters, digits, `_` and `-`.

        `segment_bytes`: a segment that reached this size is closed and the next one begun.
        `limit_bytes`: no segment is begun while this much waits to be shipped; calls are then refused with StorageFull
        instead of filling the disk. `sync_interval_s`: pause between two fdatasync; 0 = before every answer. `backlog`:
        the same one that the shipper of this folder measures.
        """
        if not _SOURCE.fullmatch(source):
            raise ValueError(f"source must be 1 to 32 letters, digits, _ or -, not {source!r}")
        self.events = 0
        """Events written by this run."""
        self.failures = 0
        """Batches that could not be written."""
        self.backlog = backlog or Backlog()
        """Ask it before work is done for a call; what is appended is written all the same."""
        self._folder = folder
        self._source = source
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._each_turn_synced = sync_interval_s <= 0
        self._sequence = 0
        self._written_sequence = 0
        self._refusals = Refusals()
        self._lines: list[bytes] = []
        self._intents: list[Intent] = []
        self._turn: Turn | None = None
        self._last: Turn | None = None
        self._segment: Segment | None = None
        self._segments = 0
        self._failing = False
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._files = files
        self.intents = Intents(folder, source=source, files=files)
        """Calls under way: what is to be appended is opened there before anything is done for it."""
        self._syncer = Syncer(interval_s=max(0.0, sync_interval_s), intents=self.intents, files=files)

    @property
    def source(self) -> str:
        return self._source

    @property
    def sync_failures(self) -> int:
        """How often fdatasync failed: the disk is not to be trusted any more."""
        return self._syncer.failures

    def append(
        self,
        *,
        time_us: int,
        tenant: str,
        model: str,
        version: int,
        outcome: Outcome,
        status: int,
        compute_us: int,
        queue_us: int,
        cold_start_us: int,
        bytes_in: int,
        bytes_out: int,
        rows: int,
        request_id: str,
        intent: Intent | None = None,
    ) -> None:
        """Add one call to this turn's batch; the fields are those of UsageEvent, `time_us` since 1970 UTC.

        `intent` is what `intents.open` gave for it and is the journal's from here on; a call without one is opened now.

        Mere refusals are summed per minute (`refusals.py`). Then await `written()`, asked for in the same turn, before the
        last byte of the answer is sent.
        """
        if self._closed:
            raise RuntimeError("the journal is closed")
        if intent is None:
            intent = self.intents.open(tenant, model, version, request_id)
        sequence = self._sequence
        requests: tuple[int, ...] = ()
        if outcome is not Outcome.OK and is_summed(  # nearly all are: they are not even asked
            outcome, compute_us=compute_us, cold_start_us=cold_start_us, rows=rows
        ):
            kind = (tenant, model, version, outcome, status)
            total = self._refusals.of(kind, sequence=sequence, time_us=time_us, request_id=request_id)
            total.requests += 1
            total.queue_us += queue_us
            total.bytes_in += bytes_in
            total.bytes_out += bytes_out
            sequence, time_us, request_id = total.sequence, total.time_us, total.request_id
            queue_us, bytes_in, bytes_out = total.queue_us, total.bytes_in, total.bytes_out
            requests = (total.requests,) if total.requests > 1 else ()
        values = (
            self._source, sequence, time_us, tenant, model, version, outcome, status,
            compute_us, queue_us, cold_start_us, bytes_in, bytes_out, rows, request_id, *requests,
        )  # fmt: skip
        try:
            line = encode(values)
        except TypeError:
            self._refusals.forget()  # a sum may hold this call already
            self.intents.withdraw([intent])
            raise
        if not self._lines:
            self._begin_turn()
        intent.remember(sequence, requests[0] if requests else 1)
        self._intents.append(intent)
        self._lines.append(line)
        self._sequence = max(self._sequence, sequence + 1)

    def written(self) -> Turn:
        """Done when all events appended in this turn are durable; raises StorageFull when none of them is."""
        turn = self._turn or self._last
        if turn is None:
            turn = Turn()
            turn.settle(None)
        return turn

    def close(self) -> None:
        """Write what is left and wait for the disk (this blocks for one fdatasync). The segment is sealed then."""
        if self._closed:
            return
        self._flush()
        self._closed = True
        if self._segment is not None:
            self._syncer.retire(self._segment)
            self._segment = None
        self._syncer.stop()
        self.intents.close()

    def _begin_turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._turn = Turn(loop=loop)
        loop.call_soon(self._flush)

    def _flush(self) -> None:
        turn = self._turn
        if turn is None:  # `close` came first
            return
        lines, self._lines = self._lines, []
        intents, self._intents = self._intents, []
        self._turn, self._last = None, turn
        try:
            segment = self._write(encode_batch(lines))
        except OSError as error:
            self._sequence = self._written_sequence
            self._refusals.forget()
            self.intents.withdraw(intents)
            self.failures += 1
            if not self._failing:  # once per outage: a full disk fails thousands of batches a second
                _log.exception("journal_write_failed", extra={"events": len(lines)})
            self._failing = True
            failure = StorageFull("the usage of this call could not be stored", retry_after_s=1)
            failure.__cause__ = error
            turn.settle(failure)
            return
        self._failing = False
        self._written_sequence = self._sequence
        self.events += len(lines)
        self.intents.complete(intents)
        self._syncer.wrote(segment)
        if self._each_turn_synced:
            self._syncer.settle(turn)
        else:
            turn.settle(None)

    def _write(self, batch: bytes) -> Segment:
        segment = self._segment
        if segment is not None and segment.size >= self._segment_bytes:
            self._syncer.retire(segment)
            segment = self._segment = None
        if segment is None:
            segment = self._segment = self._next_segment()
        try:
            segment.write(batch)
        except OSError:
            segment.abandon()
            self._syncer.retire(segment)
            self._segment = None
            raise
        return segment

    def _next_segment(self) -> Segment:
        waiting = sum(segment.size for segment in find_segments(self._folder))
        if waiting >= self._limit_bytes:
            raise OSError(f"{waiting} bytes of usage wait to be shipped to the ledger")
        self._segments += 1
        return Segment.create(self._folder, f"{self._source}-{self._segments}", self._files)
