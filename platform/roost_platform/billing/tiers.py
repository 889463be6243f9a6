"""Prices that depend on how much is used: flat, graduated and volume. Pure arithmetic on whole base units.

The units of a month are numbered 1, 2, 3 …; a price says what each of them costs. Graduated: the first tier's units cost
the first price, the next ones the second. Volume: all cost what the tier says that the month's total lies in. A tier holds
the units up to and including its bound.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any

_EXACT = Context(prec=60)
"""A price has at most 24 digits and a share at most 8: no product is ever rounded."""


class Mode(StrEnum):
    FLAT = "flat"
    GRADUATED = "graduated"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Tier:
    up_to: int | None
    """The last unit in it, in the counts that its sku is told in (`Measure.count`); None = no end."""
    price: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """What a sku's `Measure.per` units cost."""

    mode: Mode
    tiers: tuple[Tier, ...]
    """By rising bounds, the last without one; a flat price has one tier."""

    def discounted(self, share: Decimal) -> "Price":
        """Each price less this share of it (0.1 = 10 %), to the last digit."""
        return Price(self.mode, tuple(Tier(tier.up_to, _less(tier.price, share)) for tier in self.tiers))

    def to_json(self) -> Any:
        """As it is written in a price file."""
        if self.mode is Mode.FLAT:
            return f"{self.tiers[0].price:f}"
        tiers = [
            {"price": f"{tier.price:f}"} | ({} if tier.up_to is None else {"up_to": tier.up_to}) for tier in self.tiers
        ]
        return {"mode": str(self.mode), "tiers": tiers}


@dataclass(frozen=True, slots=True)
class Step:
    """Units up to and including `last` (None = all) cost this."""

    last: int | None
    tier: int
    """From 1 upwards, 0 where a price has no tiers."""
    price: Decimal


@dataclass(frozen=True, slots=True)
class Piece:
    """The units after `after` up to and including `last`; all at one price."""

    after: int
    last: int


def flat(price: Decimal) -> Price:
    return Price(Mode.FLAT, (Tier(None, price),))


def steps(price: Price, *, total: int, count_units: int) -> tuple[Step, ...]:
    """What each unit of a month with this total costs; `total` in base units, of which `count_units` make a count."""
    made = tuple(
        Step(
            None if tier.up_to is None else tier.up_to * count_units,
            0 if price.mode is Mode.FLAT else number,
            tier.price,
        )
        for number, tier in enumerate(price.tiers, start=1)
    )
    if price.mode is not Mode.VOLUME:
        return made
    reached = step_at(made, total)
    return (Step(None, reached.tier, reached.price),)


def step_at(found: tuple[Step, ...], unit: int) -> Step:
    """The step that this unit lies in; those before the first one lie in the first."""
    return next(step for step in found if step.last is None or unit <= step.last)


def pieces(after: int, last: int, steps_: Iterable[tuple[Step, ...]]) -> Iterator[Piece]:
    """(after, last] cut where any of these prices changes."""
    bounds = {step.last for found in steps_ for step in found if step.last is not None and after < step.last < last}
    for a, b in pairwise([after, *sorted(bounds), last]):
        yield Piece(a, b)


def find(prices: Mapping[str, Price], variant: str) -> Price | None:
    """The price for a resource class; `*` is for any other one."""
    return prices.get(variant) or prices.get("*")


def _less(price: Decimal, share: Decimal) -> Decimal:
    exact = _EXACT.multiply(price, _EXACT.subtract(Decimal(1), share))
    short = exact.normalize(_EXACT)
    places = min(_exponent(short), _exponent(price))  # as many places as the list price shows, at least
    return short.quantize(Decimal((0, (1,), places)), context=_EXACT)


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "prices are finite"
    return exponent
