"""Terms: what a tenant has agreed beside the price book - a discount, prices of its own, allowances of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from roost_platform.billing.skus import Sku
from roost_platform.billing.tiers import Price, find


@dataclass(frozen=True, slots=True)
class Terms:
    """In force in [effective_from, until). A tenant's later terms replace its earlier ones as a whole."""

    tenant: str
    effective_from: datetime
    until: datetime | None
    """None = until the tenant's next terms."""
    discount: Decimal
    """The share taken off the book's prices, 0 to 1. Prices of its own are what was agreed: nothing is taken off them."""
    prices: Mapping[Sku, Mapping[str, Price]]
    """By resource class, `*` for any other one; other skus and classes cost what the book says, less the discount."""
    free: Mapping[Sku, int]
    """Instead of the book's allowance of this sku, in `Measure.count`s; other skus have the book's."""

    @property
    def name(self) -> str:
        """Different for each: a tenant has no two terms from the same moment."""
        return f"terms/{self.tenant}/{self.effective_from:%Y%m%dT%H%M%S.%fZ}"

    def holds_at(self, at: datetime) -> bool:
        return self.effective_from <= at and (self.until is None or at < self.until)

    def own(self, sku: Sku, variant: str) -> Price | None:
        """The tenant's own price, if it has one."""
        return find(self.prices.get(sku, {}), variant)

    def to_json(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "effective_from": self.effective_from.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "discount": f"{self.discount.normalize():f}",
            "prices": prices_to_json(self.prices),
            "free": {str(sku): count for sku, count in sorted(self.free.items())},
        }


def prices_to_json(prices: Mapping[Sku, Mapping[str, Price]]) -> dict[str, Any]:
    """Each sku's price by resource class; `*` where it does not differ."""
    return {str(sku): {name: by[name].to_json() for name in sorted(by)} for sku, by in sorted(prices.items())}
