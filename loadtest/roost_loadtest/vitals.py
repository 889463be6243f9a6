"""How the generator itself is doing: how busy its process is, and whether it gets to run. A slow generator proves nothing."""

import gc
import time
from collections import deque

import gevent

from roost_loadtest.collector import Collector

_LOOK_S = 0.02
_WINDOW_S = 5.0
"""CPU time is taken over this long: a busy moment delays nothing that lag does not show."""


def settle() -> None:
    """What is loaded by now is no garbage: without it, Python's collector holds up no request for longer than a moment."""
    gc.collect()
    gc.freeze()


def watch_over(collector: Collector) -> None:
    """Tells the collector of this process, until the greenlet that runs it is killed."""
    moments = deque([(time.perf_counter(), time.process_time())])
    while True:
        before = time.perf_counter()
        gevent.sleep(_LOOK_S)
        now, cpu = time.perf_counter(), time.process_time()
        collector.starved_s = max(collector.starved_s, now - before - _LOOK_S)
        if now - moments[-1][0] >= 1.0:
            moments.append((now, cpu))
            while len(moments) > 2 and now - moments[1][0] >= _WINDOW_S:
                moments.popleft()
            began, used = moments[0]
            collector.cpu = max(collector.cpu, (cpu - used) / (now - began))
