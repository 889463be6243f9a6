"""What this machine can hold: replicas are admitted against its memory and cores. Pure bookkeeping, no clock."""

import os
from dataclasses import dataclass

BASE_REPLICA_BYTES = 24 * 1024**2
"""Private memory of a replica before its model: a forked interpreter with its touched pages."""

_LEAST_SLACK_BYTES = 256 * 1024**2
"""Each thread of a replica claims 8 MiB of stack and some for its allocations, whether it uses them or not."""


@dataclass(frozen=True, slots=True)
class Capacity:
    memory_bytes: int
    """Memory that replicas may hold together."""
    replicas: int
    """Most replicas at once: a bound on what the cores can usefully switch between."""


def machine_capacity(*, memory_share: float = 0.8, replicas_per_core: int = 64) -> Capacity:
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


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """What one replica may take at most. Its memory was measured on inputs of zeros, so real ones get several times that."""

    memory_factor: float = 4.0
    memory_slack_bytes: int = 1024**3
    answer_bytes: int = 256 * 1024**2
    """Largest body of one answer."""

    def memory_bytes(self, size: int, machine: int) -> int:
        """Private memory that a replica reckoned at `size` bytes may hold: never less than it is reckoned at and a
        little, otherwise never more than all replicas of the machine together.
        """
        return max(size + _LEAST_SLACK_BYTES, min(int(size * self.memory_factor) + self.memory_slack_bytes, machine))


class Budget:
    """What is in use of a capacity."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.memory_bytes = 0
        self.replicas = 0

    def fits(self, size: int) -> bool:
        """Whether one more replica of `size` bytes can be admitted. One is always admitted on an empty machine."""
        return self.replicas == 0 or self.lacking(size) == (0, 0)

    def lacking(self, size: int) -> tuple[int, int]:
        """Bytes and replicas that would have to go before one more of `size` bytes fits."""
        memory = self.memory_bytes + size - self.capacity.memory_bytes
        return max(0, memory), max(0, self.replicas + 1 - self.capacity.replicas)

    def take(self, size: int) -> None:
        self.replicas += 1
        self.memory_bytes += size

    def give_back(self, size: int) -> None:
        self.replicas -= 1
        self.memory_bytes -= size
