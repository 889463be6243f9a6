"""The zygote: a single-threaded process with everything imported, forked into replicas.

The engine starts it with one end of a SOCK_SEQPACKET pair. Each message `fork` makes one spare: a child that has its own
link to the engine, has opened and run one small session already (so that its pages are touched), and waits to be handed a
model. The zygote answers with the child's pid and three descriptors (link, pidfd, the child's output), and later says how
the child ended. When the engine goes away, so does the zygote, and the kernel ends its children with it.
"""

import argparse
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from roost_runtimes import landlock, sandbox
from roost_runtimes.confinement import ReplicaConfinement, python_folders
from roost_runtimes.factories import ONNX, ModelFactory, load_factory
from roost_runtimes.forking import prepare_to_fork
from roost_runtimes.link import Assignment, Confine, serve_link
from roost_runtimes.logs import configure_logs
from roost_runtimes.rehearsal import rehearse

_REHEARSED = 20
"""Python's interpreter specialises code that has run some times; children inherit that too."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="roost-zygote", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="inherited end of the control socket")
    parser.add_argument("--parent", type=int, required=True, help="pid of the engine's process")
    parser.add_argument("--model-factory", default=ONNX, help="module:callable")
    options = parser.parse_args()
    sandbox.die_with_parent(options.parent)
    sandbox.set_process_name("roost:zygote")
    sandbox.refuse_inspection()
    _close_inherited(options.control_fd)
    factory = load_factory(options.model_factory)
    python_folders()  # looked for once, not by every child
    rehearse(factory, requests=_REHEARSED)  # a child then has half of the pages to copy
    control = socket.socket(fileno=options.control_fd)
    _serve(control, factory)
    return 0


def _close_inherited(keep: int) -> None:
    """Close whatever else came along from the engine: some event loops leave copies of the server's log open."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _serve(control: socket.socket, factory: ModelFactory) -> None:
    wakeup_read, wakeup_write = prepare_to_fork()
    in_force = {"seccomp": sandbox.can_filter(), "landlock": landlock.abi()}
    control.send(json.dumps({"zygote": os.getpid(), "in_force": in_force}).encode())
    while True:
        readable, _, _ = select.select([control.fileno(), wakeup_read], [], [])
        if wakeup_read in readable:
            os.read(wakeup_read, 4096)
            _reap(control)
        if control.fileno() in readable:
            message = control.recv(64)
            if not message:
                return
            _fork_spare(control, factory, (wakeup_read, wakeup_write))


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        try:
            control.send(json.dumps({"exited": pid, "code": os.waitstatus_to_exitcode(status)}).encode())
        except OSError:
            return  # the engine is gone; the next read says so


def _fork_spare(control: socket.socket, factory: ModelFactory, inherited: tuple[int, int]) -> None:
    zygote, pid = os.getpid(), -1
    with ExitStack() as opened:  # closed when the engine has its copies, or when it came to nothing
        try:
            engine_end, replica_end = (opened.enter_context(end) for end in socket.socketpair())
            output_read, output_write = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, output_read)
            opened.callback(os.close, output_write)
            pid = os.fork()
            if pid == 0:
                unwanted = (control.detach(), engine_end.detach(), output_read, *inherited)
                _become_spare(zygote, factory, link=replica_end, output=output_write, unwanted=unwanted)
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # this machine has no processes or descriptors left; what runs must not suffer
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
            control.send(json.dumps({"failed": error.strerror or "fork failed"}).encode())
            return
        opened.callback(os.close, pidfd)
        message = json.dumps({"forked": pid}).encode()
        socket.send_fds(control, [message], [engine_end.fileno(), pidfd, output_read])


def _become_spare(
    zygote: int, factory: ModelFactory, *, link: socket.socket, output: int, unwanted: Sequence[int]
) -> None:
    """The child's life; never returns."""
    status = 70
    try:
        sandbox.die_with_parent(zygote)
        sandbox.set_process_name("roost:spare")
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (output, *unwanted):
            os.close(descriptor)
        configure_logs()
        sandbox.be_killed_first()
        sandbox.drop_privileges()
        if not sandbox.forbid_network_and_exec():
            logging.getLogger(__name__).warning("sandbox_unavailable")
        rehearse(factory, requests=1)
        # Once more on a thread, which then leaves its stack and its heap to the one that will run the model.
        thread = threading.Thread(target=rehearse, args=(factory,), kwargs={"requests": 1})
        thread.start()
        thread.join()
        status = serve_link(link, factory, _confinement())
    except BaseException:  # noqa: BLE001 - the child must not unwind into the zygote's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _confinement() -> Confine:
    prepared = ReplicaConfinement(python_folders())

    def confine(assignment: Assignment) -> None:
        prepared.close_around(Path(assignment.path), baked=assignment.baked, memory_bytes=assignment.memory_bytes)

    return confine


if __name__ == "__main__":
    sys.exit(main())
