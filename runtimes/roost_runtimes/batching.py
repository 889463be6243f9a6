"""Dynamic batching: queued requests that fit together share one run, and one that would spoil it fails alone.

Batching never waits: a run starts as soon as a slot is free, with whatever is queued then.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from roost_runtimes.codec import Call
from roost_runtimes.model import Array, Model

_LOOK_PAST = 64
"""How many queued requests that do not fit are looked past; bounds the cost of a mixed queue."""


class Queued(Protocol):
    """What batching needs of a queue's entries."""

    @property
    def call(self) -> Call: ...


Entry = TypeVar("Entry", bound=Queued)


def can_batch(model: Model) -> bool:
    """Whether every input and output has a free dimension 0, so that rows of several requests may be stacked."""
    return all(spec.shape[:1] == (-1,) for spec in (*model.inputs, *model.outputs))


def batch_key(call: Call) -> object:
    """What must be equal for two calls to share a run; None when this one cannot: its inputs differ in rows, or have none."""
    if not call.rows or any(array.shape[0] != call.rows for array in call.feeds.values()):
        return None
    return call.outputs, tuple(sorted((name, array.shape[1:]) for name, array in call.feeds.items()))


def take_batch(queue: deque[Entry], max_rows: int) -> list[Entry]:
    """Take the first entry and those behind it that fit into a run of `max_rows`; the others keep their order.

    A first entry of more rows than that is taken alone.
    """
    first = queue.popleft()
    key, rows = first.call.batch_key, first.call.rows
    if key is None or rows >= max_rows:
        return [first]
    batch: list[Entry] = [first]
    passed: list[Entry] = []
    while queue and rows < max_rows and len(passed) < _LOOK_PAST:
        entry = queue.popleft()
        if entry.call.batch_key == key and rows + entry.call.rows <= max_rows:
            batch.append(entry)
            rows += entry.call.rows
        else:
            passed.append(entry)
    queue.extendleft(reversed(passed))
    return batch


def run_stacked(calls: Sequence[Call], run: Callable[[dict[str, Array]], list[Array]]) -> list[list[Array]] | None:
    """Run calls of one batch key as one; each call's own outputs, in order.

    None when the outputs do not have one row per input row, so that nobody can say whose they are. Raises what `run` does.
    """
    first = calls[0].feeds
    results = run({name: np.concatenate([call.feeds[name] for call in calls]) for name in first})
    rows = sum(call.rows for call in calls)
    if any(not array.ndim or array.shape[0] != rows for array in results):
        return None
    split: list[list[Array]] = []
    start = 0
    for call in calls:
        stop = start + call.rows
        split.append([array[start:stop] for array in results])
        start = stop
    return split
