"""What a simulated load costs by the prices in force, as `GET /api/v1/prices` tells them. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from roost_platform.autoscaling.simulate import Simulation
from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.skus import ColdStart, Sku

_US = 1_000_000
_MORE_DIGITS = 4
"""A few minutes cost little: amounts are shown so many digits beyond a bill's."""


def cost(simulation: Simulation, prices: Mapping[str, Any], *, service_s: float, resource_class: str) -> Decimal:
    """Of all that follows from the number of calls and the seconds of replicas, in the book's currency.

    Bytes, stored files and monthly allowances are left out, and prices with tiers count as in their first: a simulation does
    not know the rest of the month.
    """
    total = Fraction(0)
    for sku, units in _used(simulation, service_s, charges_setup=prices["cold_start"] != ColdStart.PLATFORM).items():
        price = _price(prices, sku, resource_class)
        if price is not None:
            total += units * Fraction(Decimal(price["unit_price"])) / price["per"]
    digits = MINOR_UNITS[prices["currency"]] + _MORE_DIGITS
    return Decimal(round(total * 10**digits)).scaleb(-digits)


def _used(simulation: Simulation, service_s: float, *, charges_setup: bool) -> dict[Sku, Fraction]:
    """In the units that prices are told in."""

    def microseconds(seconds: float) -> Fraction:
        return Fraction(round(seconds * _US))

    requests = Fraction(round(simulation.requests))
    return {
        Sku.REQUESTS: requests,
        Sku.INFERENCES: requests,
        Sku.COMPUTE_SECONDS: microseconds(simulation.requests * service_s),
        Sku.SETUP_SECONDS: microseconds(simulation.setup_s if charges_setup else 0.0),
        Sku.ACTIVE_SECONDS: microseconds(simulation.active_s),
        Sku.IDLE_SECONDS: microseconds(simulation.idle_s),
        Sku.RESERVED_SECONDS: microseconds(simulation.reserved_s),
        Sku.COLD_STARTS: Fraction(simulation.cold_starts),
    }


def _price(prices: Mapping[str, Any], sku: Sku, resource_class: str) -> Mapping[str, Any] | None:
    """The first tier's; a class of its own goes before any other."""
    found = {each["class"]: each for each in reversed(prices["prices"]) if each["sku"] == sku}
    return found.get(resource_class) or found.get("*") or found.get("")
