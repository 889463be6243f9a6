"""The data folder: made once, used by one process at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from roost_platform.domain.errors import Conflict, Unavailable


class DataFolder:
    """Holds a lock on `<folder>/lock` from when it is made until `release`, or until the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Make the folder (mode 0700) when absent, and lock it.

        Raises Conflict when another process has it, Unavailable when the folder cannot be used.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"the data folder cannot be used: {error.strerror}", code="data_folder") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            who = f" (process {holder})" if holder.isdigit() else ""
            raise Conflict(f"another Roost{who} already uses this data folder", code="data_folder_in_use") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next process in. The file stays: removing it would let two processes lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
