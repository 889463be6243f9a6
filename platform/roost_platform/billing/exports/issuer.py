"""Who issues the statements: what an operator says about itself in them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issuer:
    name: str = "Roost"
    """On documents for people; FOCUS' provider, publisher and invoice issuer."""
    event_source: str = "/roost/billing"
    """A URI reference: `source` of CloudEvents. Two installations that report to one place need different ones."""
    region: str = ""
    """FOCUS' region: where the models run; empty where that has no name."""
