"""A fork server: has the libraries of Roost's runtime imported and forks for each program, which saves it half a second.

What is started is a process of its own, with its own environment, output and session; it dies with this one.
Messages on standard input and output, one JSON document a line:
    -> {"id", "module", "arguments", "env", "log"}        <- {"id", "pid"}        <- {"pid", "code"} when it has ended
"""

import ctypes
import json
import os
import runpy
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

_PRELOADED = (
    "numpy",
    "uvicorn",
    "uvloop",
    "orjson",
    "prometheus_client",
    "roost_runtimes.core",
    "roost_runtimes.server",
)
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """The forking side: imports, then waits for orders until its standard input ends."""
    for module in _PRELOADED:
        __import__(module)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    pending = b""
    while True:
        readable, _, _ = select.select([0, wakeup_read], [], [])
        if wakeup_read in readable:
            os.read(wakeup_read, 4096)
            _reap()
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *orders, pending = (pending + data).split(b"\n")
            for order in orders:
                _fork(json.loads(order))


def _reap() -> None:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _tell({"pid": found[0], "code": os.waitstatus_to_exitcode(found[1])})


def _fork(order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        _tell({"id": order["id"], "pid": pid})
        return
    status = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = [order["module"], *order["arguments"]]
        status = _run(order["module"])
    except BaseException:  # noqa: BLE001 - the child must not unwind into the loop that forked it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _tell(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
