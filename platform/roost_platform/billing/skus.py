"""Skus: what can be charged, which meters count it, and in what its price is told. The order is a statement's."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from roost_platform.domain.meters import Meter

NOT_CHARGED = "not_charged"
"""The sku of lines that show calls which cost nothing because of how they ended, or when."""


class Sku(StrEnum):
    REQUESTS = "requests"
    COMPUTE_SECONDS = "compute_seconds"
    INFERENCES = "inferences"
    BYTES_IN = "bytes_in"
    BYTES_OUT = "bytes_out"
    SETUP_SECONDS = "setup_seconds"
    ACTIVE_SECONDS = "active_seconds"
    IDLE_SECONDS = "idle_seconds"
    RESERVED_SECONDS = "reserved_seconds"
    COLD_STARTS = "cold_starts"
    STORAGE = "storage"
    CHECK_SECONDS = "check_seconds"


class ColdStart(StrEnum):
    """Which part of bringing up a replica its tenant pays."""

    PLATFORM = "platform"
    """None of it."""
    LOAD = "load"
    """Loading and warming the model; bringing the file and finding a place are the platform's."""
    ALL = "all"


class ShadowCalls(StrEnum):
    """What copies to a shadow cost."""

    FREE = "free"
    """Nothing for the calls; the replicas that take them are held as any other."""
    CHARGED = "charged"
    """As calls, on lines of their own."""


SHADOW = "shadow"
"""The variant of lines that are about copies."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How a sku is counted: in whole `unit`s; the price is for `per` of them."""

    unit: str
    """The base unit of its meter."""
    per: int
    text: str
    count: str
    """What tiers and free allowances are told in."""
    count_units: int
    """`unit`s in one `count`."""
    by_class: bool = False
    """Prices may differ by resource class."""


_US, _GIB = 1_000_000, 2**30
_SECOND_OF_CLASS = ("microseconds", _US, "per second of a replica", "seconds", _US, True)

MEASURES: Mapping[Sku, Measure] = {
    Sku.REQUESTS: Measure("requests", 1_000_000, "per million requests", "requests", 1),
    Sku.COMPUTE_SECONDS: Measure("microseconds", _US, "per compute second", "seconds", _US),
    Sku.INFERENCES: Measure("rows", 1_000, "per thousand rows", "rows", 1),
    Sku.BYTES_IN: Measure("bytes", _GIB, "per GiB in", "bytes", 1),
    Sku.BYTES_OUT: Measure("bytes", _GIB, "per GiB out", "bytes", 1),
    Sku.SETUP_SECONDS: Measure(*_SECOND_OF_CLASS),
    Sku.ACTIVE_SECONDS: Measure(*_SECOND_OF_CLASS),
    Sku.IDLE_SECONDS: Measure(*_SECOND_OF_CLASS),
    Sku.RESERVED_SECONDS: Measure(*_SECOND_OF_CLASS),
    Sku.COLD_STARTS: Measure("cold starts", 1_000, "per thousand cold starts", "cold starts", 1),
    Sku.STORAGE: Measure("byte-seconds", _GIB * 3600, "per GiB and hour", "GiB-hours", _GIB * 3600),
    Sku.CHECK_SECONDS: Measure("microseconds", _US, "per second of a check", "seconds", _US),
}

_SKU_OF = {
    Meter.REQUESTS: Sku.REQUESTS,
    Meter.INFERENCES: Sku.INFERENCES,
    Meter.COMPUTE: Sku.COMPUTE_SECONDS,
    Meter.BYTES_IN: Sku.BYTES_IN,
    Meter.BYTES_OUT: Sku.BYTES_OUT,
    Meter.ACTIVE: Sku.ACTIVE_SECONDS,
    Meter.IDLE: Sku.IDLE_SECONDS,
    Meter.RESERVED: Sku.RESERVED_SECONDS,
    Meter.COLD_STARTS: Sku.COLD_STARTS,
    Meter.STORAGE: Sku.STORAGE,
    Meter.CHECK: Sku.CHECK_SECONDS,
}
_SETUP = {ColdStart.PLATFORM: None, ColdStart.LOAD: Meter.LOAD, ColdStart.ALL: Meter.SETUP}


def sku_of(meter: Meter, cold_start: ColdStart) -> Sku | None:
    """What this meter's amounts are charged as; None for parts of what is charged otherwise, or not at all."""
    return Sku.SETUP_SECONDS if meter is _SETUP[cold_start] else _SKU_OF.get(meter)
