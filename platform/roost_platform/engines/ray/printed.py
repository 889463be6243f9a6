"""What replicas print. Ray keeps it in files of each node; those of other nodes are read by a task that runs there."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_MOST_PRINTED = 65_536
_OWN_LINES = (":job_id:", ":actor_name:", ":task_name:")
"""Ray writes them into its workers' output, for itself."""
_PAUSE_S = 3.0
"""Between two tasks on one node: each is a process there for a moment."""
Lines = list[tuple[str, str]]
"""Worker ids, and a line of each."""


def lines_since(workers: Iterable[str], read: Mapping[str, int]) -> tuple[Lines, dict[str, int]]:
    """Whole lines of files of this node's workers from where the last look ended, and where this one does."""
    found: Lines = []
    ends: dict[str, int] = {}
    node = ray._private.worker._global_node  # noqa: SLF001
    if node is None:
        return found, ends
    for worker in workers:
        for path in sorted(Path(node.get_logs_dir_path()).glob(f"worker-{worker}-*")):
            begin = max(read.get(path.name, 0), path.stat().st_size - _MOST_PRINTED)
            with path.open("rb") as file:
                file.seek(begin)
                whole = file.read().rpartition(b"\n")[0]
            ends[path.name] = begin + len(whole) + bool(whole)
            lines = whole.decode("utf-8", "replace").splitlines()
            found += [(worker, line) for line in lines if not line.startswith(_OWN_LINES)]
    return found, ends


class Elsewhere:
    """Other nodes than the driver's."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, int]] = {}
        self._asked: dict[str, Any] = {}
        self._next: dict[str, float] = {}

    def printed(self, workers: Mapping[str, Iterable[str]]) -> Lines:
        """By node. Does not wait: what a node answers comes with a later call."""
        found: Lines = []
        for node in workers:
            found += self._answer(node)
            if node not in self._asked and time.monotonic() >= self._next.get(node, 0.0):
                self._next[node] = time.monotonic() + _PAUSE_S
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                task = ray.remote(lines_since).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
                self._asked[node] = task.remote(list(workers[node]), self._read.get(node, {}))
        return found

    def _answer(self, node: str) -> Lines:
        asked = self._asked.get(node)
        if asked is None or not ray.wait([asked], timeout=0)[0]:
            return []
        del self._asked[node]
        try:
            found, self._read[node] = ray.get(asked)
        except RayError:  # the node is gone, or going
            return []
        lines: Lines = found
        return lines
