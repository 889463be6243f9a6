"""What the checker takes from itself before it touches an uploaded file: memory, time, files, core dumps."""

import resource

from roost_runtimes.limits import ADDRESS_SPACE_SLACK, lower, lower_all
from roost_runtimes.sandbox import be_killed_first


def limit_this_process(*, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Lower this process's limits for good; those that are lower already stay. A forked child keeps them."""
    be_killed_first()
    lower_all(data=memory_bytes, address_space=memory_bytes + ADDRESS_SPACE_SLACK, file_bytes=file_bytes)
    # At the soft limit the kernel sends SIGXCPU, which the parent reads as "too slow"; SIGKILL follows at the hard one.
    lower(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 2)
