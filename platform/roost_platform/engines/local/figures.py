"""What revisions and replicas of this engine look like from outside, for the metrics page. Looks at them, and wakes none."""

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from roost_platform.domain.services import RevisionKey
from roost_platform.engines.local.pulse import processor_ticks
from roost_platform.engines.local.replica import State
from roost_platform.engines.local.runner import Runner
from roost_platform.engines.port import ReplicaFigures, RevisionFigures

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
CORES = 1.0
"""No replica of this engine is promised more than one core (see `held.RESOURCE_CLASS`)."""


def figures_of(runner: Runner) -> RevisionFigures:
    decision, in_flight = runner.scaler.decision, [r.inflight for r in runner.replicas if r.state is State.READY]
    return RevisionFigures(
        wanted=runner.wanted,
        ready=len(in_flight),
        starting=runner.starting + sum(replica.state is State.STARTING for replica in runner.replicas),
        idle=in_flight.count(0),
        queued=len(runner.waiters),
        in_flight=sum(replica.inflight for replica in runner.replicas),
        most=runner.policy.max_scale,
        desired=runner.scaler.desired,
        stable=decision.stable if decision is not None else 0.0,
        panic=decision.panic if decision is not None else 0.0,
        panicking=runner.scaler.panic,
        cold_starts=runner.activations,
    )


class Numbered:
    """The numbers of replicas, which they keep for as long as they live."""

    def __init__(self) -> None:
        self._numbers: dict[RevisionKey, dict[int, int]] = {}  # by pid

    def look(self, runners: Iterable[Runner]) -> tuple[ReplicaFigures, ...]:
        """All replicas that have a model; reads two small files of the kernel for each."""
        living: dict[RevisionKey, list[int]] = {}
        for runner in runners:  # a revision has two for a moment, when it is deleted and deployed again
            living.setdefault(runner.key, []).extend(r.pid for r in runner.replicas if r.state is not State.GONE)
        self._numbers = {key: numbered(self._numbers.get(key, {}), pids) for key, pids in living.items()}
        return tuple(
            ReplicaFigures(key, number, resident_bytes(pid), processor_ticks(pid) / _TICKS, CORES)
            for key, numbers in self._numbers.items()
            for pid, number in numbers.items()
        )


def numbered(before: dict[int, int], living: Iterable[int]) -> dict[int, int]:
    """Those that live, by pid: with the number that they had, or the lowest that is free."""
    living = list(living)
    kept = {pid: before[pid] for pid in living if pid in before}
    taken = set(kept.values())
    free = (number for number in count() if number not in taken)
    return {pid: kept[pid] if pid in kept else next(free) for pid in living}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process that is no file's; 0 when there is no such process."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE_BYTES
