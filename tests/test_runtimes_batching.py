"""Dynamic batching: what shares a run, whose rows are whose, and that a bad row fails alone."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models_for_tests as models
from roost_runtimes.batching import batch_key, can_batch, run_stacked, take_batch
from roost_runtimes.codec import Call
from roost_runtimes.core import Answer, Core, Request
from roost_runtimes.onnx_model import OnnxModel


def request(values, *, tensor="index", datatype="INT64", **document) -> Request:
    array = np.array(values)
    one = {"name": tensor, "datatype": datatype, "shape": array.shape, "data": array.ravel().tolist()}
    return Request("POST", "/v2/models/m/infer", {}, orjson.dumps({"inputs": [one]} | document))


def together(core: Core, *requests: Request) -> list[Answer]:
    """Submit all, then pump until all are answered; answers in order of submission."""
    answers: dict[int, Answer] = {}

    async def pump() -> None:  # which goes on in a later turn of the loop where this one took long
        done = asyncio.Event()

        def answered(index: int, answer: Answer) -> None:
            answers[index] = answer
            if len(answers) == len(requests):
                done.set()

        for index, one in enumerate(requests):
            core.submit(one, partial(answered, index))
        core.pump()
        await done.wait()

    asyncio.run(pump())
    return [answers[index] for index in range(len(requests))]


def data(answer: Answer, output=0):
    return orjson.loads(answer.body[0])["outputs"][output]["data"]


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(
        OnnxModel(models.fails_on_negative(tmp_path / "m.onnx"), name="m", version="1"), max_batch_size=8, run_us=10
    )


def test_queued_requests_share_a_run_and_get_their_own_rows(core: Core):
    answers = together(core, request([0]), request([1, 2]), request([2]))
    assert [data(answer) for answer in answers] == [[10], [20, 30], [30]]
    assert [answer.rows for answer in answers] == [1, 2, 1]
    assert core.figures.runs == 1
    assert sum(answer.compute_us for answer in answers) == core.busy_us


def test_a_bad_row_fails_alone(core: Core):
    good, bad, other = together(core, request([0]), request([-7]), request([1]))
    assert (data(good), data(other)) == ([10], [20])
    assert (bad.status, orjson.loads(bad.body[0])["code"]) == (422, "model_error")


def test_a_batch_is_bounded_and_a_larger_request_runs_alone(core: Core):
    answers = together(core, *(request([i % 3]) for i in range(20)), request([0] * 50))
    assert [data(answer) for answer in answers[:3]] == [[10], [20], [30]]
    assert data(answers[-1]) == [10] * 50
    assert core.figures.runs == 4


def test_different_shapes_and_outputs_do_not_mix(tmp_path):
    core = Core(OnnxModel(models.iris_like(tmp_path / "m.onnx"), name="m", version="1"), max_batch_size=8, run_us=10)
    row = [[5.1, 3.5, 1.4, 0.2]]
    asked = {"tensor": "input", "datatype": "FP32"}
    both, label, again = together(
        core, request(row, **asked), request(row, outputs=[{"name": "label"}], **asked), request(row, **asked)
    )
    assert core.figures.runs == 2
    assert data(label) == data(both) == data(again) == [0]
    assert len(orjson.loads(label.body[0])["outputs"]) == 1


def test_answers_are_those_of_single_runs(tmp_path):
    path = models.iris_like(tmp_path / "m.onnx")
    rows = np.random.default_rng(3).random((16, 1, 4), np.float32) * 5
    bodies = [request(row, tensor="input", datatype="FP32") for row in rows]
    alone = Core(OnnxModel(path, name="m", version="1"), run_us=10)
    stacked = Core(OnnxModel(path, name="m", version="1"), run_us=10, max_batch_size=16)
    for one, other in zip(together(alone, *bodies), together(stacked, *bodies), strict=True):
        assert data(one, 0) == data(other, 0)
        np.testing.assert_allclose(data(one, 1), data(other, 1), rtol=1e-6)
    assert (alone.figures.runs, stacked.figures.runs) == (16, 1)


def test_models_with_a_fixed_dimension_are_never_batched(tmp_path):
    assert can_batch(OnnxModel(models.two_inputs(tmp_path / "a.onnx"), name="m", version="1"))
    assert not can_batch(OnnxModel(models.scalar_input(tmp_path / "b.onnx"), name="m", version="1"))
    assert not can_batch(OnnxModel(models.slow_loop(tmp_path / "c.onnx"), name="m", version="1"))


async def test_cancelling_one_of_a_batch_leaves_the_others(tmp_path):
    core = Core(OnnxModel(models.add_one(tmp_path / "m.onnx"), name="m", version="1"), max_batch_size=8, run_us=10**9)
    asked = {"tensor": "x", "datatype": "FP32"}
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
    tickets = [core.submit(request([[1, 2, 3, 4]], **asked), future.set_result) for future in futures]
    core.pump()
    core.cancel(tickets[0])
    await asyncio.gather(*futures)
    assert data(futures[1].result()) == [2, 3, 4, 5]
    core.close()


def call(rows: int, width: int = 1) -> Call:
    one = Call({"x": np.full((rows, width), rows, np.float32)}, None, rows, lambda _: ((), []))
    one.batch_key = batch_key(one)
    return one


@dataclass
class Entry:
    call: Call
    number: int = field(default=0)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2)), min_size=1, max_size=30), limit=st.integers(2, 12)
)
def test_every_request_leaves_the_queue_once_in_order_and_within_the_bound(sizes, limit):
    queue = deque(Entry(call(rows, width), number) for number, (rows, width) in enumerate(sizes))
    left: list[Entry] = []
    while queue:
        first = queue[0]
        batch = take_batch(queue, limit)
        assert batch[0] is first
        assert sum(entry.call.rows for entry in batch) <= limit or len(batch) == 1
        assert len({entry.call.batch_key for entry in batch}) == 1
        assert [entry.number for entry in batch] == sorted(entry.number for entry in batch)
        left += batch
    assert sorted(entry.number for entry in left) == list(range(len(sizes)))


def test_outputs_that_are_not_one_row_per_row_are_not_split():
    assert run_stacked([call(1), call(2)], lambda feeds: [feeds["x"].sum(axis=0)]) is None
    assert run_stacked([call(1), call(2)], lambda feeds: [feeds["x"].sum()[()] * np.ones(())]) is None
