"""Refused calls, summed: one row of the ledger per minute and kind of refusal, however many there were.

A client that is refused in a loop would otherwise fill the ledger for nothing. Each refusal still writes its own line to the
journal before its answer leaves, but that line holds the sums of its kind so far in this minute, under the sequence number
of the first. The ledger keeps the line with the most calls, so neither order nor repetition of lines matters, and what a
`kill -9` leaves in the journal is exact to the last answered call.
"""

from dataclasses import dataclass

from roost_platform.domain.usage import Outcome

MINUTE_US = 60_000_000
_OUTCOMES = frozenset({Outcome.THROTTLED, Outcome.CLIENT_ERROR})

Kind = tuple[str, str, int, Outcome, int]
"""Tenant, model, version, outcome, status."""


@dataclass(slots=True)
class Sum:
    """The refusals of one kind in one minute. Sequence, time and request id are those of the first."""

    sequence: int
    time_us: int
    request_id: str
    requests: int = 0
    queue_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def is_summed(outcome: Outcome, *, compute_us: int, cold_start_us: int, rows: int) -> bool:
    """Whether a call is a mere refusal: nothing was computed, and nothing was woken for it."""
    return outcome in _OUTCOMES and not (compute_us or cold_start_us or rows)


class Refusals:
    """The sums of the running minute of a journal."""

    def __init__(self) -> None:
        self._minute = -1
        self._sums: dict[Kind, Sum] = {}

    def of(self, kind: Kind, *, sequence: int, time_us: int, request_id: str) -> Sum:
        """The sum that a refusal belongs to: the one there is, or a new one with this sequence number."""
        minute = time_us // MINUTE_US
        if minute != self._minute:
            self._minute = minute
            self._sums.clear()
        found = self._sums.get(kind)
        if found is None:
            found = self._sums[kind] = Sum(sequence, time_us, request_id)
        return found

    def forget(self) -> None:
        """Begin anew: what was added last may not have been written."""
        self._sums.clear()
