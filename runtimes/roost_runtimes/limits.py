"""What processes that handle tenants' models may take at most, set by themselves before they touch one."""

import resource
from dataclasses import dataclass
from pathlib import Path

ADDRESS_SPACE_SLACK = 4 * 1024**3
"""Mapped files and reserved but unused address space are free; private memory is what RLIMIT_DATA counts."""
_OPEN_FILES = 64
_STACK_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Held:
    """What this process has mapped now, in bytes."""

    private: int
    whole: int

    @classmethod
    def now(cls) -> "Held":
        pages = [int(field) for field in Path("/proc/self/statm").read_text("utf-8").split()]
        return cls(private=pages[5] * resource.getpagesize(), whole=pages[0] * resource.getpagesize())


def limit_replica(before: Held, *, memory_bytes: int) -> None:
    """Lower this process's limits for good: `memory_bytes` more private memory than `before`, and no file written."""
    lower_all(
        data=before.private + memory_bytes,
        address_space=before.whole + memory_bytes + ADDRESS_SPACE_SLACK,
        file_bytes=0,
    )
    # This one counts all processes and threads of the user: a quarter stays for the others, the gateway among them.
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if threads != resource.RLIM_INFINITY:
        lower(resource.RLIMIT_NPROC, threads * 3 // 4, threads * 3 // 4)


def lower_all(*, data: int, address_space: int, file_bytes: int) -> None:
    """Lower what every such process is held to: private memory, address space and the largest file, in bytes."""
    for kind, wanted in (
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_STACK, _STACK_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        lower(kind, wanted, wanted)


def lower(kind: int, soft: int, hard: int) -> None:
    """Set one limit, or leave it where it is lower already."""
    soft_now, hard_now = resource.getrlimit(kind)
    resource.setrlimit(kind, (_least(soft, soft_now), _least(hard, hard_now)))


def _least(wanted: int, now: int) -> int:
    return wanted if now == resource.RLIM_INFINITY else min(wanted, now)
