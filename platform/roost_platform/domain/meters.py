"""Meters: the amounts that are counted, each a whole number of a base unit. A price book says which of them cost money."""

from enum import StrEnum


class Meter(StrEnum):
    REQUESTS = "requests"
    """Answered calls, by outcome."""
    INFERENCES = "inferences"
    """Rows of the batches that were run."""
    COMPUTE = "compute"
    """Microseconds in which a model computed an answer."""
    BYTES_IN = "bytes_in"
    BYTES_OUT = "bytes_out"
    SETUP = "setup"
    """Microseconds of a replica until it was ready; by resource class, as the seven after it."""
    ACTIVE = "active"
    IDLE = "idle"
    RESERVED = "reserved"
    PULL = "pull"
    """The parts of setup."""
    SCHEDULE = "schedule"
    LOAD = "load"
    COLD_STARTS = "cold_starts"
    STORAGE = "storage"
    """Byte-seconds."""
    CHECK = "check"
    """Microseconds in which an upload was checked."""


CALL_METERS = frozenset({Meter.REQUESTS, Meter.INFERENCES, Meter.COMPUTE, Meter.BYTES_IN, Meter.BYTES_OUT})
"""Of the ledger's calls; their variant is the outcome. Those of replicas have the resource class, the others none."""
