"""The simulated autoscaler beside the real local engine's, second by second: no more than one replica apart in 95 of 100."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from engine_clockwork import Clockwork
from engine_harness import KEY
from roost_loadtest.arrivals import due_times
from roost_loadtest.shapes import Shape, ramp, spike, steps
from roost_platform.autoscaling.replicas import ReplicaModel
from roost_platform.autoscaling.simulate import simulate
from roost_platform.domain.scaling import Metric, ScalingPolicy

SERVICE_S = 0.05
AFTER_S = 110
"""Long enough for the last replica to go."""
SHAPES = {
    "steps": steps([(20, 40), (80, 60), (140, 60), (20, 60)]),
    "ramp": ramp(5, 140, 150),
    "spike": spike(20, 140, before_s=60, spike_s=20, after_s=90),
}
POLICIES = {
    "four at a time": ScalingPolicy(container_concurrency=4, window_s=6, scale_down_delay_s=10, max_scale=3),
    "default window": ScalingPolicy(target=3),
    "no limit": ScalingPolicy(target=2, window_s=30, min_scale=1),
    "requests per second": ScalingPolicy(metric=Metric.RPS, target=40, window_s=10),
}


@pytest.fixture
async def clockwork(tmp_path: Path) -> AsyncIterator[Clockwork]:
    made = Clockwork()
    await made.start(tmp_path)
    yield made
    await made.stop()
    assert not made.replicas()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_the_simulated_replicas_are_the_real_engines(clockwork: Clockwork, shape: Shape):
    """Requests come at random and take 50 ms each; what is simulated knows only how many came in each second."""
    due = list(due_times(shape, seed=6))
    edges = [sum(at < second for at in due) for second in range(round(shape.duration_s) + 1)]
    counts = [float(b - a) for a, b in pairwise(edges)] + [0.0] * AFTER_S
    for name, policy in POLICIES.items():
        revision = clockwork.install()
        await clockwork.apply(revision, **asdict(policy))
        await clockwork.until_ready(revision)
        await clockwork.pass_time(130)  # the first start is over, and it sleeps unless it is kept
        real = await clockwork.play(revision, due, service_s=SERVICE_S, seconds=len(counts))

        model = ReplicaModel(service_s=SERVICE_S, slots=policy.container_concurrency or 64)
        room = clockwork.capacity.replicas
        simulated = [each.ready for each in simulate(counts, policy=policy, replica=model, most=room).seconds]

        apart = [abs(a - b) for a, b in zip(simulated, real, strict=True)]
        assert sum(each <= 1 for each in apart) / len(apart) >= 0.95, name
        assert max(real) > 2, name
        assert real[-1] == simulated[-1] == policy.min_scale, name
        await clockwork.engine.delete(KEY)
