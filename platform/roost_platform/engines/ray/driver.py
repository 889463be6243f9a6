"""The process that talks to Ray: `python -m roost_platform.engines.ray.driver FD`, started by link.py.

Ray ends the process of a driver whose head is gone; so that is not the gateway's. Lines of JSON over a socket: first the
settings, then [number, method, arguments] for [number, answer, error]. The other end closed is the end, in order.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from typing import BinaryIO

from roost_platform.engines.ray.cluster import RayCluster
from roost_platform.engines.ray.settings import RaySettings

METHODS = frozenset({"connect", "look", "deploy", "delete", "printed", "disconnect"})
_WATCH_S = 0.25
_LAST_WORDS_S = 30.0
_LOST_HEAD = 3


def main(descriptor: int) -> None:
    link = socket.socket(fileno=descriptor)
    lines = link.makefile("rb")
    cluster = RayCluster(RaySettings(**json.loads(lines.readline())))
    wishes: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, wishes), daemon=True).start()
    threading.Thread(target=_watch, args=(cluster,), daemon=True).start()
    while line := wishes.get():
        number, method, arguments = json.loads(line)
        answer, failure = None, None
        try:
            if method not in METHODS:
                raise ValueError(f"there is no {method}")
            answer = getattr(cluster, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            failure = f"{type(error).__name__}: {error}"
        link.sendall(json.dumps([number, answer, failure]).encode() + b"\n")
    cluster.disconnect()


def _read(lines: BinaryIO, wishes: "queue.SimpleQueue[bytes]") -> None:
    try:
        for line in lines:
            wishes.put(line)
    finally:
        wishes.put(b"")
        time.sleep(_LAST_WORDS_S)
        os._exit(1)  # what is under way does not end


def _watch(cluster: RayCluster) -> None:
    """A head that is gone takes this process along, at once: calls of Ray's would wait for it for a minute."""
    while True:
        time.sleep(_WATCH_S)
        if cluster.has_died():
            cluster.kill()
            os._exit(_LOST_HEAD)


if __name__ == "__main__":
    main(int(sys.argv[1]))
