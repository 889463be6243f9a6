"""A model for tests of the local engine: what a program in a replica may try, and how much it may say.

Its artifact is a JSON file, as the sleeper's, with more keys:
    tries    at load it tries what an attacker would, and prints how each try went     chatter   lines printed by each run
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roost_runtimes.model import Array, RunControl
from sleeper_model import SleeperModel


class IntruderModel(SleeperModel):
    def __init__(self, path: str, *, name: str, version: str, baked: bool = False) -> None:
        super().__init__(path, name=name, version=version, baked=baked)
        behaviour = json.loads(Path(path).read_text())
        self._chatter = behaviour.get("chatter", 0)
        if behaviour.get("tries"):
            for what, attempt in TRIES.items():
                print(f"try {what}: {_outcome(attempt)}")
            print(f"environment: {json.dumps(sorted(os.environ))}")
            print(f"descriptors: {json.dumps(_descriptors())}", flush=True)

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, control: RunControl | None = None
    ) -> list[Array]:
        for number in range(self._chatter):
            sys.stdout.write(f"line {number} " + "x" * 200 + "\n")
        if self._chatter:
            sys.stdout.write("y" * 1_000_000 + "\n")  # one line without end
            sys.stdout.flush()
        return super().run(feeds, outputs, control)


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "worked"


def _descriptors() -> list[str]:
    """What is open, by kind: `socket`, `pipe`, a device or a file."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()).partition(":")[0])
        except FileNotFoundError:  # the folder's own
            continue
    return sorted(found)


TRIES: dict[str, Callable[[], Any]] = {
    "internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": os.fork,
    "kill the zygote": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill by pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL),
}
if os.geteuid() != 0:  # root may trace anybody
    TRIES["memory of the zygote"] = lambda: Path(f"/proc/{os.getppid()}/mem").read_bytes()
