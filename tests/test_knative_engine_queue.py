"""The line of models to look at: once each, never twice at a time, failures ever later."""

import asyncio

from roost_platform.engines.knative.work_queue import LONGEST_PAUSE_S, WorkQueue


async def test_a_key_is_in_line_once_and_the_earliest_wish_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("late", after_s=0.05)
    queue.add("a", after_s=60)
    queue.add("b")
    queue.add("a")
    queue.add("a", after_s=30)
    assert [await queue.get(), await queue.get(), await queue.get()] == ["b", "a", "late"]
    await _nothing_is_due(queue)


async def test_a_key_that_is_looked_at_is_not_given_to_a_second_worker() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    await _nothing_is_due(queue)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    await _nothing_is_due(queue)


async def test_who_waits_is_woken_by_an_earlier_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("late", after_s=60)
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("now")
    assert await waiting == "now"


async def test_failures_in_a_row_wait_ever_longer_and_success_forgets_them() -> None:
    queue: WorkQueue[str] = WorkQueue()
    pauses = [queue.add_failed("a") for _ in range(30)]
    assert 0.1 <= pauses[0] <= 0.2
    assert LONGEST_PAUSE_S / 2 <= pauses[-1] <= LONGEST_PAUSE_S
    assert queue.add_failed("a", at_least_s=1000) == 1000
    queue.succeeded("a")
    assert queue.add_failed("a") <= 0.2


async def _nothing_is_due(queue: WorkQueue[str]) -> None:
    waiting = asyncio.ensure_future(queue.get())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
