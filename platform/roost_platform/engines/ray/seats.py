"""Which replica a request goes to, straight: the one with the fewest of this gateway's requests, first come first served.

Each takes as many as it works on at once, and as many again that wait in it: Serve scales by what its replicas hold, so
that a queue that they did not see would wake none. What is more waits here, for whichever has room first, new ones too.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

_WAITING_PER_WORKING = 1


@dataclass(slots=True)
class Seat:
    """A replica that takes requests itself."""

    replica: str
    address: str
    taken: int = 0


class Seats:
    """Of one revision. Everything happens on the event loop."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._room = 1
        self._queue: deque[asyncio.Future[Seat | None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def taken(self, replica: str) -> int:
        """Requests of this gateway's that it has."""
        seat = self._seats.get(replica)
        return seat.taken if seat else 0

    def learn(self, addresses: Mapping[str, str], *, most_ongoing: int) -> None:
        """By replica's id; `most_ongoing`: requests that one works on at once."""
        self._room = most_ongoing * (1 + _WAITING_PER_WORKING)
        known = self._seats
        self._seats = {
            replica: known[replica]
            if replica in known and known[replica].address == address
            else Seat(replica, address)
            for replica, address in addresses.items()
        }
        self._serve()

    async def take(self) -> Seat | None:
        """A replica with room, to be given back; None when there is none to be asked straight, or none any more."""
        if not self._seats:
            return None
        if not self._queue and (seat := self._free()) is not None:
            seat.taken += 1
            return seat
        place: asyncio.Future[Seat | None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (seat := place.result()) is not None:
                self.give_back(seat)
            elif place in self._queue:
                self._queue.remove(place)
            raise

    def leave_out(self, seat: Seat) -> None:
        """It cannot be reached: nobody is sent there until the next look says that it is there."""
        if self._seats.get(seat.replica) is seat:
            del self._seats[seat.replica]
            self._serve()

    def give_back(self, seat: Seat) -> None:
        seat.taken -= 1
        self._serve()

    def _free(self) -> Seat | None:
        seat = min(self._seats.values(), key=lambda one: one.taken)
        return seat if seat.taken < self._room else None

    def _serve(self) -> None:
        while self._queue:
            seat = None
            if self._seats and (seat := self._free()) is None:
                return
            place = self._queue.popleft()
            if place.done():
                continue
            if seat is not None:
                seat.taken += 1
            place.set_result(seat)
