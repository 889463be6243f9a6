"""Routes about drift and quality: what is looked at, how it lies beside its reference, and feedback."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query
from pydantic import BeforeValidator, Field, StrictBool

from roost_gateway.api.callers import Deployer, Predictor, Reader, model_key
from roost_gateway.api.correction_events import to_int
from roost_gateway.api.documents import Request
from roost_gateway.api.drift_documents import (
    DriftDocument,
    FeedbackTaken,
    ProfileDocument,
    WishDocument,
    drift_document,
    wish_document,
)
from roost_gateway.api.faults import faults
from roost_gateway.api.models import found
from roost_gateway.api.services import Parts
from roost_gateway.drift.settings import MOST_RATE, DriftWish
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.drift.quality import Judged
from roost_platform.drift.store import VersionKey

router = APIRouter(prefix="/api/v1/models", tags=["drift and quality"])

MOST_ITEMS, MOST_LABELS = 1000, 64
_ID, _PRINTABLE = "^[!-~]+$", "^[ -~]*$"

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Number = Annotated[float, Field(strict=True, ge=-1e15, le=1e15)]
_Label = _Number | Annotated[str, Field(strict=True, max_length=200)]
_Labels = Annotated[list[_Label], Field(min_length=1, max_length=MOST_LABELS)]
_Version = Annotated[int, Field(strict=True, ge=1, le=999_999_999), BeforeValidator(to_int)]


class DriftWishes(Request):
    rate: float = Field(
        1.0,
        strict=True,
        ge=0,
        le=MOST_RATE,
        description="Calls that each gateway looks at, a second, at most; 0 = none.",
    )
    skip: list[_Name] = Field(
        default_factory=list, max_length=100, description="Names of inputs and outputs that are not looked at."
    )
    keep_answers: StrictBool = Field(
        default=False, description="Keep the answers that were looked at for 7 days, for feedback by request id."
    )
    reference_rows: Annotated[int, BeforeValidator(to_int)] = Field(
        1000, strict=True, ge=100, le=10_000, description="The first so many rows are the reference of a version."
    )


class FeedbackItem(Request):
    request_id: str = Field(min_length=1, max_length=128, pattern=_ID, description="`X-Request-Id` of the prediction.")
    labels: _Labels = Field(description="What was true, for each row: a class as the model says it, or a number.")
    group: str = Field(
        "",
        max_length=63,
        pattern=_PRINTABLE,
        description="Whom it was about: accuracy and bias are told for each group.",
    )
    version: _Version | None = Field(None, description="With `predicted`: which version answered.")
    predicted: _Labels | None = Field(
        None,
        description="What was answered; needed where the model does not keep answers, or did not look at this one.",
    )


class Feedback(Request):
    items: list[FeedbackItem] = Field(min_length=1, max_length=MOST_ITEMS)


_Reference = Annotated[
    dict[str, Any],
    Body(
        description="Rows of a time when all was well: `inputs`, and `outputs` if wanted, as in a prediction and its answer.",
        examples=[
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 1], "data": [0.1, 0.4, 0.2]}], "outputs": []}
        ],
    ),
]


@router.get("/{model}/drift", summary="Show drift and quality", responses=faults(403, 404, 503))
async def get_drift(
    tenant: Reader,
    parts: Parts,
    model: str,
    against: Annotated[
        int | None, Query(ge=1, le=999_999_999, description="Compare the other versions with this one as well.")
    ] = None,
) -> DriftDocument:
    """Each version's last rows beside its reference, and what feedback said in the last 30 days. Asking wakes nothing."""
    route = found(parts, tenant, model)
    report = await parts.drift.report(route.key)
    if against is not None and against not in report.versions:
        raise NotFound("that version has no reference yet", code="no_reference")
    return drift_document(report, against)


@router.put("/{model}/drift", summary="Say what is looked at", responses=faults(403, 404, 413, 507))
async def put_drift(tenant: Deployer, parts: Parts, model: str, wish: DriftWishes) -> WishDocument:
    """In place of what was said before. References stay as they are."""
    route = found(parts, tenant, model)
    made = DriftWish(**wish.model_dump() | {"skip": tuple(wish.skip)})
    await parts.drift.put_wish(route.key, made)
    return wish_document(made)


@router.put(
    "/{model}/versions/{number}/profile", summary="Give a version a reference", responses=faults(403, 404, 413, 507)
)
async def put_profile(
    tenant: Deployer, parts: Parts, model: str, number: str, reference: _Reference
) -> ProfileDocument:
    """In place of the one it has; what was counted against that is forgotten."""
    route = found(parts, tenant, model)
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InvalidRequest("a version is a whole number", field="number")
    profile = await parts.drift.put_profile(VersionKey(route.key, int(number)), orjson.dumps(reference))
    return ProfileDocument(
        version=int(number),
        origin="file",
        made_at=profile.made_at,
        rows=profile.rows,
        features=sorted(profile.features),
    )


@router.post("/{model}/feedback", summary="Tell what was true", responses=faults(403, 404, 413, 507))
async def post_feedback(tenant: Predictor, parts: Parts, model: str, feedback: Feedback) -> FeedbackTaken:
    """Each request counts once, however often it is told."""
    key = model_key(tenant, model)
    found(parts, tenant, model)
    judged = [Judged(item.request_id, item.labels, item.group, item.version, item.predicted) for item in feedback.items]
    if any((item.version is None) != (item.predicted is None) for item in judged):
        raise InvalidRequest("`version` and `predicted` go together", field="items")
    return FeedbackTaken(**await parts.drift.judge(key, judged))
