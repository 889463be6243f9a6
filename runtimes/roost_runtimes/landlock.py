"""Landlock: the folders a process may still reach, and nothing else of the file system, for good.

Linux 5.13 and later have it, unless it was left out or switched off; what it can hold back grows with its version (its
"ABI"). It needs no privilege, only `PR_SET_NO_NEW_PRIVS`, and holds for the calling thread and what that one starts. Files
that are open already stay usable.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
_FOR_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_HANDLED_SINCE_5 = (1 << 16) - 1
"""Every right of the file system that a version knows; what is handled and not granted is refused."""
_TCP = 0b11  # bind and connect, since version 4
_SCOPES = 0b11  # abstract Unix sockets, and signals to processes outside, since version 6


def abi() -> int:
    """The kernel's version of Landlock; 0 = it has none."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))


class Ruleset:
    """What will stay reachable, gathered before it is put in force. Without Landlock it does nothing."""

    def __init__(self) -> None:
        version = abi()
        self._handled = _HANDLED.get(version, _HANDLED_SINCE_5)
        self._descriptor = -1
        if version:
            attributes = struct.pack("=QQQ", self._handled, _TCP, _SCOPES)
            size = 8 if version < 4 else 16 if version < 6 else 24
            self._descriptor = _syscall(_CREATE_RULESET, attributes, size, 0)

    def allow(self, *, read: Iterable[Path] = (), write: Iterable[Path] = ()) -> None:
        """Grant files, or folders with all below them; what does not exist is left out."""
        if self._descriptor >= 0:
            for paths, rights in ((read, _READ), (write, _WRITE)):
                for path in paths:
                    self._allow(path, rights & self._handled)

    def enforce(self) -> bool:
        """Give up everything else; False where that is not possible. Needs `PR_SET_NO_NEW_PRIVS`."""
        if self._descriptor < 0:
            return False
        done = _syscall(_RESTRICT_SELF, self._descriptor, 0) == 0
        os.close(self._descriptor)
        self._descriptor = -1
        return done

    def _allow(self, path: Path, rights: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not path.is_dir():
                rights &= _FOR_FILES
            _syscall(_ADD_RULE, self._descriptor, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        finally:
            os.close(descriptor)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *wide))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    return libc
