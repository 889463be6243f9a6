"""What an engine's status means for a rollout and for a reader; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from roost_gateway.access.routes import RevisionState, Route
from roost_platform.domain.services import Readiness, RevisionStatus, ServiceStatus


@dataclass(frozen=True, slots=True)
class Verdict:
    """A revision under way that became ready, or (with `failure`) did not and will not."""

    name: str
    failure: RevisionStatus | None = None

    @property
    def reason(self) -> str:
        """Empty when ready, else `Reason: message`."""
        if self.failure is None:
            return ""
        return ": ".join(part for part in (self.failure.reason, self.failure.message) if part)


def verdicts(route: Route, status: ServiceStatus) -> list[Verdict]:
    """Of the revisions under way, those whose rollout is over, oldest first. Unknown to the engine = not over."""
    found: list[Verdict] = []
    for record in route.records:
        now = status.revision(record.revision.name)
        if record.state is not RevisionState.DEPLOYING or now is None or now.ready is Readiness.UNKNOWN:
            continue
        found.append(Verdict(now.name) if now.ready is Readiness.TRUE else Verdict(now.name, failure=now))
    return found


class ModelState(StrEnum):
    """How a model is, in one word."""

    ASLEEP = "asleep"
    WAKING = "waking"
    READY = "ready"
    FAILED = "failed"
    DEPLOYING = "deploying"


def model_state(route: Route, statuses: Sequence[RevisionStatus]) -> ModelState:
    """The state of what serves the model's traffic; before there is traffic, that of its first rollout."""
    if not route.service.traffic:
        under_way = any(r.state is RevisionState.DEPLOYING for r in route.records)
        return ModelState.DEPLOYING if under_way else ModelState.FAILED
    serving = {target.revision for target in route.service.traffic}
    relevant = [status for status in statuses if status.name in serving]
    if any(status.running for status in relevant):
        return ModelState.READY
    if relevant and all(status.ready is Readiness.FALSE for status in relevant):
        return ModelState.FAILED
    return ModelState.WAKING if any(status.wanted for status in relevant) else ModelState.ASLEEP
