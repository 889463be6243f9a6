"""The route that compares what was counted in several places."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from roost_gateway.api.callers import OperatorCaller
from roost_gateway.api.documents import Moment
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.money.checks.check import MOST_FINDINGS, Check, Verdict
from roost_platform.billing.months import month_of

router = APIRouter(prefix="/api/v1", tags=["usage and money"])


class FindingDocument(BaseModel):
    scope: str = Field(description="What it is about: a run, a tenant, an hour, a statement, a replica.")
    left: int
    right: int
    difference: int = Field(description="left - right")
    verdict: Verdict
    says: str = Field(description="What is wrong and what it means, a sentence for people.")


class CheckDocument(BaseModel):
    check: str = Field(examples=["sequence numbers"])
    left_name: str = Field(description="What `left` counts.", examples=["numbers given out"])
    right_name: str = Field(description="What `right` counts.", examples=["events in the ledger"])
    left: int = Field(description="The sum of all pairs that were compared.")
    right: int
    difference: int = Field(description="By how much the pairs differ all together, each without its sign.")
    compared: int = Field(description="How many pairs were compared.")
    verdict: Verdict = Field(description="pending: one side is still being written.")
    findings: list[FindingDocument] = Field(description=f"The pairs that are not equal, at most {MOST_FINDINGS}.")
    more_findings: int = Field(description="How many more there are.")


class ReconciliationDocument(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    start: str = Field(alias="from", description="Inclusive.")
    end: str = Field(alias="to", description="Exclusive.")
    made_at: str
    differs: int = Field(description="How many checks found a difference; 0 is well.")
    checks: list[CheckDocument] = Field(description="In the order in which usage travels.")


@router.get("/reconciliation", summary="Compare counters, journal, ledger and statements", responses=faults(403))
async def reconcile(
    _operator: OperatorCaller,
    parts: Parts,
    start: Annotated[
        Moment | None,
        Query(alias="from", description="ISO 8601 with an offset, inclusive; default: this month's start (UTC)."),
    ] = None,
    end: Annotated[
        Moment | None,
        Query(alias="to", description="ISO 8601 with an offset, exclusive; default: the end of this month."),
    ] = None,
) -> ReconciliationDocument:
    """Every place in which usage and money are counted, against the next one. It reads all events of the period: for a busy
    month that takes minutes. Counters and journal are those of the gateway that answers.
    """
    month = month_of(parts.clock())
    report = await parts.reconciliation.reconcile(start or month.start, end or month.end)
    return ReconciliationDocument(
        start=report.start.isoformat(),
        end=report.end.isoformat(),
        made_at=report.made_at.isoformat(),
        differs=report.differs,
        checks=[_document(check) for check in report.checks],
    )


def _document(check: Check) -> CheckDocument:
    return CheckDocument(
        check=check.name,
        left_name=check.left_name,
        right_name=check.right_name,
        left=check.left,
        right=check.right,
        difference=check.difference,
        compared=check.compared,
        verdict=check.verdict,
        findings=[
            FindingDocument(
                scope=finding.scope,
                left=finding.left,
                right=finding.right,
                difference=finding.difference,
                verdict=finding.verdict,
                says=finding.says,
            )
            for finding in check.findings
        ],
        more_findings=check.more_findings,
    )
