"""The processes below a given one, read from /proc (Linux)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    name: str
    started: int
    """Clock ticks since boot: with the pid, it tells a process from a later one with the same pid."""

    @property
    def private_bytes(self) -> int:
        """Memory that nobody shares with it; 0 when it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def descendants(pid: int) -> list[Process]:
    """Children, their children and so on, parents first; what has ended but was not waited for is left out."""
    everything = [process for entry in Path("/proc").iterdir() if entry.name.isdigit() and (process := _read(entry))]
    found: list[Process] = []
    parents = {pid}
    while parents:
        generation = [process for process in everything if process.parent in parents]
        found += generation
        parents = {process.pid for process in generation}
    return found


def alive(process: Process) -> bool:
    now = _read(Path("/proc") / str(process.pid))
    return now is not None and now.started == process.started


def _read(folder: Path) -> Process | None:
    """None when the process is gone, or a zombie."""
    try:
        stat = (folder / "stat").read_text()
    except OSError:
        return None
    # `pid (name) state parent …`; the name may itself hold spaces and parentheses.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    if fields[0] == "Z":
        return None
    return Process(pid=int(folder.name), parent=int(fields[1]), name=name, started=int(fields[19]))
