"""Runs in threads: slots, the queue's bound, cancellation, closing."""

import asyncio
import threading
import time

import models_for_tests as models
from roost_runtimes.core import Core, Limits
from roost_runtimes.model import Model, TensorSpec
from roost_runtimes.onnx_model import OnnxModel
from runtime_cores import Gauge, get, infer_request, outputs, submit

HOUR_US = 3_600_000_000


async def test_one_slot_never_runs_two_at_once():
    model = Gauge()
    core = Core(model, slots=1, run_us=HOUR_US)
    core.warm_up()
    answers = [submit(core, infer_request([float(i)]))[1] for i in range(20)]
    core.pump()
    await asyncio.to_thread(model.started.acquire)
    assert core.inflight == 20
    assert get(core, "/v2/health/ready").status == 200  # answered while the model computes
    model.gate.set()
    for i, answer in enumerate(await asyncio.gather(*answers)):
        assert outputs(answer) == {"x": [i]}
    assert model.most == 1
    core.close()


async def test_slots_run_at_once_and_no_more():
    model = Gauge()
    core = Core(model, slots=3, run_us=HOUR_US)
    answers = [submit(core, infer_request([float(i)]))[1] for i in range(7)]
    core.pump()
    for _ in range(3):
        await asyncio.to_thread(model.started.acquire)
    model.gate.set()
    assert [outputs(answer)["x"] for answer in await asyncio.gather(*answers)] == [[i] for i in range(7)]
    assert model.most == 3
    core.close()


async def test_a_full_queue_refuses_at_once_and_serves_what_it_took():
    model = Gauge()
    core = Core(model, slots=1, run_us=HOUR_US, limits=Limits(queued_requests=2))
    _, running = submit(core, infer_request([0.0]))
    core.pump()
    waiting = [submit(core, infer_request([float(i)]))[1] for i in (1, 2)]
    ticket, refused = submit(core, infer_request([3.0]))
    assert ticket is None
    assert (refused.result().status, dict(refused.result().headers)["retry-after"]) == (503, "1")
    model.gate.set()
    for answer in (running, *waiting):
        assert (await answer).status == 200
    core.close()


async def test_cancelling_drops_the_queued_and_ends_the_running():
    model = Gauge()
    core = Core(model, slots=1, run_us=HOUR_US)
    running, first = submit(core, infer_request([1.0]))
    queued, second = submit(core, infer_request([2.0]))
    _, third = submit(core, infer_request([3.0]))
    core.pump()
    await asyncio.to_thread(model.started.acquire)
    assert queued is not None
    assert running is not None
    core.cancel(queued)
    assert second.result().status == 499
    core.cancel(running)
    core.cancel(running)
    assert (await first).status == 499
    assert first.result().compute_us >= 1
    assert (await third).status == 200
    assert model.runs == 2
    assert core.inflight == 0
    core.cancel(running)
    core.close()


async def test_a_loop_inside_a_model_is_ended_by_cancelling(tmp_path):
    core = Core(OnnxModel(models.slow_loop(tmp_path / "m.onnx"), name="m", version="1"), run_us=HOUR_US)
    ticket, answer = submit(core, infer_request([2**62], tensor="trips", datatype="INT64"))
    core.pump()
    assert ticket is not None
    core.cancel(ticket)
    assert (await answer).status == 499
    _, after = submit(core, infer_request([3], tensor="trips", datatype="INT64"))
    core.pump()
    assert (await after).status == 200
    core.close()


async def test_closing_answers_everything():
    model = Gauge()
    core = Core(model, slots=1, run_us=HOUR_US)
    answers = [submit(core, infer_request([float(i)]))[1] for i in range(3)]
    core.pump()
    await asyncio.to_thread(model.started.acquire)
    core.close()
    assert [answer.status for answer in await asyncio.gather(*answers)] == [499] * 3


class Mixed(Model):
    """x -> x: computes for 0.3 ms; when x is negative it also waits for 3 ms, as if another process had the core."""

    platform = "test"

    def __init__(self) -> None:
        self.name, self.version = "m", "1"
        self.inputs = self.outputs = [TensorSpec("x", "FP32", (-1,))]
        self.threads: set[int] = set()

    def run(self, feeds, outputs=None, control=None):
        self.threads.add(threading.get_ident())
        end = time.thread_time_ns() + 300_000
        while time.thread_time_ns() < end:
            pass
        if feeds["x"][0] < 0:
            time.sleep(0.003)
        return [feeds["x"]]

    def warm_up(self):
        pass


async def test_time_that_others_took_does_not_send_a_quick_model_to_threads():
    """Also late in a turn in which much was computed: a run's share of that is its own alone."""
    model = Mixed()
    core = Core(model, slots=2, run_us=300)
    core.warm_up()
    for _ in range(8):
        answers = [submit(core, infer_request([float(x)]))[1] for x in (1, 1, 1, 1, 1, 1, -1, -1)]
        core.pump()
        await asyncio.gather(*answers)
    assert model.threads == {threading.get_ident()}
