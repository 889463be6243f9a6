"""What a replica prints: read without blocking, cut into lines, passed on; as much of it as does no harm."""

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 1 << 16
_MAX_LINE = 4096
"""Bytes of a line that are kept."""
_MOST_LINES = 500
"""Of one read, the last ones: nobody keeps more."""
_BURST_BYTES = 1 << 19
_PAUSE_S = 0.1
"""After so many bytes nothing is read for so long: whoever prints faster waits, and not the engine."""


class Output:
    """Reads one replica's end of the pipe until it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._left = _BURST_BYTES
        self._on_line: Callable[[str], None] = _drop
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def redirect(self, on_line: Callable[[str], None]) -> None:
        """From now on `on_line` gets each line, without its end."""
        self._on_line = on_line

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._pass_on([self._rest] if self._rest else [])
            return
        *lines, rest = (self._rest + data).rsplit(b"\n", _MOST_LINES)
        if len(lines) == _MOST_LINES:
            lines[0] = lines[0].rpartition(b"\n")[2]
        self._rest = rest[:_MAX_LINE]
        self._pass_on(lines)
        self._left -= len(data)
        if self._left <= 0:
            self._loop.remove_reader(self._descriptor)
            self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._left = _BURST_BYTES
        self._loop.add_reader(self._descriptor, self._read)

    def _pass_on(self, lines: list[bytes]) -> None:
        for line in lines:
            self._on_line(line[:_MAX_LINE].decode("utf-8", "replace"))


def _drop(_: str) -> None:
    return
