"""How requests are shared among versions: by turns that are exact in every hundred, or by a key that sticks.

All of it is pure. A table of turns is made once for each split; a request costs one look-up in it.
"""

import math
from collections.abc import Mapping
from hashlib import blake2b

from roost_platform.domain.errors import InvalidRequest


def checked(percents: Mapping[str, int]) -> dict[str, int]:
    """Raises InvalidRequest unless the percents are 0 to 100 and sum to 100."""
    for name, percent in percents.items():
        if not 0 <= percent <= 100:
            raise InvalidRequest(f"the share of {name} is {percent} %, not 0 to 100", field="split")
    total = sum(percents.values())
    if total != 100:
        raise InvalidRequest(f"the shares sum to {total} %, not to 100", field="split")
    return dict(percents)


def turns(percents: Mapping[str, int]) -> tuple[str, ...]:
    """A hundred turns by smooth weighted round robin: each name has its percent of them, spread evenly.

    Each turn, every name earns its percent and the richest, the first of equals, pays 100 and is taken.
    """
    shares = checked(percents)
    earned = dict.fromkeys(shares, 0)
    taken: list[str] = []
    for _ in range(100):
        for name, percent in shares.items():
            earned[name] += percent
        best = max(earned, key=earned.__getitem__)
        earned[best] -= 100
        taken.append(best)
    return tuple(taken)


class Sticking:
    """Which name a key belongs to, by weighted rendezvous hashing: score = percent / -ln(u), u in (0, 1) of (name, key).

    A name whose share grows only gains keys and one whose share shrinks only loses them, as far as the others' ratios stay.
    The same for every gateway, and after every restart.
    """

    def __init__(self, percents: Mapping[str, int]) -> None:
        """Raises InvalidRequest as `checked` does."""
        self._shares = tuple(
            (name, percent, blake2b(name.encode(), digest_size=32).digest())
            for name, percent in checked(percents).items()
            if percent
        )

    def of(self, key: bytes) -> str:
        best, best_score = "", -1.0
        for name, percent, salt in self._shares:
            drawn = int.from_bytes(blake2b(key, digest_size=6, key=salt).digest())
            score = percent / -math.log((drawn + 0.5) / 2**48)
            if score > best_score:
                best, best_score = name, score
        return best
