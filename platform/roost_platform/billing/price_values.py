"""The single values of a price file: each is read, or what is wrong with it is noted and reading goes on."""

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from roost_platform.billing.skus import MEASURES, Sku
from roost_platform.billing.tiers import Mode, Price, Tier, flat

_PRICE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_DISCOUNT = re.compile(r"([0-9]{1,3}(\.[0-9]{1,4})?)%")
_CLASS = re.compile(r"(cpu|gpu)-[1-9][0-9]{0,3}|\*")
_MOST = 10**18
_MOST_TIERS = 50
_A_PRICE = 'a decimal string with up to 12 places, such as "0.20"'
_YEARS = range(1970, 9999)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of a price file."""

    key: str
    """Where, as in `book[0].prices.requests`; tables that repeat are numbered from 0. Empty: the file as a whole."""
    value: str
    """What is there, shortened."""
    wanted: str
    """What must be there: `key must be …`; the whole story where there is no key."""

    def __str__(self) -> str:
        return f"{self.key} must be {self.wanted}, but is {self.value}" if self.key else self.wanted


class Reader:
    """Reads values and collects what is wrong with them, in the order in which it was met."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, key: str, value: object, wanted: str) -> None:
        self.problems.append(Problem(key, "missing" if value is None else _shown(value), wanted))

    def no_others(self, table: Mapping[str, Any], known: Iterable[str], *, where: str) -> None:
        names = sorted(known)
        for key, value in table.items():
            if key not in names:
                self.wrong(f"{where}{plain_key(key)}", value, f"one of {', '.join(names)}")

    def time(self, key: str, value: object) -> datetime | None:
        """A moment, in UTC."""
        if isinstance(value, datetime) and value.tzinfo is not None and value.year in _YEARS:
            return value.astimezone(UTC)
        self.wrong(key, value, "a time with an offset, such as 2026-01-01T00:00:00Z")
        return None

    def discount(self, key: str, value: object) -> Decimal:
        """A share, 0 to 1."""
        found = _DISCOUNT.fullmatch(value) if isinstance(value, str) else None
        if found is None or Decimal(found[1]) > 100:
            self.wrong(key, value, 'a share from "0%" to "100%" with up to 4 places')
            return Decimal(0)
        return Decimal(found[1]).scaleb(-2)

    def prices(self, key: str, value: object) -> dict[Sku, dict[str, Price]]:
        """By resource class; `*` where there is one price for all."""
        if not isinstance(value, dict):
            self.wrong(key, value, "a table of prices")
            return {}
        self.no_others(value, set(Sku), where=f"{key}.")
        return {sku: self._by_class(f"{key}.{sku}", value[sku], sku) for sku in Sku if sku in value}

    def free(self, key: str, value: object) -> dict[Sku, int]:
        """Allowances, in counts of the sku's measure."""
        if not isinstance(value, dict):
            self.wrong(key, value, "a table of free allowances")
            return {}
        self.no_others(value, set(Sku), where=f"{key}.")
        counts = {sku: self._count(f"{key}.{sku}", value[sku], sku, least=0) for sku in Sku if sku in value}
        return {sku: count for sku, count in counts.items() if count is not None}

    def _by_class(self, key: str, value: object, sku: Sku) -> dict[str, Price]:
        if not isinstance(value, dict) or not MEASURES[sku].by_class or {"mode", "tiers"} & value.keys():
            price = self._price(key, value, sku)
            return {} if price is None else {"*": price}
        if not value:
            self.wrong(key, value, 'a price, or prices by resource class such as { "cpu-1" = "0.01", "*" = "0.02" }')
        found: dict[str, Price] = {}
        for name, each in value.items():
            if not _CLASS.fullmatch(name):
                self.wrong(f"{key}.{plain_key(name)}", each, 'of a resource class: cpu-N, gpu-N, or "*" for any other')
                continue
            price = self._price(f"{key}.{name}", each, sku)
            if price is not None:
                found[name] = price
        return found

    def _price(self, key: str, value: object, sku: Sku) -> Price | None:
        if isinstance(value, dict) and {"mode", "tiers"} & value.keys():
            return self._tiered(key, value, sku)
        number = self._number(key, value)
        return None if number is None else flat(number)

    def _tiered(self, key: str, value: dict[str, Any], sku: Sku) -> Price | None:
        self.no_others(value, {"mode", "tiers"}, where=f"{key}.")
        mode, tables = value.get("mode"), value.get("tiers")
        if mode not in (Mode.GRADUATED, Mode.VOLUME):
            self.wrong(f"{key}.mode", mode, '"graduated" or "volume"')
            mode = Mode.GRADUATED
        if not isinstance(tables, list) or not 1 <= len(tables) <= _MOST_TIERS:
            wanted = f'1 to {_MOST_TIERS} tiers, such as [{{ up_to = 1000, price = "0.20" }}, {{ price = "0.10" }}]'
            self.wrong(f"{key}.tiers", tables, wanted)
            return None
        tiers: list[Tier] = []
        for i, table in enumerate(tables):
            self._tier(f"{key}.tiers[{i}]", table, sku, tiers, last=i == len(tables) - 1)
        return Price(Mode(mode), tuple(tiers)) if len(tiers) == len(tables) else None

    def _tier(self, key: str, table: object, sku: Sku, before: list[Tier], *, last: bool) -> None:
        if not isinstance(table, dict):
            self.wrong(key, table, "a table with up_to and price")
            return
        self.no_others(table, {"up_to", "price"}, where=f"{key}.")
        price, up_to = self._number(f"{key}.price", table.get("price")), table.get("up_to")
        if last and up_to is not None:
            self.wrong(f"{key}.up_to", up_to, "absent: the last tier has no end")
        bound = None if last else self._count(f"{key}.up_to", up_to, sku, least=1)
        previous = max((tier.up_to for tier in before if tier.up_to is not None), default=0)
        if bound is not None and bound <= previous:
            self.wrong(f"{key}.up_to", bound, f"more than the tier before has, {previous}")
        if price is not None and (last or bound is not None):
            before.append(Tier(bound, price))

    def _number(self, key: str, value: object) -> Decimal | None:
        if isinstance(value, str) and _PRICE.fullmatch(value):
            return Decimal(value)
        self.wrong(key, value, _A_PRICE)
        return None

    def _count(self, key: str, value: object, sku: Sku, *, least: int) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST:
            return value
        self.wrong(key, value, f"a whole number of {MEASURES[sku].count} from {least} to 10^18")
        return None


def _shown(value: object) -> str:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, int) and abs(value) > _MOST:
        return "a number of more than 18 digits"  # Python refuses to write out the very longest
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else f"a list of {len(value)}"
    return _short(value)


def plain_key(key: str) -> str:
    """A key that a file made up, fit for a message."""
    return key if re.fullmatch(r"[A-Za-z0-9_*-]{1,64}", key) else _short(key)


def _short(value: object) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)
