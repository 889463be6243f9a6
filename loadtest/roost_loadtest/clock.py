"""Waking up on time: gevent's event loop rounds waits up to a whole millisecond, which is more than a send may be late.

On Linux a timerfd, which the loop watches like a socket, wakes within about 0.1 ms; elsewhere gevent's own sleep must do.
"""

import ctypes
import os
import sys
from types import TracebackType
from typing import Any, Self

import gevent
from gevent import get_hub

_CLOCK_MONOTONIC = 1  # what time.perf_counter reads on Linux
_ABSOLUTE = 1
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000
_READ = 1


class _Time(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """Lets one greenlet sleep until moments of `time.perf_counter`. To be closed."""

    def __init__(self) -> None:
        self._descriptor = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._descriptor >= 0:
            self._timer = _Timer()
            self._reference = ctypes.byref(self._timer)
            self._watcher: Any = get_hub().loop.io(self._descriptor, _READ)

    def sleep_until(self, moment: float, now: float) -> None:
        """`moment` and `now` are of `time.perf_counter`, in seconds. Other greenlets run meanwhile."""
        if self._descriptor < 0:
            gevent.sleep(max(0.0, moment - now))
            return
        value = self._timer.value
        value.s, value.ns = divmod(max(1, int(moment * 1e9)), 1_000_000_000)
        self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, self._reference, None)
        get_hub().wait(self._watcher)
        os.read(self._descriptor, 8)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._watcher.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
