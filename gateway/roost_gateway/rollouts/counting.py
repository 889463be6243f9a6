"""What a rollout's two versions do, counted from real calls of the same time; a tap on the prediction path.

Whether they agree is counted from copies of the serving version's calls.
"""

from roost_gateway.predict.taps import Seen
from roost_gateway.shadowing.copying import Mirror
from roost_platform.domain.guards import Guard, Measure
from roost_platform.domain.rollouts import Rollout
from roost_platform.domain.services import ServiceKey

Four = tuple[int, int, int, int]
"""Of the new version calls and bad ones, of the serving version calls and bad ones."""


class Counting:
    """One step of one rollout, as this gateway saw it.

    Only calls that left the choice to the split count: who names a version may ask it something else. A call that the client
    got wrong (4xx) says nothing about a version. Waiting for a cold start is left out: it tells how little traffic a version
    has, not how fast it is.
    """

    def __init__(self, rollout: Rollout, mirror: Mirror | None = None) -> None:
        """`mirror` copies calls to the new version; None = nobody asks whether they agree."""
        self.step = (rollout.id, rollout.step)
        self._candidate, self._serving = rollout.plan.to, rollout.start
        self._guards = rollout.plan.guards
        self._mirror = mirror
        self._counts: dict[str, list[int]] = {guard.text: [0, 0, 0, 0] for guard in self._guards}

    @property
    def counts(self) -> dict[str, Four]:
        found = {guard: (four[0], four[1], four[2], four[3]) for guard, four in self._counts.items()}
        if self._mirror is not None:
            compared, differed = self._mirror.sums.compared()
            agreement = [guard.text for guard in self._guards if guard.measure is Measure.DISAGREEMENT]
            found |= dict.fromkeys(agreement, (compared, differed, 0, 0))
        return found

    def wants(self, key: ServiceKey) -> bool:
        return self._mirror is not None and self._mirror.wants(key)

    def seen(self, call: Seen) -> None:
        if self._mirror is not None:
            self._mirror.seen(call)
        measured = call.measured
        if measured.version not in (self._candidate, self._serving) or measured.named:
            return
        status = measured.status
        if 400 <= status < 500 and status != _MODEL_FAILED:
            return
        failed = status >= 400
        seconds = call.seconds - measured.cold_start_us / 1e6
        at = 0 if measured.version == self._candidate else 2
        for guard in self._guards:
            if guard.measure is Measure.DISAGREEMENT:
                continue
            four = self._counts[guard.text]
            four[at] += 1
            four[at + 1] += _is_bad(guard, seconds, failed=failed)


def _is_bad(guard: Guard, seconds: float, *, failed: bool) -> bool:
    """A call that failed was not answered in time either."""
    return failed or (guard.measure is Measure.LATENCY and seconds > guard.threshold_s)


_MODEL_FAILED = 422
"""The model's own failure on an input that it takes."""
