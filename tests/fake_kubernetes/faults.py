"""What can go wrong between a client and the API server, on demand."""

import asyncio
from dataclasses import dataclass, field

from fake_kubernetes.requests import Asked


@dataclass
class Fault:
    """Befalls the next `times` requests that it is meant for."""

    times: int
    status: int = 0
    """What to answer with; 0 = nothing of the kind."""
    retry_after_s: int | None = None
    delay_s: float = 0.0
    cut: str = ""
    """`before`: the connection breaks and nothing was done; `after`: it was done and nobody is told."""
    verb: str = ""
    resource: str = ""
    """`pods`, `services.serving.knative.dev`; empty = all."""

    def is_for(self, asked: Asked) -> bool:
        wanted = (self.verb in ("", asked.verb)) and (self.resource in ("", asked.resource))
        return self.times > 0 and wanted


@dataclass
class Faults:
    pending: list[Fault] = field(default_factory=list)
    stalled: bool = False
    """Watches send nothing and stay open."""
    resumed: asyncio.Event = field(default_factory=asyncio.Event)

    def next_for(self, asked: Asked) -> Fault | None:
        for fault in self.pending:
            if fault.is_for(asked):
                fault.times -= 1
                if not fault.times:
                    self.pending.remove(fault)
                return fault
        return None
