"""Counts requests by the second in which they were due, in one process; several processes' counts add up."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Generator, Plan, Second


@dataclass(slots=True)
class _Bucket:
    sent: int = 0
    answered: int = 0
    finished: int = 0
    dropped: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)


class Collector:
    """What a generator tells of each request; not for threads."""

    def __init__(self) -> None:
        self.lag = Histogram()
        self.service = Histogram()
        self.charged: Counter[str] = Counter()
        """Answers that the platform bills, by target: 2xx, and what a model refused (422)."""
        self.in_flight = 0
        self.cpu = 0.0
        self.starved_s = 0.0
        self._seconds: dict[int, _Bucket] = {}

    def drop(self, due: float) -> None:
        """It was not sent: as many as may be were in flight."""
        self._bucket(due).dropped += 1

    def send(self, due: float, *, lag: float) -> None:
        """It goes out now; whoever decided so has counted it in `in_flight`. `lag` in seconds."""
        self._bucket(due).sent += 1
        self.lag.add(lag)

    def done(self, due: float, *, latency: float, service: float, status: int, error: str, target: str) -> None:
        """Its answer is in, or will not come. Times in seconds; `status` is 0 without an answer, `error` empty for a good one."""
        self.in_flight -= 1
        bucket = self._bucket(due)
        bucket.latency.add(latency)
        self._bucket(due + latency).finished += 1
        self.service.add(service)
        if error:
            bucket.errors[error] += 1
        else:
            bucket.answered += 1
        if 200 <= status < 300 or status == 422:
            self.charged[target] += 1

    def seconds(self, plan: Plan) -> tuple[Second, ...]:
        """All seconds of a plan, those without a request too."""
        return tuple(self.second(plan, number) for number in range(math.ceil(plan.duration_s)))

    def second(self, plan: Plan, number: int) -> Second:
        bucket = self._seconds.get(number) or _Bucket()
        return Second(
            second=number,
            offered=plan.offered(number, number + 1),
            sent=bucket.sent,
            answered=bucket.answered,
            finished=bucket.finished,
            dropped=bucket.dropped,
            errors=dict(bucket.errors),
            in_flight=sum(b.sent - b.finished for at, b in self._seconds.items() if at <= number),
            latency=bucket.latency,
        )

    def generator(self) -> Generator:
        return Generator(lag=self.lag, cpu=self.cpu, starved_s=self.starved_s)

    # Between processes.

    def take(self) -> dict[str, Any]:
        """Everything since the last `take`, to be merged elsewhere."""
        taken = {
            "seconds": {
                number: [b.sent, b.answered, b.finished, b.dropped, dict(b.errors), b.latency.encode()]
                for number, b in self._seconds.items()
            },
            "lag": self.lag.encode(),
            "service": self.service.encode(),
            "charged": dict(self.charged),
            "cpu": self.cpu,
            "starved_s": self.starved_s,
        }
        self._seconds, self.lag, self.service, self.charged = {}, Histogram(), Histogram(), Counter()
        return taken

    def merge(self, taken: dict[str, Any]) -> None:
        for number, (sent, answered, finished, dropped, errors, latency) in taken["seconds"].items():
            bucket = self._seconds.setdefault(int(number), _Bucket())
            bucket.sent += sent
            bucket.answered += answered
            bucket.finished += finished
            bucket.dropped += dropped
            bucket.errors.update(errors)
            bucket.latency.merge(Histogram.decode(latency))
        self.lag.merge(Histogram.decode(taken["lag"]))
        self.service.merge(Histogram.decode(taken["service"]))
        self.charged.update(taken["charged"])
        self.cpu = max(self.cpu, taken["cpu"])
        self.starved_s = max(self.starved_s, taken["starved_s"])

    def _bucket(self, due: float) -> _Bucket:
        number = int(due)
        bucket = self._seconds.get(number)
        if bucket is None:
            bucket = self._seconds[number] = _Bucket()
        return bucket
