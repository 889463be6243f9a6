"""Segment files: where the journal's lines lie, and how anyone can tell whether their writer still lives.

A writer holds a lock (flock) on its segment for as long as it may write. The kernel drops the lock when the process
ends, however it ends, so a segment whose lock can be had is sealed: it will never change again.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from roost_platform.metering.files import Files, create_locked

SUFFIX = ".jsonl"
DAMAGED = ".damaged"


class Segment:
    """One file that this process made and may append to."""

    def __init__(self, path: Path, descriptor: int, files: Files) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        """Bytes up to the end of the last whole batch."""
        self._files = files

    @classmethod
    def create(cls, folder: Path, name: str, files: Files) -> "Segment":
        """Make and lock `<name>.jsonl`. Raises OSError (FileExistsError when that segment is there)."""
        path = folder / f"{name}{SUFFIX}"
        return cls(path, create_locked(files, path), files)

    def write(self, batch: bytes) -> None:
        """Append a batch whole, or raise OSError; after that the segment must be abandoned."""
        written = self._files.write(self.descriptor, batch)
        if written < len(batch):
            raise OSError(f"only {written} of {len(batch)} bytes could be written")
        self.size += written

    def abandon(self) -> None:
        """After a failed write: cut back to the last whole batch and never write to this file again.

        The cut only tidies up (a batch without its mark does not count); a file in use again after a cut could show
        a reader the head of one batch and the tail of another.
        """
        with suppress(OSError):  # the disk that failed the write may fail this too, and nothing depends on it
            if self.size:
                self._files.truncate(self.descriptor, self.size)
            else:
                self._files.unlink(self.path)

    def sync(self) -> None:
        self._files.datasync(self.descriptor)

    def close(self) -> None:
        """Seal it: the lock goes with the descriptor."""
        self._files.close(self.descriptor)


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
