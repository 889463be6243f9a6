"""Routes about rollouts that judge themselves."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from roost_gateway.api.callers import AnyCaller, Deployer, Reader, actor, model_key
from roost_gateway.api.documents import Request, VersionNumber
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.api.shadows import CompareWish
from roost_gateway.rollouts import store
from roost_gateway.rollouts.store import Event
from roost_platform.domain.errors import NotFound
from roost_platform.domain.rollouts import MOST_STEPS, MOST_WAIT_S, Rollout, RolloutPlan, RolloutState

router = APIRouter(prefix="/api/v1/models", tags=["rollouts"])

_Percent = Annotated[int, Field(strict=True, ge=1, le=100)]


class RolloutWish(Request):
    to: VersionNumber = Field(description="The version that is to take over; ready, and without traffic.", examples=[4])
    steps: list[_Percent] = Field(
        default=[5, 25, 50, 100],
        min_length=1,
        max_length=MOST_STEPS,
        description="Percents of the calls that it gets, ascending; 100 at the end goes without saying.",
    )
    every_s: int = Field(default=600, strict=True, ge=0, le=MOST_WAIT_S, description="The least time for a step.")
    guard: str = Field(
        max_length=1000,
        description="Limits, each a share of calls that may be bad: a quantile under a time, errors or disagreement under a share.",
        examples=["p99<120ms,errors<0.5%,disagreement<1%"],
    )
    minimum: int = Field(
        default=100,
        strict=True,
        ge=1,
        le=10**9,
        description="Calls of each version, in each step, before it is passed.",
    )
    compare: CompareWish = Field(
        default_factory=CompareWish, description="For disagreement: which answers of the two versions are alike."
    )


class Wish(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"


class EventDocument(BaseModel):
    id: int
    at: datetime
    by: str = Field(description="The id of a key, `operator`, or `roost` itself.")
    what: str = Field(
        description="started, step, held, paused, resumed, promoted, rolled_back or aborted.", examples=["step"]
    )
    facts: dict[str, Any] = Field(description="The numbers that it was decided by.")


class RolloutDocument(BaseModel):
    id: int
    state: RolloutState
    from_version: int = Field(description="The version that served when it began.", examples=[3])
    to_version: int = Field(examples=[4])
    percent: int = Field(description="Of the calls, at the step that it is or was at.", examples=[25])
    steps: list[int]
    every_s: int
    guard: str
    minimum: int
    compare: CompareWish
    began_at: datetime
    step_began_at: datetime
    ended_at: datetime | None
    reason: str = Field(description="Why it is held, or how it ended.")
    events: list[EventDocument] = Field(description="Every decision, the oldest first.")


class RolloutList(BaseModel):
    rollouts: list[RolloutDocument] = Field(description="The newest first.")


@router.get("/{model}/rollouts", summary="Show rollouts", responses=faults(403, 404))
async def list_rollouts(
    tenant: Reader,
    parts: Parts,
    model: str,
    limit: Annotated[int, Query(ge=1, le=100, description="Most rollouts.")] = 10,
) -> RolloutList:
    key = model_key(tenant, model)
    found = await parts.database.read(store.of_model, key, limit=limit)
    if not found and parts.directory.route(key.tenant, key.model) is None:
        raise NotFound("no such model")
    return RolloutList(rollouts=[await _document(parts, rollout) for rollout in found])


@router.post("/{model}/rollouts", status_code=201, summary="Begin a rollout", responses=faults(403, 404, 409, 413, 507))
async def begin_rollout(
    tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, wish: RolloutWish
) -> RolloutDocument:
    """The version gets the first step's share at once, and more when there is enough evidence that it is no worse."""
    plan = RolloutPlan.of(
        to=wish.to,
        steps=wish.steps,
        every_s=wish.every_s,
        guard=wish.guard,
        minimum=wish.minimum,
        comparison=wish.compare.comparison(),
    )
    return await _document(parts, await parts.rollouts.begin(model_key(tenant, model), plan, by=actor(caller)))


@router.post(
    "/{model}/rollouts/{wish}", summary="Pause, resume or abort a rollout", responses=faults(403, 404, 409, 507)
)
async def change_rollout(tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, wish: Wish) -> RolloutDocument:
    """Of the rollout that goes on. One that is paused takes no further step, but is rolled back if it has to be."""
    states = {
        Wish.PAUSE: RolloutState.PAUSED,
        Wish.RESUME: RolloutState.RUNNING,
        Wish.ABORT: RolloutState.ABORTED,
    }
    changed = await parts.rollouts.change(model_key(tenant, model), states[wish], by=actor(caller))
    return await _document(parts, changed)


async def _document(parts: Parts, rollout: Rollout) -> RolloutDocument:
    events = await parts.database.read(store.events_of, rollout.id)
    plan = rollout.plan
    return RolloutDocument(
        id=rollout.id,
        state=rollout.state,
        from_version=rollout.start,
        to_version=plan.to,
        percent=rollout.percent,
        steps=list(plan.steps),
        every_s=plan.every_s,
        guard=",".join(guard.text for guard in plan.guards),
        minimum=plan.minimum,
        compare=CompareWish(**plan.comparison.to_json()),
        began_at=rollout.began_at,
        step_began_at=rollout.step_began_at,
        ended_at=rollout.ended_at,
        reason=rollout.reason,
        events=[_event(event) for event in events],
    )


def _event(event: Event) -> EventDocument:
    return EventDocument(id=event.id, at=event.at, by=event.by, what=event.what, facts=dict(event.facts))
