"""A model for tests of the local engine: what a program in a replica may try, and how much harm it may do.

Its artifact is a JSON file, as the sleeper's, with more keys:
    tries      at load it tries what an attacker would, and prints how each try went
    files      names and paths: at load it tries to read and to write each, and prints how that went
    chatter    lines printed by each run
    deed       a name in DEEDS: what it does when asked to run for a million seconds
    at_load    a name in DEEDS: what it does while it loads
    says       hexadecimal: what the deed `lie` writes to the engine, `times` over (default 1)
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roost_runtimes.model import Array, RunControl
from sleeper_model import SleeperModel

DO_IT = 1e6
"""Seconds to ask for to have the deed done."""


class IntruderModel(SleeperModel):
    def __init__(self, path: str, *, name: str, version: str, baked: bool = False) -> None:
        super().__init__(path, name=name, version=version, baked=baked)
        self._behaviour = behaviour = json.loads(Path(path).read_text())
        self._chatter = behaviour.get("chatter", 0)
        for what, victim in behaviour.get("files", {}).items():
            print(f"try to read {what}: {_outcome(lambda v=victim: os.close(os.open(v, os.O_RDONLY)))}")
            print(f"try to write {what}: {_outcome(lambda v=victim: os.close(os.open(v, os.O_WRONLY)))}")
        if behaviour.get("tries"):
            for what, attempt in TRIES.items():
                print(f"try {what}: {_outcome(attempt)}")
            print(f"environment: {json.dumps(sorted(os.environ))}")
            print(f"descriptors: {json.dumps(_descriptors())}", flush=True)
        if behaviour.get("files"):
            print("tried", flush=True)
        if "at_load" in behaviour:
            DEEDS[behaviour["at_load"]](behaviour)

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, control: RunControl | None = None
    ) -> list[Array]:
        if float(feeds["seconds"][0]) == DO_IT:
            DEEDS[self._behaviour["deed"]](self._behaviour)
            feeds = {"seconds": feeds["seconds"] * 0}
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
    for number in range(256):
        try:
            found.append(str(Path(f"/proc/self/fd/{number}").readlink()).partition(":")[0])
        except FileNotFoundError:
            continue
    return sorted(found)


def _link() -> socket.socket:
    """The link to the engine: of the sockets here the one that somebody else made."""
    for number in range(256):
        try:
            found = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        if int.from_bytes(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little") != os.getpid():
            found.setblocking(True)
            return found
    raise LookupError("no link")


# Deeds.


def _eat_memory(_: object) -> None:
    eaten = []
    while True:
        eaten.append(b"x" * (4 << 20))


def _eat_shared_memory(_: object) -> None:
    """Where no limit on private memory counts it: a file in memory."""
    descriptor = os.memfd_create("hidden")
    os.write(descriptor, b"x" * 4096)


def _open_files(_: object) -> None:
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(os.dup(0))
    finally:
        print(f"opened {len(opened)}", flush=True)
        for number in opened:
            os.close(number)


def _start_threads(_: object) -> None:
    """As many as there may be: each waits for ever."""
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def _quit_soon(_: object) -> None:
    threading.Timer(0.02, lambda: os._exit(3)).start()


def _babble(_: object) -> None:
    """For two seconds, as fast as it goes, and never a whole line; then as many empty ones as fit into two more."""
    for piece in (b"z" * 65536, b"\n" * 65536):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            os.write(1, piece)


def _lie(behaviour: Mapping[str, Any]) -> None:
    link, what = _link(), bytes.fromhex(behaviour["says"])
    for _ in range(behaviour.get("times", 1)):
        link.sendall(what)
    time.sleep(60)


DEEDS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "eat memory": _eat_memory,
    "eat shared memory": _eat_shared_memory,
    "open files": _open_files,
    "start threads": _start_threads,
    "abort": lambda _: os.abort(),
    "crash": lambda _: ctypes.string_at(0),
    "quit soon": _quit_soon,
    "babble": _babble,
    "lie": _lie,
}


TRIES: dict[str, Callable[[], Any]] = {
    "internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "datagrams to any": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": os.fork,
    "kill the zygote": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill by pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL),
    "memory of the zygote": lambda: Path(f"/proc/{os.getppid()}/mem").read_bytes(),
    "environment of the zygote": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
}
