"""Routes about shadows: copies of a model's calls to another version."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field, StrictBool

from roost_gateway.api.callers import AnyCaller, Deployer, Reader, actor, model_key
from roost_gateway.api.correction_events import to_int
from roost_gateway.api.documents import Request, VersionNumber
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_platform.domain.comparing import MOST_PATH, MOST_TOP, By, Comparison
from roost_platform.domain.shadows import Shadow, ShadowPlan, ShadowSums

router = APIRouter(prefix="/api/v1/models", tags=["shadows"])

_Tolerance = Annotated[float, Field(strict=True, ge=0, le=1e300)]


class CompareWish(Request):
    by: By = Field(
        default=By.VALUES,
        description="Values; rank: the classes with the highest scores; path: what a JSON path finds.",
    )
    relative: _Tolerance | None = Field(default=None, description="Of numbers; null = as the datatype has it.")
    absolute: _Tolerance | None = Field(default=None, description="The same, in units.")
    top: Annotated[int, BeforeValidator(to_int)] = Field(
        default=1, strict=True, ge=1, le=MOST_TOP, description="By rank: so many classes, in their order."
    )
    path: str = Field(
        default="", max_length=MOST_PATH, description="By path: RFC 9535.", examples=["$.outputs[0].data[*]"]
    )

    def comparison(self) -> Comparison:
        """Raises InvalidRequest."""
        return Comparison.of(**self.model_dump())


class ShadowWish(Request):
    to: VersionNumber = Field(description="The version that gets copies; ready.", examples=[4])
    percent: Annotated[int, BeforeValidator(to_int)] = Field(
        default=100, strict=True, ge=1, le=100, description="Of the calls that other versions answer."
    )
    wake: StrictBool = Field(default=False, description="A copy may wake the version; else it gets none while asleep.")
    keep_bodies: StrictBool = Field(
        default=False, description="Examples of differences hold what was asked and answered, up to 2 KiB of each."
    )
    compare: CompareWish = Field(default_factory=CompareWish)


class ExampleDocument(BaseModel):
    at: datetime
    request_id: str
    version: int = Field(description="Whose answer the caller got.")
    difference: str = Field(description="status, outputs, values or rank.")
    where: str = Field(description="The first place.", examples=["probabilities[2]"])
    request: str | None = Field(description="null unless bodies are kept.")
    served: str | None
    copied: str | None


class ShadowDocument(ShadowWish):
    began_at: datetime
    answered: int = Field(description="Copies that the version answered.")
    alike: int
    differed: int
    differences: dict[str, int] = Field(description="By kind.")
    uncompared: dict[str, int] = Field(description="Answered copies that were not compared, by why.")
    failed: dict[str, int] = Field(description="Copies without an answer of the version, by code.")
    dropped: dict[str, int] = Field(description="Calls that were to be copied and were not, by why.")
    largest_difference: float = Field(description="Of two numbers, alike or not.")
    served_compute_us: int = Field(description="That the calls took which were copied and answered.")
    copied_compute_us: int = Field(description="That their copies took.")
    examples: list[ExampleDocument] = Field(description="The last differences, the newest last.")


@router.get("/{model}/shadow", summary="Show a shadow", responses=faults(403, 404))
async def get_shadow(tenant: Reader, parts: Parts, model: str) -> ShadowDocument:
    """What came of the copies so far, at all gateways together."""
    return _document(*await parts.shadows.report(model_key(tenant, model)))


@router.put("/{model}/shadow", summary="Copy calls to a shadow", responses=faults(403, 404, 409, 413, 507))
async def put_shadow(tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, wish: ShadowWish) -> ShadowDocument:
    """In place of the shadow there is, and counted anew. Callers wait for no copy and get no answer of one."""
    plan = ShadowPlan(wish.to, wish.percent, wish.wake, wish.keep_bodies, wish.compare.comparison())
    return _document(*await parts.shadows.put(model_key(tenant, model), plan, by=actor(caller)))


@router.delete(
    "/{model}/shadow",
    status_code=204,
    response_class=Response,
    summary="End a shadow",
    responses=faults(403, 404, 507),
)
async def delete_shadow(tenant: Deployer, caller: AnyCaller, parts: Parts, model: str) -> None:
    """What was counted goes."""
    await parts.shadows.remove(model_key(tenant, model), by=actor(caller))


def _document(shadow: Shadow, sums: ShadowSums) -> ShadowDocument:
    return ShadowDocument(
        **shadow.plan.to_json(),
        began_at=shadow.began_at,
        answered=sums.answered,
        alike=sums.alike,
        differed=sums.differences.total(),
        differences=dict(sums.differences),
        uncompared=dict(sums.uncompared),
        failed=dict(sums.failed),
        dropped=dict(sums.dropped),
        largest_difference=sums.largest,
        served_compute_us=sums.served_us,
        copied_compute_us=sums.compute_us,
        examples=[ExampleDocument(**example.to_json()) for example in sums.examples],
    )
