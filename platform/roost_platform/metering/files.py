"""What metering asks of the operating system, in one place: so that a test can let any one of these calls fail."""

import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_UNLOCKED = ".new"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_MAPPED = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Files:
    """Each method is a call that may fail: all raise OSError."""

    def create(self, path: Path, *, mapped: bool) -> int:
        """Make a file that was not there, to be mapped or to be appended to; its descriptor."""
        return os.open(path, _MAPPED if mapped else _APPEND, 0o600)

    def lock(self, descriptor: int) -> None:
        """Hold the file until the process ends, in whatever way, or all that came of the descriptor is closed."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def link(self, path: Path, name: Path) -> None:
        """Give a file a second name. Unlike a rename this never replaces another one."""
        os.link(path, name)

    def unlink(self, path: Path) -> None:
        """No harm where it is gone already."""
        path.unlink(missing_ok=True)

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def allocate(self, descriptor: int, offset: int, length: int) -> None:
        """Take the room on the disk: a store into a mapped page that has none would end the process."""
        os.posix_fallocate(descriptor, offset, length)

    def map(self, descriptor: int, offset: int, length: int) -> mmap.mmap:
        return mmap.mmap(descriptor, length, offset=offset)

    def datasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Make the names of new files survive a power cut."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


REAL_FILES = Files()


def create_locked(
    files: Files, path: Path, *, mapped: bool = False, prepare: Callable[[int], None] = lambda _: None
) -> int:
    """Make a file and lock it, `prepare` it, and only then give it its name: nobody can take it for a dead run's.

    The descriptor is the caller's. Raises OSError (FileExistsError when `path` is there).
    """
    unlocked = path.with_name(path.name + _UNLOCKED)
    descriptor = files.create(unlocked, mapped=mapped)
    try:
        files.lock(descriptor)
        prepare(descriptor)
        files.link(unlocked, path)
    except OSError:
        files.close(descriptor)
        raise
    finally:
        with suppress(OSError):  # the next start removes it
            files.unlink(unlocked)
    return descriptor


def is_sealed(path: Path) -> bool:
    """True when no process can write to this file any more. Raises FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_leftovers(folder: Path) -> None:
    """Delete what writers left that were killed between making a file and naming it: nothing in it ever counted."""
    for path in folder.glob(f"*{_UNLOCKED}"):
        path.unlink(missing_ok=True)
