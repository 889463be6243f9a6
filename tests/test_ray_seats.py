"""Which replica a request goes to straight, and who waits. Needs no Ray."""

import asyncio
from collections import Counter

from roost_platform.engines.ray.seats import Seat, Seats


def seats(*addresses: str, most_ongoing: int = 1) -> Seats:
    made = Seats()
    made.learn({address: address for address in addresses}, most_ongoing=most_ongoing)
    return made


async def test_without_replicas_nothing_is_asked_straight():
    assert await Seats().take() is None


async def test_requests_spread_evenly():
    free = seats("a", "b", "c", most_ongoing=5)
    taken = [await free.take() for _ in range(12)]
    assert Counter(seat.address for seat in taken if seat) == {"a": 4, "b": 4, "c": 4}


async def test_as_many_again_wait_in_a_replica_as_it_works_on_and_the_rest_here_in_order():
    free = seats("a")
    first, second = await free.take(), await free.take()
    waiting = [asyncio.create_task(free.take()) for _ in range(3)]
    await asyncio.sleep(0)
    assert free.waiting == 3
    assert first is second
    free.give_back(first)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    free.learn({"a": "a", "b": "b"}, most_ongoing=1)
    assert [(await task).address for task in waiting] == ["a", "b", "b"]


async def test_who_stops_waiting_takes_no_seat():
    free = seats("a")
    taken = [await free.take() for _ in range(2)]
    gone, stays = (asyncio.create_task(free.take()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    free.give_back(taken[0])
    assert await stays is taken[0]
    assert free.taken("a") == 2


async def test_who_stops_in_the_moment_that_it_got_a_seat_gives_it_back():
    free = seats("a")
    taken = [await free.take() for _ in range(2)]
    gone = asyncio.create_task(free.take())
    await asyncio.sleep(0)
    free.give_back(taken[0])
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert free.taken("a") == 1


async def test_when_all_replicas_are_gone_those_who_wait_go_another_way():
    free = seats("a")
    taken = [await free.take() for _ in range(2)]
    waiting = asyncio.create_task(free.take())
    await asyncio.sleep(0)
    free.learn({}, most_ongoing=1)
    assert await waiting is None
    for seat in taken:
        assert isinstance(seat, Seat)
        free.give_back(seat)


async def test_a_replica_that_listens_elsewhere_is_another():
    free = seats("a")
    old = await free.take()
    free.learn({"a": "elsewhere"}, most_ongoing=1)
    new = await free.take()
    assert (old.taken, new.taken, new.address) == (1, 1, "elsewhere")


async def test_one_that_cannot_be_reached_is_left_out_until_it_is_seen_again():
    free = seats("a", "b")
    seat = await free.take()
    free.leave_out(seat)
    assert {(await free.take()).address for _ in range(2)} == {"b"}
    free.give_back(seat)
    free.learn({"a": "a", "b": "b"}, most_ongoing=1)
    assert (await free.take()).address == "a"
