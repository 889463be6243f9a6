"""What a model's replicas print: lines that know when and by which replica they were printed."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line. Its text is the model's own: it may hold anything, and ends nowhere but at its end."""

    number: int
    """1, 2, 3 … in the order in which this gateway came to know the lines of a revision."""
    at: datetime
    """When it was printed; aware UTC."""
    replica: str
    """A name that only this replica has among those whose lines are kept: a process id, or a pod's name."""
    text: str

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("the time of a line must be aware")
