"""What the checker takes from itself before it touches an uploaded file: memory, time, files, core dumps."""

import resource

_ADDRESS_SPACE_SLACK = 4 * 1024**3
"""Mapped files and reserved but unused address space are free; private memory is what RLIMIT_DATA counts."""
_OPEN_FILES = 64


def limit_this_process(*, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Lower this process's limits for good; those that are lower already stay. A forked child keeps them."""
    for kind, wanted in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_AS, memory_bytes + _ADDRESS_SPACE_SLACK),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, wanted, wanted)
    # At the soft limit the kernel sends SIGXCPU, which the parent reads as "too slow"; SIGKILL follows at the hard one.
    _lower(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 2)


def _lower(kind: int, soft: int, hard: int) -> None:
    soft_now, hard_now = resource.getrlimit(kind)
    resource.setrlimit(kind, (_least(soft, soft_now), _least(hard, hard_now)))


def _least(wanted: int, now: int) -> int:
    return wanted if now == resource.RLIM_INFINITY else min(wanted, now)
