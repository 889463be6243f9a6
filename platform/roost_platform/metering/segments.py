"""Segment files: where the journal's lines lie, and how anyone can tell whether their writer still lives.

A writer holds a lock (flock) on its segment for as long as it may write. The kernel drops the lock when the process
ends, however it ends, so a segment whose lock can be had is sealed: it will never change again.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".jsonl"
_UNLOCKED = ".new"
DAMAGED = ".damaged"


class Segment:
    """One file that this process made and may append to."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        """Bytes up to the end of the last whole batch."""

    @classmethod
    def create(cls, folder: Path, name: str) -> "Segment":
        """Make and lock `<name>.jsonl`. Raises OSError (FileExistsError when that segment is there)."""
        path = folder / f"{name}{SUFFIX}"
        unlocked = folder / f"{name}{_UNLOCKED}"
        descriptor = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The name appears with the lock already held; otherwise a shipper could take it for sealed and delete it.
            # A link, unlike a rename, never replaces a file.
            os.link(unlocked, path)
        except OSError:
            os.close(descriptor)
            raise
        finally:
            unlocked.unlink(missing_ok=True)
        return cls(path, descriptor)

    def write(self, batch: bytes) -> None:
        """Append a batch whole, or raise OSError; after that the segment must be abandoned."""
        written = os.write(self.descriptor, batch)
        if written < len(batch):
            raise OSError(f"only {written} of {len(batch)} bytes could be written")
        self.size += written

    def abandon(self) -> None:
        """After a failed write: cut back to the last whole batch and never write to this file again.

        The cut only tidies up (a batch without its mark does not count); a file in use again after a cut could show
        a reader the head of one batch and the tail of another.
        """
        try:
            if self.size:
                os.ftruncate(self.descriptor, self.size)
            else:
                self.path.unlink()
        except OSError:  # the disk that failed the write may fail this too, and nothing depends on it
            return

    def sync(self) -> None:
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Seal it: the lock goes with the descriptor."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Found:
    """A segment on disk, of this run or of another."""

    name: str
    path: Path
    size: int


def find_segments(folder: Path) -> list[Found]:
    """All segments, by name; none when there is no folder yet."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    try:
                        size = entry.stat().st_size
                    except FileNotFoundError:  # shipped and deleted since it was listed
                        continue
                    found.append(Found(entry.name.removesuffix(SUFFIX), Path(entry.path), size))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda segment: segment.name)


def is_sealed(path: Path) -> bool:
    """True when no process can append to this segment any more. Raises FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_leftovers(folder: Path) -> None:
    """Delete what writers left that were killed between making a file and naming it (such files are empty)."""
    for path in folder.glob(f"*{_UNLOCKED}"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
