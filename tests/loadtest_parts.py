"""Records of runs as they look in life: a seeded model of queue, replicas and cold starts under a load shape. Pure.

Where `loadtest_records` has every second as a test of the verdict wants it, here a whole run is plausible.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from roost_loadtest import shapes
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Billing, Generator, Plan, Record, Replicas, Second, Stream, Target

POLICY = {
    "class": "kpa", "metric": "rps", "target": 71, "target-utilization-percentage": 70, "window": 30, "panic-window-percentage": 10,
    "min-scale": 0, "max-scale": 12,
}  # fmt: skip
UP_AND_DOWN = shapes.steps([(50, 45), (200, 60), (400, 60), (50, 45)])


@dataclass
class _Model:
    """One model's replicas: they come two seconds after they were wanted, and hold what they are good for."""

    target: Target
    per_replica: float
    ready: int = 0
    wanted: int = 0
    queued: float = 0.0
    cold: int = 0
    panic_until: int = -1
    coming: list[tuple[int, int]] = field(default_factory=list)
    needed: list[int] = field(default_factory=list)
    steps: list[list[float]] = field(default_factory=list)

    def second(self, at: int, rate: float) -> Replicas:
        needed = math.ceil(rate / self.per_replica) if rate else 0
        if needed > 2 * max(self.ready, 1):
            self.panic_until = at + 30
        if needed and not self.ready and not self.coming:
            self.cold += 1
        self.needed.append(needed)
        self.wanted = max(self.needed[-POLICY["window"] :])
        self.coming.append((at + 2, self.wanted))
        while self.coming and self.coming[0][0] <= at:
            self.ready = self.coming.pop(0)[1]
        self.queued = max(0.0, self.queued + rate - self.ready * self.per_replica * 1.3)
        if not self.steps or self.steps[-1][1] != self.wanted:
            self.steps.append([at + 1, self.wanted])
        return Replicas(
            wanted=self.wanted, ready=self.ready, queued=round(self.queued), in_flight=round(rate * 0.01),
            panic=at <= self.panic_until, cold_starts=self.cold, serving=f"{self.target.model}-00001",
        )  # fmt: skip


def a_run(
    *,
    seed: int = 1,
    shape: shapes.Shape = UP_AND_DOWN,
    targets: Sequence[Target] = (Target("acme", "iris"),),
    aims: Aims | None = None,
    latency_s: float = 0.005,
    stalls: Sequence[int] = (),
    error_share: float = 0.0,
    errors: Sequence[str] = ("503", "timeout", "connection"),
    events: tuple[tuple[float, str], ...] = (),
    generator: Generator | None = None,
    after_s: int = 0,
    predict: bool = True,
    samples: int = 150,
) -> Record:
    """`stalls` are seconds in which nothing is answered, `samples` the most latencies kept of a second."""
    dice = random.Random(seed)
    streams = tuple(
        Stream(target, shape, seed=seed + n, payload="16 made from the signature") for n, target in enumerate(targets)
    )
    plan = Plan("http://127.0.0.1:8000", streams, aims or Aims(p95_s=0.05, p99_s=0.1, capacity_within_s=15))
    models = [_Model(target, per_replica=50 + 30 * n) for n, target in enumerate(targets)]
    seconds, answered_in_all, late = [], 0, 0
    for at in range(math.ceil(plan.duration_s)):
        offered = plan.offered(at, at + 1)
        sent = max(0, round(dice.gauss(offered, math.sqrt(offered) if offered else 0)))
        told = {str(model.target): model.second(at, offered / len(models)) for model in models}
        waiting = (
            sum(each.queued or 0 for each in told.values())
            / max(sum((each.ready or 0) for each in told.values()), 1)
            / 50
        )
        pause = next((stall + 1.0 - at for stall in stalls if at <= stall < at + 2), 0.0)
        failed = [
            dice.choices(errors, range(len(errors), 0, -1))[0] for _ in range(sent) if dice.random() < error_share
        ]
        latency = Histogram()
        for _ in range(min(sent - len(failed), samples)):
            latency.add(latency_s * dice.lognormvariate(0, 0.35) + waiting * dice.random() + pause * dice.random())
        answered = sent - len(failed)
        answered_in_all += answered
        done, late = (0, late + sent) if at in stalls else (sent + late, 0)
        seconds.append(
            Second(
                at, offered, sent=sent, answered=answered, finished=done, in_flight=late + round(offered * latency_s + waiting * 20),
                errors={name: failed.count(name) for name in dict.fromkeys(failed)}, latency=latency, replicas=told,
            )
        )  # fmt: skip
    end = len(seconds)
    after = tuple(
        Second(at, 0.0, replicas={str(model.target): model.second(at, 0.0) for model in models})
        for at in range(end, end + after_s)
    )
    lag = Histogram()
    for _ in range(500):
        lag.add(0.0004 * dice.lognormvariate(0, 0.4))
    return Record(
        plan=plan, started_at="2026-11-23T05:00:00+00:00", seconds=tuple(seconds), after=after, events=events,
        service=Histogram.sum(second.latency for second in seconds if second.second not in stalls),
        generator=generator or Generator(lag=lag, cpu=0.31, starved_s=0.012),
        billing=tuple(Billing(str(t), 1200, 1200 + answered_in_all // len(targets), answered_in_all // len(targets)) for t in targets),
        platform={
            "engine": "local", "version": "0.1.0", "scaling": {str(target): POLICY for target in targets},
            **({"prediction": {str(model.target): model.steps for model in models}} if predict else {}),
        },
    )  # fmt: skip
