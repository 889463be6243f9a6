"""Calls under way, noted before anything is done for them: after `kill -9` it is known which ones were never answered.

    <source>.open:   header │ slot │ slot │ …            a slot per call under way, in a file that is mapped into memory
    `open`: tenant, model, number … ─▶ `remember`: its sequence ─▶ the journal writes its line ─▶ `complete`: free again

What is stored in a mapped file is the kernel's at once, without a system call, and outlives the process however that ends;
so a call costs half a microsecond here. The order of stores makes a kill at any moment tell the truth:

- a slot counts while it has a number, which is stored last and goes first;
- the header says how many calls were opened before any slot is freed: the highest number is there, or still in a slot;
- calls whose line could not be written are marked, then counted by one store, then freed; from the count on, and until
  the store after that, the header says that what is marked has been counted.

A power cut is another matter: pages reach the disk when the syncer (about once a second) or the kernel writes them. The
counts of that run may be some calls apart then. Whether a call is in the ledger does not depend on this file.
"""

import mmap
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any

from roost_platform.domain.errors import StorageFull
from roost_platform.metering.files import REAL_FILES, Files, create_locked

SUFFIX = ".open"
_MAGIC = int.from_bytes(b"ROOST001", "little")
_HEADER = struct.Struct("=4Q16s")
_HEADER_BYTES = mmap.ALLOCATIONGRANULARITY
_OPENED, _UNSTORED = 1, 2  # words of the header; the second is twice the number, plus 1 while marked slots are counted
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SLOT = struct.Struct("=4Q280sQ")
"""Time (nanoseconds since 1970), version, sequence + 1, requests, text, number: packed in this order."""
_WORDS = _SLOT.size // 8
_VERSION, _SEQUENCE, _REQUESTS, _NUMBER = 1, 2, 3, _WORDS - 1  # words of a slot; a sequence or number of 0 is none
_MARKED = 2**64 - 1
"""In the place of a sequence."""
_BLOCK_SLOTS = 256
_BLOCK_BYTES = _BLOCK_SLOTS * _SLOT.size

assert _BLOCK_BYTES % mmap.ALLOCATIONGRANULARITY == 0


class Intent:
    """A call under way, from `open` until its batch was written or withdrawn. Then it is another call's."""

    __slots__ = ("block", "first", "offset", "words")

    def __init__(self, block: mmap.mmap, words: memoryview, offset: int) -> None:
        self.block = block
        self.words = words
        self.offset = offset
        self.first = offset // 8

    def chose(self, version: int) -> None:
        """The version that the call goes to, where that is known late."""
        self.words[self.first + _VERSION] = version

    def remember(self, sequence: int, requests: int) -> None:
        """The line that the journal is about to write for it, and how many requests that stands for."""
        words, first = self.words, self.first
        if requests != 1:
            words[first + _REQUESTS] = requests
        words[first + _SEQUENCE] = sequence + 1


class Intents:
    """The file of one run of a gateway. All on one thread, but `sync`."""

    def __init__(
        self, folder: Path, *, source: str, files: Files = REAL_FILES, clock_ns: Callable[[], int] = time_ns
    ) -> None:
        """Makes `<source>.open` in `folder`. Raises OSError."""
        self.path = folder / f"{source}{SUFFIX}"
        self.opened = 0
        """Calls taken on by this run."""
        self.unstored = 0
        """Calls whose usage could not be written; they were answered 507."""
        self._files = files
        self._clock_ns = clock_ns
        self._maps: list[tuple[mmap.mmap, memoryview]] = []
        self._free: list[Intent] = []
        self._end = 0
        self._closed = False
        try:
            self._descriptor = create_locked(files, self.path, mapped=True, prepare=self._begin)
        except OSError:
            self._unmap()
            raise

    def open(self, tenant: str, model: str, version: int, request_id: str) -> Intent:
        """Note a call before anything is done for it; `version` is 0 where none is chosen yet.

        Raises StorageFull when there is no room on the disk: then nothing is noted.
        """
        free = self._free
        if not free:
            self._make_room()
        try:
            text = f"{tenant}\n{model}\n{request_id}".encode()
        except UnicodeEncodeError:  # a lone surrogate, which no tenant, model or id of ours holds
            text = f"{tenant}\n{model}\n{request_id}".encode(errors="replace")
        intent, number = free[-1], self.opened + 1
        _SLOT.pack_into(intent.block, intent.offset, self._clock_ns(), version, 0, 1, text, number)
        self.opened = number
        return free.pop()

    def complete(self, intents: list[Intent]) -> None:
        """Their lines are written."""
        self._maps[0][1][_OPENED] = self.opened
        for intent in intents:
            intent.words[intent.first + _NUMBER] = 0
        self._free += intents

    def withdraw(self, intents: list[Intent]) -> None:
        """Their lines could not be written."""
        header = self._maps[0][1]
        for intent in intents:
            intent.words[intent.first + _SEQUENCE] = _MARKED
        self.unstored += len(intents)
        header[_UNSTORED] = 2 * self.unstored + 1
        self.complete(intents)
        header[_UNSTORED] = 2 * self.unstored

    def sync(self) -> None:
        """Bring the file to the disk. Raises OSError."""
        self._files.datasync(self._descriptor)

    def close(self) -> None:
        """What is open stays so, to be counted as unknown. The lock goes."""
        if self._closed:
            return
        self._closed = True
        self._maps[0][1][_OPENED] = self.opened
        self._free.clear()
        self._unmap()
        with suppress(OSError):  # it is closed all the same
            self._files.close(self._descriptor)

    def _begin(self, descriptor: int) -> None:
        self._map(descriptor, _HEADER_BYTES)
        _HEADER.pack_into(self._maps[0][0], 0, _MAGIC, 0, 0, self._clock_ns() // 1000, boot_id())
        self._grow(descriptor)

    def _make_room(self) -> None:
        if self._closed:
            raise RuntimeError("the journal is closed")
        try:
            self._grow(self._descriptor)
        except OSError as error:
            raise StorageFull("there is no room to note another call under way", retry_after_s=1) from error

    def _grow(self, descriptor: int) -> None:
        block, words = self._map(descriptor, _BLOCK_BYTES)
        self._free += [Intent(block, words, offset) for offset in range(0, _BLOCK_BYTES, _SLOT.size)]

    def _map(self, descriptor: int, length: int) -> tuple[mmap.mmap, memoryview]:
        self._files.allocate(descriptor, self._end, length)
        mapped = self._files.map(descriptor, self._end, length)
        words = memoryview(mapped).cast("Q")  # a store of one word is one instruction
        self._maps.append((mapped, words))
        self._end += length
        return self._maps[-1]

    def _unmap(self) -> None:
        for mapped, words in self._maps:
            words.release()
            mapped.close()


def boot_id() -> bytes:
    """16 bytes, other ones after each start of the machine; empty where the kernel does not tell."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return b""


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that was under way when its gateway ended."""

    number: int
    """1, 2, 3 … in the order that the run took its calls on."""
    time_us: int
    """When it came, in microseconds since 1970 UTC."""
    tenant: str
    model: str
    version: int
    """0 when none was chosen yet."""
    request_id: str
    sequence: int | None
    """Of the line that was about to be written for it, or was written."""
    requests: int
    """How many calls that line stood for, with this one."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left behind."""

    source: str
    started_us: int
    opened: int
    unstored: int
    calls: tuple[OpenCall, ...]
    """In the order of their numbers. Some may be in the ledger: those killed between their line and the end of their slot."""
    restarted: bool
    """The machine was started anew since: its memory is gone, and these counts may be a second old."""


def unanswered(left: Left, ledger: Mapping[int, int]) -> tuple[OpenCall, ...]:
    """The calls that the ledger does not hold. `ledger`: requests by sequence, of at least those that `left` names."""
    return tuple(call for call in left.calls if call.sequence is None or ledger.get(call.sequence, 0) < call.requests)


def read_intents(path: Path) -> Left | None:
    """What is in the file of a run that has ended; None when this is no such file. Raises OSError."""
    content = path.read_bytes()
    if len(content) < _HEADER_BYTES:
        return None
    magic, opened, unstored, started_us, boot = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        return None
    whole = len(content) - (len(content) - _HEADER_BYTES) % _SLOT.size
    slots = [slot for slot in _SLOT.iter_unpack(memoryview(content)[_HEADER_BYTES:whole]) if slot[-1]]
    opened = max([opened, *(slot[-1] for slot in slots)])
    if unstored % 2:
        slots = [slot for slot in slots if slot[2] != _MARKED]
    calls = sorted((_call(slot) for slot in slots), key=lambda call: call.number)
    restarted = boot.rstrip(b"\0") != boot_id().rstrip(b"\0")
    return Left(path.name.removesuffix(SUFFIX), started_us, opened, unstored // 2, tuple(calls), restarted)


def _call(slot: tuple[Any, ...]) -> OpenCall:
    nanoseconds, version, sequence, requests, text, number = slot
    words = text.rstrip(b"\0").decode(errors="replace").split("\n", 2)
    tenant, model, request_id = words + [""] * (3 - len(words))  # fewer words: torn by a power cut
    kept = sequence - 1 if 0 < sequence < _MARKED else None
    return OpenCall(number, nanoseconds // 1000, tenant, model, version, request_id, kept, requests)
