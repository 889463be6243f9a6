"""What looking at calls for drift costs the event loop and the processor: microseconds a sample. Run it by itself.

    python benchmarks/drift.py

A call between samples costs one look into an empty dictionary, as where there are no taps at all. So the cost of all is that
of a sample times the samples: at most `ROOST_DRIFT_CALLS_PER_S` (10) a second at a gateway, however many calls there are.
"""

import asyncio
import json
from datetime import UTC, datetime
from time import perf_counter, thread_time
from types import SimpleNamespace
from typing import Any, cast

from roost_gateway.drift.counting import MOST_WAITING, Counting
from roost_gateway.drift.reading import read_call
from roost_gateway.drift.settings import DriftWish
from roost_gateway.predict.taps import Seen
from roost_platform.domain.services import ServiceKey
from roost_platform.drift.profiles import Counted, Profile, features_of

_ROUNDS = 200
_A_SECOND = 10
_NOW = datetime(2026, 11, 23, tzinfo=UTC)


def main() -> None:
    for rows, width in ((1, 4), (1, 64), (64, 4), (64, 64)):
        request, answer = _bodies(rows, width)
        taking, working = asyncio.run(_taking(request, answer)), _working(request, answer)
        share = _A_SECOND * (taking + working)
        print(
            f"{rows} x {width}: {taking * 1e6:.0f} us on the event loop, {working * 1e6:.0f} us on the thread;"
            f" {_A_SECOND} a second are {share:.2%} of a core"
        )


def _bodies(rows: int, width: int) -> tuple[bytes, bytes]:
    def tensor(name: str, wide: int) -> dict[str, Any]:
        data = [(place * 7919 % 1000) / 1000 for place in range(rows * wide)]
        return {"name": name, "datatype": "FP32", "shape": [rows, wide], "data": data}

    return json.dumps({"inputs": [tensor("x", width)]}).encode(), json.dumps({"outputs": [tensor("y", 3)]}).encode()


async def _taking(request: bytes, answer: bytes) -> float:
    """Seconds of the event loop, for the fastest of many."""
    counting = Counting()
    call = cast(
        Seen,
        SimpleNamespace(
            route=SimpleNamespace(key=ServiceKey("acme", "iris")),
            measured=SimpleNamespace(version=1, request_id="r"),
            request=[request],
            headers=[(b"content-type", b"application/json")],
            answer=answer,
            answer_headers=[(b"content-type", b"application/json")],
        ),
    )
    best = 1.0
    for _ in range(_ROUNDS // MOST_WAITING + 1):
        for _ in range(MOST_WAITING // 2):
            begin = perf_counter()
            counting.put(call, DriftWish(reference_rows=10**9), _NOW)
            best = min(best, perf_counter() - begin)
        await counting.harvest(_NOW)
    counting.stop()
    return best


def _working(request: bytes, answer: bytes) -> float:
    """Seconds of the thread, on average."""
    found = read_call(request, [], answer, [])
    kept = Profile("p", _NOW, "calls", found.rows, features_of(found.columns))
    counted = Counted({})
    begin = thread_time()
    for _ in range(_ROUNDS):
        found = read_call(request, [], answer, [])
        counted = counted.seen(kept, found.columns, found.rows)
    return (thread_time() - begin) / _ROUNDS


if __name__ == "__main__":
    main()
