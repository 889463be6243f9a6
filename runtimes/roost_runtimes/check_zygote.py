"""The checkers' zygote: one single-threaded process with everything imported, that forks a checker for each file.

The gateway starts it with one end of a SOCK_SEQPACKET pair. Each message is a file to judge, with two descriptors: where
the verdict goes, and where everything else goes that the checker prints. The child lowers its limits and gives up the
network and other programs before it reads the first byte; this process never looks at a file. It answers with the
child's pid and pidfd, and later says how the child ended, when all that the child forked is dead, too. When the gateway
goes away, so does the zygote, and the kernel ends its children with it.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from roost_runtimes import sandbox
from roost_runtimes.bake import quiet_environment
from roost_runtimes.check import judge, say
from roost_runtimes.check_limits import limit_this_process
from roost_runtimes.forking import prepare_to_fork

Judge = Callable[[dict[str, Any], int], None]
"""Judges a job in the child and writes its verdict to the descriptor."""

_LARGEST_JOB = 64 * 1024


def main(arguments: list[str] | None = None, *, load: Callable[[], Judge] | None = None) -> int:
    """`load` imports what the children need. An ImportError in it is told to the gateway as what is missing."""
    parser = argparse.ArgumentParser(prog="roost-check-zygote", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="inherited end of the control socket")
    parser.add_argument("--parent", type=int, required=True, help="pid of the gateway")
    options = parser.parse_args(arguments)
    sandbox.die_with_parent(options.parent)
    sandbox.set_process_name("roost-checks")
    sandbox.refuse_inspection()
    os.closerange(3, options.control_fd)
    os.closerange(options.control_fd + 1, os.sysconf("SC_OPEN_MAX"))
    control = socket.socket(fileno=options.control_fd)
    quiet_environment()
    try:
        work = (load or _load_checks)()
    except ImportError as error:
        control.send(json.dumps({"missing": error.name}).encode())
        return 0
    with suppress(OSError):  # the gateway is gone
        _Zygote(control, work).serve()
    return 0


def _load_checks() -> Judge:
    from roost_runtimes.check_whole import check, warm_up  # noqa: PLC0415  numpy and onnxruntime come with it

    warm_up()

    def work(job: dict[str, Any], verdict: int) -> None:
        limit_this_process(**job["limits"])
        say(verdict, judge(check, Path(job["model"]), Path(job["bake_dir"])))

    return work


class _Zygote:
    def __init__(self, control: socket.socket, work: Judge) -> None:
        self._control = control
        self._work = work
        self._jobs: dict[int, int] = {}
        """Number of the job by the pid of its checker."""

    def serve(self) -> None:
        """Until the gateway closes its end."""
        woken, wakeup = prepare_to_fork()
        self._tell({"ready": os.getpid()})
        while True:
            readable, _, _ = select.select([self._control.fileno(), woken], [], [])
            if woken in readable:
                os.read(woken, 4096)
                self._reap()
            if self._control.fileno() in readable:
                message, descriptors, _, _ = socket.recv_fds(self._control, _LARGEST_JOB, 2)
                if not message:
                    return
                self._fork(json.loads(message), descriptors, unwanted=(woken, wakeup))

    def _tell(self, document: dict[str, Any]) -> None:
        self._control.send(json.dumps(document).encode())

    def _reap(self) -> None:
        """Kill what a checker forked before its pid is given back: until then, no other group can have its number."""
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                with suppress(ProcessLookupError):
                    os.killpg(found.si_pid, signal.SIGKILL)
                _, status = os.waitpid(found.si_pid, 0)
                job = self._jobs.pop(found.si_pid)
                self._tell({"job": job, "status": os.waitstatus_to_exitcode(status)})

    def _fork(self, job: dict[str, Any], descriptors: list[int], *, unwanted: tuple[int, int]) -> None:
        verdict, output = descriptors
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            self._tell({"job": job["job"], "failed": True})
        else:
            if pid == 0:
                self._become_checker(zygote, job, verdict, output, (self._control.detach(), *unwanted))
            self._jobs[pid] = job["job"]
            pidfd = os.pidfd_open(pid)
            socket.send_fds(self._control, [json.dumps({"job": job["job"], "pid": pid}).encode()], [pidfd])
            os.close(pidfd)
        os.close(verdict)
        os.close(output)

    def _become_checker(
        self, zygote: int, job: dict[str, Any], verdict: int, output: int, unwanted: tuple[int, ...]
    ) -> None:
        """The child's life; never returns."""
        status = 70
        try:
            sandbox.die_with_parent(zygote)
            sandbox.set_process_name("roost-check")
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(output, 1)  # a library that prints must not garble the verdict
            os.dup2(output, 2)
            for descriptor in (output, *unwanted):
                os.close(descriptor)
            os.chdir(job["folder"])
            os.environ["HOME"] = os.environ["TMPDIR"] = job["folder"]
            self._work(job, verdict)
            status = 0
        except BaseException:  # noqa: BLE001 - the child must not unwind into the zygote's loop
            traceback.print_exc()
        finally:
            with suppress(OSError):  # nobody listens any more
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
