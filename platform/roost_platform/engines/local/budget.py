"""What this machine can hold: replicas are admitted against its memory and cores. Pure bookkeeping, no clock."""

import os
from dataclasses import dataclass

BASE_REPLICA_BYTES = 24 * 1024**2
"""Private memory of a replica before its model: a forked interpreter with its touched pages."""


@dataclass(frozen=True, slots=True)
class Capacity:
    memory_bytes: int
    """Memory that replicas may hold together."""
    replicas: int
    """Most replicas at once: a bound on what the cores can usefully switch between."""


def machine_capacity(*, memory_share: float = 0.8, replicas_per_core: int = 32) -> Capacity:
    """A share of what is free now, and a multiple of the cores this process may run on."""
    pages = os.sysconf("SC_AVPHYS_PAGES") + _reclaimable_pages()
    cores = len(os.sched_getaffinity(0))
    return Capacity(int(pages * os.sysconf("SC_PAGE_SIZE") * memory_share), cores * replicas_per_core)


def _reclaimable_pages() -> int:
    """Pages that the kernel would give up on need: MemAvailable less MemFree."""
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - a kernel file, not a path of ours
        fields = {line.split(":")[0]: int(line.split()[1]) for line in file}
    return max(0, (fields.get("MemAvailable", 0) - fields.get("MemFree", 0)) * 1024 // os.sysconf("SC_PAGE_SIZE"))


def replica_bytes(*, measured: int, artifact: int) -> int:
    """What one replica is expected to hold: as measured at upload, else twice its artifact."""
    return BASE_REPLICA_BYTES + (measured or 2 * artifact)


class Budget:
    """What is in use of a capacity."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self.memory_bytes = 0
        self.replicas = 0

    def fits(self, size: int) -> bool:
        """Whether one more replica of `size` bytes can be admitted. One is always admitted on an empty machine."""
        return self.replicas == 0 or self.lacking(size) == (0, 0)

    def lacking(self, size: int) -> tuple[int, int]:
        """Bytes and replicas that would have to go before one more of `size` bytes fits."""
        memory = self.memory_bytes + size - self._capacity.memory_bytes
        return max(0, memory), max(0, self.replicas + 1 - self._capacity.replicas)

    def take(self, size: int) -> None:
        self.replicas += 1
        self.memory_bytes += size

    def give_back(self, size: int) -> None:
        self.replicas -= 1
        self.memory_bytes -= size
