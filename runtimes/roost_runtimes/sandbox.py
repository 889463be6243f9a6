"""What a process that handles tenants' models gives up: the network, other programs, other processes, root's powers.

An ONNX file is a program, and the libraries that run it have had memory-safety bugs. The seccomp filter here takes away
what such a bug would be used for. It needs no privilege; where the kernel lacks it the functions say so by returning
False, and the caller decides. Linux only; numbers are from the kernel's own system call tables.
"""

import contextlib
import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | 1  # EPERM
_ABSENT = 0x00050000 | 38  # ENOSYS: glibc then falls back from clone3 to clone, whose flags a filter can read

_LD, _JEQ, _JSET, _JGE, _AND, _RET = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARG0, _OFFSET_ARG1 = 0, 4, 16, 24
_CLONE_THREAD = 0x10000

# Sockets, programs, other processes' memory and signals, mounts, namespaces, keys, memory and queues that outlive their
# process (System V and POSIX), and io_uring (which could do the rest).
_DENIED = {
    "x86_64": (
        41, 42, 43, 49, 50, 288,  # socket connect accept bind listen accept4
        57, 58, 59, 322,  # fork vfork execve execveat
        62, 129, 200, 297, 424, 438,  # kill rt_sigqueueinfo tkill rt_tgsigqueueinfo pidfd_send_signal pidfd_getfd
        101, 310, 311,  # ptrace process_vm_readv process_vm_writev
        155, 161, 165, 166, 272, 308,  # pivot_root chroot mount umount2 unshare setns
        246, 248, 249, 250, 298, 304, 321, 323,  # kexec_load *key* perf_event_open open_by_handle_at bpf userfaultfd
        29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241, 242, 243, 244, 245,  # shm* sem* msg* mq_*
        425, 426, 427,  # io_uring
    ),
    "aarch64": (
        198, 203, 202, 200, 201, 242,
        221, 281,
        129, 138, 130, 240, 424, 438,
        117, 270, 271,
        41, 51, 40, 39, 97, 268,
        104, 217, 218, 219, 241, 265, 280, 282,
        194, 195, 196, 197, 190, 191, 192, 193, 186, 187, 188, 189, 180, 181, 182, 183, 184, 185,
        425, 426, 427,
    ),
}  # fmt: skip
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_SOCK_TYPE_MASK, _SOCK_STREAM = 0xF, 1
_OWN_PROCESS_ONLY = {"x86_64": (234, 302), "aarch64": (131, 261)}  # tgkill, prlimit64
_X32_BIT = 0x40000000

_OOM_SCORE = 900
"""Of 1000: when the machine runs out of memory, the kernel ends such a process before any other."""
_CAPABILITIES_V3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to SIGKILL this process when the thread that forked it ends.

    `parent` is the pid that the parent itself named: when it is not ours any more, it ended before we asked, and so do
    we. (That the parent is process 1 proves nothing: in a container it may well be.)
    """
    _prctl(_PR_SET_PDEATHSIG, 9)
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def set_process_name(name: str) -> None:
    """Show `name` (cut to 15 bytes) as this process's name in ps and top."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def refuse_inspection() -> None:
    """Let no process of the same user read or write our memory, or trace us; no core file is written either."""
    _prctl(_PR_SET_DUMPABLE, 0)


def be_killed_first() -> None:
    """Stand ahead of every other process when the kernel must end one for want of memory."""
    shown = _prctl(_PR_GET_DUMPABLE)
    _prctl(_PR_SET_DUMPABLE, 1)  # else the file belongs to root
    with contextlib.suppress(OSError):  # there is no /proc, or one that is read-only
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), "utf-8")
    _prctl(_PR_SET_DUMPABLE, shown)


def drop_privileges() -> None:
    """Give up root's powers, where there are any, but for reading files: limits can then not be raised again."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held) == 0:
        permitted = struct.unpack("=6I", held.raw)[1]
        kept = permitted & _CAP_DAC_READ_SEARCH  # the data folder may belong to somebody else
        libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def can_filter() -> bool:
    """Whether the kernel has seccomp filters, and this processor's calls are known here."""
    # Without a program the kernel says EFAULT where it would have taken one, EINVAL where it knows no filters.
    refused = _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None)
    return platform.machine() in _ARCH and refused != 0 and ctypes.get_errno() == errno.EFAULT


def forbid_network_and_exec() -> bool:
    """Give up sockets, other programs and other processes, for good. Threads and open descriptors still work.

    Returns False where the kernel or the processor is not supported; only privileges by exec are given up then.
    """
    refuse_inspection()
    machine = platform.machine()
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0 or machine not in _ARCH:
        return False
    program = b"".join(_filter(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)), struct.calcsize("HxxxxxxP")
    )
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header)) == 0


def _filter(machine: str, pid: int) -> list[bytes]:
    """The BPF program, one 8-byte instruction an element; jumps are relative to the next instruction."""

    def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    deny, absent, allow = op(_RET, _DENY), op(_RET, _ABSENT), op(_RET, _ALLOW)
    program = [op(_LD, _OFFSET_ARCH), op(_JEQ, _ARCH[machine], 1, 0), deny, op(_LD, _OFFSET_NR)]
    if machine == "x86_64":
        program += [op(_JGE, _X32_BIT, 0, 1), deny]
    for number in _DENIED[machine]:
        program += [op(_JEQ, number, 0, 1), deny]
    program += [op(_JEQ, _CLONE3, 0, 1), absent]
    program += [op(_JEQ, _CLONE[machine], 0, 3), op(_LD, _OFFSET_ARG0), op(_JSET, _CLONE_THREAD, 1, 0), deny]
    program += [op(_LD, _OFFSET_NR)]
    # Pairs of streams only (event loops have one): a datagram socket could send to any other that has a name.
    program += [op(_JEQ, _SOCKETPAIR[machine], 0, 4), op(_LD, _OFFSET_ARG1), op(_AND, _SOCK_TYPE_MASK)]
    program += [op(_JEQ, _SOCK_STREAM, 1, 0), deny, op(_LD, _OFFSET_NR)]
    # abort() signals its own process, getrlimit asks about it (0 = the caller); any other target is refused.
    for number in _OWN_PROCESS_ONLY[machine]:
        program += [op(_JEQ, number, 0, 4), op(_LD, _OFFSET_ARG0), op(_JEQ, pid, 2, 0), op(_JEQ, 0, 1, 0), deny]
        program += [op(_LD, _OFFSET_NR)]
    return [*program, allow]


def _prctl(option: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(libc.prctl(option, *[ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded]))
