"""Which calls are looked at: for each model one, then none for a while.

A model's tap is in place only until it has seen a call, so that all others cost nothing. After that it comes back a
`1 / rate` seconds later: samples are spread over time, not over calls, and no load makes them more.
"""

import asyncio
from collections.abc import Callable, Mapping

from roost_gateway.predict.taps import Seen, Taps
from roost_platform.domain.services import ServiceKey

NAME = "drift"


class Sampler:
    """A tap of many models. On the event loop's thread."""

    def __init__(self, *, taps: Taps, take: Callable[[Seen], None], most_per_s: float) -> None:
        """`take` gets the calls that were answered well; it must not block. `most_per_s`: samples of all models together."""
        self._taps = taps
        self._take = take
        self._most_per_s = most_per_s
        self._rates: dict[ServiceKey, float] = {}
        self._armed: set[ServiceKey] = set()
        self._waiting: dict[ServiceKey, asyncio.TimerHandle] = {}
        self._free_at = 0.0

    def set_rates(self, rates: Mapping[ServiceKey, float]) -> None:
        """Exactly these models are looked at, so many calls a second at most."""
        for key in self._rates.keys() - rates.keys():
            self._leave(key)
        for key, rate in rates.items():
            if self._rates.get(key) != rate:
                self._leave(key)
                if rate > 0:
                    self._rates[key] = rate
                    self._arm(key)

    def stop(self) -> None:
        self.set_rates({})

    def wants(self, key: ServiceKey) -> bool:
        return key in self._armed

    def seen(self, call: Seen) -> None:
        key = call.route.key
        if key not in self._armed:  # one that was under way beside the one that was taken
            return
        self._armed.discard(key)
        self._taps.set(key, NAME, None)
        loop = asyncio.get_running_loop()
        # Each sample takes its turn of the time that all models share; behind, the pauses of all become longer.
        self._free_at = max(self._free_at, loop.time()) + 1 / self._most_per_s
        pause = max(1 / self._rates[key], self._free_at - loop.time())
        self._waiting[key] = loop.call_later(pause, self._arm, key)
        if call.measured.status == 200 and call.request is not None and call.answer is not None:
            self._take(call)

    def _arm(self, key: ServiceKey) -> None:
        self._waiting.pop(key, None)
        self._armed.add(key)
        self._taps.set(key, NAME, self)

    def _leave(self, key: ServiceKey) -> None:
        self._rates.pop(key, None)
        self._armed.discard(key)
        self._taps.set(key, NAME, None)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.cancel()
