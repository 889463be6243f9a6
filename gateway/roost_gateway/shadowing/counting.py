"""What came of copies: counted on the event loop, compared on a thread beside it. Bounded: what has no room is not compared."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from roost_gateway.open_inference import Unreadable
from roost_gateway.shadowing.json_paths import Find
from roost_gateway.shadowing.judging import Answered, judge
from roost_platform.domain.comparing import Agreement
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.shadows import Example, Shadow, ShadowSums

logger = logging.getLogger(__name__)

MOST_WAITING = 64
EXAMPLE_BYTES = 2048
"""Of each body, where they are kept."""

OnCompared = Callable[[ServiceKey, int, bool], None]
"""Told of each comparison on the thread: the model, the shadow's version, and whether the answers were alike."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request."""

    request_id: str
    at: datetime
    version: int
    """That served the caller."""
    request: bytes
    served: Answered
    copied: Answered


class Sums:
    """Of one shadow, as this gateway counts it. Both threads count, so each holds the lock for it."""

    def __init__(self, key: ServiceKey, shadow: Shadow, find: Find | None) -> None:
        self.key = key
        self.shadow = shadow
        self.find = find
        self.changed = False
        self._sums = ShadowSums()
        self._lock = threading.Lock()

    def count(self, change: Callable[[ShadowSums], None]) -> None:
        with self._lock:
            change(self._sums)
            self.changed = True

    def compared(self) -> tuple[int, int]:
        """Copies that were compared, and those of them that differed."""
        with self._lock:
            return self._sums.compared, self._sums.differences.total()

    def document(self) -> dict[str, object]:
        """All so far; what is counted from now on is a change."""
        with self._lock:
            self.changed = False
            return self._sums.to_json()


class Comparing:
    """Compares pairs one after the other."""

    def __init__(self, totals: Counter[tuple[ServiceKey, str]]) -> None:
        """`totals`: counts by model and result, for the metrics page."""
        self._totals = totals
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def put(self, sums: Sums, pair: Pair) -> None:
        """Compare soon, or not at all. On the event loop."""
        if not self._room.acquire(blocking=False):
            self._not_compared(sums, "full")
            return
        self._thread.submit(self._work, sums, pair)

    def drain(self) -> None:
        """Return when all that waits is compared; blocks."""
        self._thread.submit(lambda: None).result()

    def stop(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _work(self, sums: Sums, pair: Pair) -> None:
        try:
            agreement = judge(pair.served, pair.copied, sums.shadow.plan.comparison, sums.find)
        except Unreadable:
            self._not_compared(sums, "unreadable")
        except Exception:
            logger.exception("shadow_not_compared", extra={"request_id": pair.request_id})
            self._not_compared(sums, "failed")
        else:
            sums.count(lambda found: _add(found, agreement, pair, sums.shadow))
            self._totals[sums.key, "alike" if agreement.alike else "differed"] += 1
        finally:
            self._room.release()

    def _not_compared(self, sums: Sums, why: str) -> None:
        def add(found: ShadowSums) -> None:
            found.uncompared[why] += 1

        sums.count(add)
        self._totals[sums.key, "uncompared"] += 1


def _add(found: ShadowSums, agreement: Agreement, pair: Pair, shadow: Shadow) -> None:
    found.add(agreement)
    if agreement.difference is not None:
        bodies = (pair.request, pair.served.body, pair.copied.body)
        kept = [_text(body) if shadow.plan.keep_bodies else None for body in bodies]
        about = pair.at.isoformat(), pair.request_id, pair.version, str(agreement.difference), agreement.where
        found.show(Example(*about, *kept))


def _text(body: bytes) -> str:
    return body[:EXAMPLE_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
