"""SQLite's files on a disk that remembers what was synced: a layer over SQLite's own file system, by ctypes.

For a process of its own, before its first connection: every later one goes through the layer.
"""

import ctypes
import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from metering_faulty import PAGE

_METHODS_BYTES = 19 * 8
"""sqlite3_io_methods, version 3: a number and eighteen functions."""
_SYNC = 5
"""The place of xSync among them."""
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_SYNCS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 15),
    )


def library() -> ctypes.CDLL | None:
    """The SQLite that Python's module uses; None where it is a part of that module and cannot be spoken to."""
    import _sqlite3  # noqa: F401 - loads it

    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split()[-1] for line in maps if "sqlite3" in line}
    for path in sorted(paths, key=lambda path: "libsqlite3" not in path):
        found = ctypes.CDLL(path)
        if hasattr(found, "sqlite3_vfs_register"):
            return found
    return None


class SqliteDisk:
    """Call `install` once. `lock` is held while a sync is noted, so that whoever holds it sees one moment."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.syncs = 0
        self._lock = lock
        self._synced: dict[Path, bytes] = {}
        self._paths: dict[int, Path] = {}
        self._patched: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._kept: list[object] = []

    def install(self, sqlite: ctypes.CDLL) -> None:
        sqlite.sqlite3_vfs_find.restype = ctypes.c_void_p
        address = sqlite.sqlite3_vfs_find(None)
        real = _Vfs.from_address(address)
        layer = _Vfs.from_buffer_copy(real)
        opens = _OPEN(real.open)

        def opened(_vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
            status = int(
                opens(address, name, file, flags, out)
            )  # the very same text: SQLite keeps it, and looks around it
            if status == 0 and name is not None:
                self._opened(Path(os.fsdecode(ctypes.string_at(name))), file)
            return status

        callback = _OPEN(opened)
        layer.name, layer.open = b"remembers", ctypes.cast(callback, ctypes.c_void_p).value
        self._kept += [layer, opens, callback]
        if sqlite.sqlite3_vfs_register(ctypes.byref(layer), 1) != 0:
            raise RuntimeError("SQLite did not take the layer")

    def _opened(self, path: Path, file: int) -> None:
        with self._lock:
            self._paths[file] = path
            if path not in self._synced and path.exists() and not path.name.endswith("-wal"):
                self._synced[path] = path.read_bytes()  # what was there before is on the disk
        place = ctypes.c_void_p.from_address(file)
        assert place.value is not None
        if place.value not in self._patched:
            self._patched[place.value] = self._with_our_sync(place.value)
        place.value = ctypes.addressof(self._patched[place.value])

    def _with_our_sync(self, methods: int) -> "ctypes.Array[ctypes.c_char]":
        copy = ctypes.create_string_buffer(ctypes.string_at(methods, _METHODS_BYTES), _METHODS_BYTES)
        slot = ctypes.c_void_p.from_buffer(copy, _SYNC * 8)
        assert slot.value is not None
        really: Callable[[int, int], int] = _SYNCS(slot.value)

        def sync(file: int, flags: int) -> int:
            with self._lock:
                content = self._paths[file].read_bytes()
                status = really(file, flags)
                if status == 0:
                    self.syncs += 1
                    self._synced[self._paths[file]] = content
            return status

        callback = _SYNCS(sync)
        self._kept += [really, callback]
        slot.value = ctypes.cast(callback, ctypes.c_void_p).value
        return copy

    def cut_power(self, database: Path, left: Path, chance: random.Random) -> None:
        """Put into `left` what is there of a database afterwards: all that was synced, and any part of the rest. `lock` is
        held by the caller.
        """
        for path in (database, database.with_name(database.name + "-wal")):
            if path.exists() and (path in self._synced or chance.random() < 0.5):
                (left / path.name).write_bytes(_surviving(path.read_bytes(), self._synced.get(path, b""), chance))


def _surviving(now: bytes, synced: bytes, chance: random.Random) -> bytes:
    """Each page is the old one or the new one; a file that grew is as long as it was, or longer."""
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    size = chance.choice((len(synced), len(now), max(len(synced), len(now))))
    old, new = synced.ljust(size, b"\0"), now.ljust(size, b"\0")
    return b"".join((new if chance.random() < share else old)[at : min(at + PAGE, size)] for at in range(0, size, PAGE))
