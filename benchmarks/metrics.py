"""What counting costs: nanoseconds a call, in one process, and how long a scrape holds up the event loop. Run it by itself.

    python benchmarks/metrics.py

The first figures are of the fastest of several rounds: whatever else the machine does only adds to them.
"""

from collections.abc import Callable
from time import perf_counter
from timeit import repeat

from roost_gateway.metrics.page import make_page
from roost_gateway.predict.figures import PredictFigures
from roost_platform.domain.errors import Throttled
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import Outcome
from roost_runtimes.figures import Figures

_CALLS = 50_000
_ROUNDS = 15
_MODELS = 1000


def main() -> None:
    key = ServiceKey("acme", "iris")
    figures = PredictFigures(models=lambda: [key])
    replica = Figures()
    throttled = Throttled("no", code="rate_limited", limit=1, used=1)

    def answered() -> None:
        figures.answered(
            key, Outcome.OK, version=1, seconds=0.0012, queue_us=35, cold_start_us=0, compute_us=300, rows=1
        )

    def run_and_answered() -> None:
        replica.count_run(1, 300)
        replica.compute_us.add(300)
        replica.queue_us.add(35)
        replica.count_answer(200)

    _say("gateway, a call that is answered", answered)
    _say("gateway, a call that is refused", lambda: figures.failed("acme", throttled))
    _say("replica, a run and its answer", run_and_answered)

    keys = [ServiceKey(f"tenant-{number % 50}", f"model-{number}") for number in range(_MODELS)]
    many = PredictFigures(models=lambda: keys)
    for one in keys:
        many.answered(one, Outcome.OK, version=1, seconds=0.0012, queue_us=35, cold_start_us=5, compute_us=300, rows=1)
    page = make_page(many)
    times = []
    for _ in range(_ROUNDS):
        begin = perf_counter()
        text = page()
        times.append(perf_counter() - begin)
    lines = text.count(b"\n")
    print(
        f"a scrape of {_MODELS} models: {min(times) * 1e3:.1f} ms for {lines} lines, {min(times) / lines * 1e6:.2f} us a line"
    )


def _say(what: str, call: Callable[[], None]) -> None:
    best = min(repeat(call, number=_CALLS, repeat=_ROUNDS)) / _CALLS
    print(f"{what}: {best * 1e9:.0f} ns")


if __name__ == "__main__":
    main()
