"""What a process does before it forks others: one thread, no garbage to collect, children noticed, signals left to others."""

import gc
import os
import signal
from pathlib import Path


def prepare_to_fork() -> tuple[int, int]:
    """A pipe, non-blocking: its first end becomes readable when a child ends. Raises SystemExit when there are threads."""
    woken, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C and a service manager's SIGTERM reach the whole group; whoever started us decides when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads != 1:
        raise SystemExit(f"a zygote must have one thread, this one has {threads}: forking it would not be safe")
    gc.collect()
    gc.freeze()  # keeps the collector's marks off pages that children share
    return woken, wakeup
