"""The filter is tried from inside: a child gives everything up, then tries each thing and says what the kernel said."""

import json
import os
import subprocess
import sys

import pytest

_ATTEMPTS = """
import ctypes, json, os, socket, subprocess, sys, threading
from roost_runtimes import sandbox

victim = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def syscall(*arguments):
    ctypes.set_errno(0)
    if libc.syscall(*[ctypes.c_long(a) for a in arguments]) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def thread():
    ran = []
    one = threading.Thread(target=lambda: ran.append(1))
    one.start()
    one.join()
    assert ran

attempts = {
    "socket": socket.socket,
    "fork": os.fork,
    "exec": lambda: subprocess.run(["true"]),
    "kill": lambda: os.kill(victim, 0),
    "rt_sigqueueinfo": lambda: syscall(129, victim, 0, 0),
    "prlimit of another": lambda: syscall(302, victim, 7, 0, 0),
    "ptrace": lambda: syscall(101, 16, victim, 0, 0),
    "socketpair": socket.socketpair,
    "own limits": lambda: __import__("resource").getrlimit(7),
    "thread": thread,
}
assert sandbox.forbid_network_and_exec()
said = {}
for name, attempt in attempts.items():
    try:
        attempt()
        said[name] = "done"
    except PermissionError:
        said[name] = "refused"
    except OSError as error:
        said[name] = f"errno {error.errno}"
print(json.dumps(said))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attempts use x86_64 system call numbers")
def test_what_was_given_up_is_refused_and_the_rest_still_works() -> None:
    command = [sys.executable, "-c", _ATTEMPTS, str(os.getpid())]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    said = json.loads(ended.stdout)
    allowed = {"socketpair", "own limits", "thread"}
    assert said == {name: "done" if name in allowed else "refused" for name in said}


def test_an_abort_still_ends_the_process() -> None:
    program = "import os; from roost_runtimes import sandbox; sandbox.forbid_network_and_exec(); os.abort()"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == -6


def test_a_child_ends_with_the_parent_that_it_named() -> None:
    """A parent that is gone before the child asks is noticed by its pid."""
    program = "import sys; from roost_runtimes import sandbox; sandbox.die_with_parent(int(sys.argv[1])); print('on')"
    for parent, said in ((os.getpid(), "on\n"), (1 << 22, "")):
        command = [sys.executable, "-c", program, str(parent)]
        assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == said
