"""Models' files that several replicas of one machine share: fetched once, verified at each use, bounded.

    <folder>/<digest>/lock      held shared by whoever uses the file, exclusively by whoever fetches or removes it
    <folder>/<digest>/<digest>  the file; its time of change is that of its last use

Standard library alone. Everybody who uses a folder is one user of the machine: another's is not used.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roost_runtimes.fetch import Artifact, Fetch


def default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"roost-artifacts-{os.getuid()}"


@contextmanager
def kept(artifact: Artifact, *, most_bytes: int, folder: Path | None = None) -> Iterator[Path]:
    """The file, whole and verified, for as long as the context lasts. `most_bytes`: what all that is kept may take; files
    that were not used for the longest go first. Where nothing may or can be kept the file is for this use alone.

    Raises FetchError.
    """
    folder = folder or default_folder()
    if artifact.size > most_bytes or not _is_ours(folder):
        fetch = Fetch(artifact, None)
        try:
            yield fetch.wait()
        finally:
            fetch.clean_up()
        return
    place = folder / artifact.digest
    with _lock(place) as lock:
        fetch = Fetch(artifact, place)  # one that is there is hashed, and taken if it is right
        try:
            path = fetch.wait()
        except BaseException:
            fetch.clean_up()
            raise
        os.utime(path)
        fcntl.flock(lock, fcntl.LOCK_SH)
        _make_room(folder, most_bytes, but=artifact.digest)
        yield path


def _is_ours(folder: Path) -> bool:
    """Whether nobody else may write there; made where it is missing."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


@contextmanager
def _lock(place: Path) -> Iterator[int]:
    """Exclusively; waits for whoever fetches the same file now."""
    while True:
        place.mkdir(exist_ok=True)
        try:
            lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # somebody removes it just now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_still(place / "lock", lock):
                yield lock
                return
        finally:
            os.close(lock)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _make_room(folder: Path, most_bytes: int, *, but: str) -> None:
    """Remove what nobody uses now, until all of it fits."""
    found: list[tuple[float, int, Path]] = []
    for place in folder.iterdir():
        with suppress(OSError):
            state = (place / place.name).stat()
            found.append((state.st_mtime, state.st_size, place))
    total = sum(size for _, size, _ in found)
    for _, size, place in sorted(found):
        if total <= most_bytes:
            return
        if place.name != but and _removed(place):
            total -= size


def _removed(place: Path) -> bool:
    """False when somebody uses it."""
    try:
        lock = os.open(place / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(place, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
