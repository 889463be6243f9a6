"""Child processes and what they cost: CPU time and memory of a whole process tree, read from /proc (Linux)."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_S = 40.0
_ports = itertools.count(20_000 + os.getpid() % 8_000)


def free_port() -> int:
    """A port that nobody listens on, nor on the two after it (some servers take three); below the ephemeral ones."""
    for port in _ports:
        with contextlib.suppress(OSError):
            for number in range(port, port + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            next(_ports), next(_ports)
            return port
    raise AssertionError("the counter does not end")


def wait_until(condition: Callable[[], bool], *, limit_s: float, what: str, every_s: float = 0.005) -> None:
    """Raises TimeoutError, naming `what`, when `condition` does not hold in time."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit_s:g} s")
        time.sleep(every_s)


class Tree:
    """A child process with its descendants; its output goes to a file."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: dict[str, str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith("ROOST_") and k != "PYTHONDONTWRITEBYTECODE"
        }
        environment = inherited | {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"} | (environment or {})
        self.log = log
        with log.open("ab") as output:
            self.started = time.perf_counter()
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def pids(self) -> list[int]:
        """The process and its descendants, parents first."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:  # grows while it is walked
            found += children.get(pid, [])
        return found

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, those of children that have ended included; `own` is the first process, `below` the rest.

        What a process leaves to its parent when it ends counts as the parent's children's: it is `below` as well.
        """
        own = below = 0
        for pid in self.pids():
            fields = _stat(pid)
            if fields is None:
                continue
            spent, left = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            if pid == self.process.pid:
                own, below = own + spent, below + left
            else:
                below += spent + left
        return {"own": own / _TICKS_PER_S, "below": below / _TICKS_PER_S}

    def pss_mib(self) -> float:
        """Memory of the tree: what is shared by several processes counts once."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def stop(self) -> None:
        pids = self.pids()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_S)
        for pid in pids[1:]:
            # Only what is still of our session: the number may belong to somebody else by now.
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        if self.alive:
            self.process.kill()
        self.process.wait()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None when it is gone, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields
