"""File operations and a database that fail when told, and what a power cut would leave of the files: for the metering tests."""

import random
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from mmap import mmap
from pathlib import Path
from typing import Any

from databases import url_of
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Unavailable
from roost_platform.metering.files import Files

PAGE = 4096


class FaultyFiles(Files):
    """`before` is called with the number (1, 2 …) and the name of each call; what it raises is what the call raises."""

    def __init__(self, before: Callable[[int, str], None]) -> None:
        self.calls = 0
        self._before = before
        self._lock = threading.Lock()

    def _count(self, name: str) -> None:
        with self._lock:
            self.calls += 1
            number = self.calls
        self._before(number, name)

    def create(self, path: Path, *, mapped: bool) -> int:
        self._count("create")
        return super().create(path, mapped=mapped)

    def lock(self, descriptor: int) -> None:
        self._count("lock")
        super().lock(descriptor)

    def link(self, path: Path, name: Path) -> None:
        self._count("link")
        super().link(path, name)

    def unlink(self, path: Path) -> None:
        self._count("unlink")
        super().unlink(path)

    def write(self, descriptor: int, data: bytes) -> int:
        self._count("write")
        return super().write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._count("truncate")
        super().truncate(descriptor, size)

    def allocate(self, descriptor: int, offset: int, length: int) -> None:
        self._count("allocate")
        super().allocate(descriptor, offset, length)

    def map(self, descriptor: int, offset: int, length: int) -> mmap:
        self._count("map")
        return super().map(descriptor, offset, length)

    def datasync(self, descriptor: int) -> None:
        self._count("datasync")
        super().datasync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._count("sync_folder")
        super().sync_folder(folder)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)  # Linux lets go of it whether or not it fails
        self._count("close")

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self._count("read")
        return super().read(path, offset, length)


class ShortFiles(FaultyFiles):
    """A disk that takes only a part of the write that fails, as one does that is just full."""

    def write(self, descriptor: int, data: bytes) -> int:
        try:
            return super().write(descriptor, data)
        except OSError:
            return Files.write(self, descriptor, data[: len(data) // 2])


class FaultyDatabase(Database):
    """Does not answer its n-th question: before it was done, or after."""

    def __init__(self, folder: Path, number: int, *, after: bool) -> None:
        super().__init__(url_of(folder))
        self.calls = 0
        self._number = number
        self._after = after

    async def write(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._once(super().write, work, *args, **kwargs)

    async def read(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._once(super().read, work, *args, **kwargs)

    async def _once(self, ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        fails = self.calls == self._number
        if fails and not self._after:
            raise Unavailable("no answer")
        result = await ask(*args, **kwargs)
        if fails:
            raise Unavailable("no answer, and it was done all the same")
        return result


class Disk(Files):
    """Remembers what has reached the disk: each file as it was when it was synced last, and the names of synced folders."""

    def __init__(self, folder: Path, chance: random.Random, lock: AbstractContextManager[Any] | None = None) -> None:
        """`lock`: held by whoever wants to see one moment."""
        self.removed = 0
        self._folder = folder
        self._chance = chance
        self._synced: dict[Path, bytes] = {}
        self._named: set[Path] = set()
        self._unnamed: dict[Path, bytes] = {}
        """Removed since the folder was synced last: they may be back, as they were synced last."""
        self._paths: dict[int, Path] = {}
        self._lock = lock or threading.RLock()

    def create(self, path: Path, *, mapped: bool) -> int:
        descriptor = super().create(path, mapped=mapped)
        self._paths[descriptor] = path.with_suffix("")  # it is made under a working name
        return descriptor

    def datasync(self, descriptor: int) -> None:
        path = self._paths[descriptor]
        content = path.read_bytes()  # what is written meanwhile may reach the disk, or not
        super().datasync(descriptor)
        with self._lock:
            self._synced[path] = content

    def unlink(self, path: Path) -> None:
        with self._lock:
            super().unlink(path)
            self.removed += 1
            if path in self._synced:
                self._unnamed[path] = self._synced[path]

    def sync_folder(self, folder: Path) -> None:
        with self._lock:
            names, unnamed = set(folder.iterdir()), set(self._unnamed)
        super().sync_folder(folder)
        with self._lock:
            self._named |= names
            for path in unnamed:
                del self._unnamed[path]

    def cut_power(self, left: Path) -> None:
        """Put into `left` what is there afterwards: all that was synced, and any part of the rest."""
        left.mkdir()
        with self._lock:
            for path, content in self._unnamed.items():
                if not path.exists() and self._chance.random() < 0.5:
                    (left / path.name).write_bytes(content)
            for path in self._folder.iterdir():
                if path in self._named or self._chance.random() < 0.5:
                    (left / path.name).write_bytes(self._surviving(path))

    def _surviving(self, path: Path) -> bytes:
        now, synced = path.read_bytes(), self._synced.get(path, b"")
        if path.suffix == ".open":  # a page is the old one or the new one
            pages = range(0, len(now), PAGE)
            old = synced.ljust(len(now), b"\0")
            return b"".join((now if self._chance.random() < 0.5 else old)[at : at + PAGE] for at in pages)
        end = self._chance.randint(len(synced), len(now))
        zeros = self._chance.randint(0, len(now) - end) if self._chance.random() < 0.3 else 0
        return now[:end] + bytes(zeros)  # the size may be there before the data


def copy_of(folder: Path, name: str) -> Path:
    """Of a journal's folder, beside it: what `kill -9` would leave at this moment, mapped memory included."""
    copy = folder.with_name(name)
    shutil.copytree(folder, copy)
    return copy
