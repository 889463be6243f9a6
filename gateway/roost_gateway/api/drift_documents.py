"""The JSON documents of drift and quality, made from reports."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from roost_gateway.drift.drift import ModelReport
from roost_gateway.drift.reports import FALSE_ALARMS, VersionReport, between
from roost_gateway.drift.settings import DriftWish
from roost_platform.drift.profiles import Feature
from roost_platform.drift.quality import Sums
from roost_platform.drift.shift import Shift, alarms
from roost_platform.drift.sketch import Sketch


class WishDocument(BaseModel):
    rate: float = Field(description="Calls that each gateway looks at, a second, at most.")
    skip: list[str]
    keep_answers: bool
    reference_rows: int


class ProfileDocument(BaseModel):
    version: int
    origin: str = Field(description="`file`, or `calls`: the first ones.")
    made_at: datetime
    rows: int
    features: list[str]


class FeedbackTaken(BaseModel):
    taken: int
    again: int = Field(description="Told before; not counted twice.")
    unknown: int = Field(description="About predictions whose answers were not kept.")


class ShiftDocument(BaseModel):
    feature: str = Field(examples=["input.x[0]"])
    reference: int = Field(description="Values that are compared with.")
    values: int
    psi: float = Field(description="Population stability index over ten bins.")
    psi_chance: float = Field(description="Probability of such an index, or a larger one, without a shift.")
    ks: float = Field(description="Kolmogorov-Smirnov distance, 0 to 1.")
    ks_chance: float
    missing: float = Field(description="Part of the values that are no number.")
    outside: float = Field(description="Part of the numbers beyond the reference's range.")
    alarm: bool


class ClassShare(BaseModel):
    value: str
    reference: float
    now: float


class DriftOfVersion(BaseModel):
    version: int
    reference: ProfileDocument
    since: datetime | None = Field(description="Begin of the oldest hour that is counted; null: nothing was seen.")
    rows: int
    outliers: float = Field(description="Part of the rows with an input far outside of the reference.")
    missing: float
    alarms: list[str] = Field(description="Features that are shifted by more than chance, and by enough to matter.")
    features: list[ShiftDocument] = Field(description="The most shifted first.")
    classes: dict[str, list[ClassShare]] = Field(description="Of features with few values: how often each came.")
    against: list[ShiftDocument] = Field(description="The same as `features`, against the version asked for.")


class QualityDocument(BaseModel):
    version: int
    day: str | None = Field(description="In UTC; null: all 30 days.")
    group: str | None = Field(description="Null: all groups.")
    answers: int
    accuracy: float | None = Field(description="Part of the answers that were right.")
    bias: float | None = Field(description="By how much numbers lay over their labels, on average.")
    error: float | None = Field(description="Mean absolute difference of numbers.")
    mean: float | None = Field(description="Of the answers that are numbers.")


class DriftDocument(BaseModel):
    settings: WishDocument
    false_alarms: float = Field(description="Probability of any alarm at one look at a version that has not shifted.")
    versions: list[DriftOfVersion]
    quality: list[QualityDocument] = Field(
        description="By version; then by version and day; then by version and group."
    )


def wish_document(wish: DriftWish) -> WishDocument:
    return WishDocument(**wish.to_json())


def drift_document(report: ModelReport, against: int | None) -> DriftDocument:
    other = None if against is None else report.versions[against]
    return DriftDocument(
        settings=wish_document(report.wish),
        false_alarms=FALSE_ALARMS,
        versions=[_version(found, other) for _, found in sorted(report.versions.items())],
        quality=_quality(report.quality),
    )


def _version(report: VersionReport, other: VersionReport | None) -> DriftOfVersion:
    profile = report.profile
    return DriftOfVersion(
        version=report.version,
        reference=ProfileDocument(
            version=report.version,
            origin=profile.origin,
            made_at=profile.made_at,
            rows=profile.rows,
            features=sorted(profile.features),
        ),
        since=report.since,
        rows=report.counted.rows,
        outliers=report.outliers,
        missing=report.missing,
        alarms=list(report.alarms),
        features=_shifts(report.shifts, report.alarms),
        classes={
            name: shares
            for name, sketch in sorted(report.counted.sketches.items())
            if (shares := _classes(profile.features[name], sketch))
        },
        against=[] if other is None or other is report else _against(report, other),
    )


def _against(report: VersionReport, other: VersionReport) -> list[ShiftDocument]:
    shifts = between(report, other)
    return _shifts(shifts, alarms(shifts, false_alarms=FALSE_ALARMS))


def _shifts(shifts: Mapping[str, Shift], alarming: Sequence[str]) -> list[ShiftDocument]:
    return [
        ShiftDocument(
            feature=name,
            reference=shift.reference,
            values=shift.current,
            psi=shift.psi,
            psi_chance=shift.psi_chance,
            ks=shift.distance,
            ks_chance=shift.distance_chance,
            missing=shift.missing,
            outside=shift.outside,
            alarm=name in alarming,
        )
        for name, shift in sorted(shifts.items(), key=lambda found: (-found[1].psi, found[0]))
    ]


_MOST_CLASSES = 20


def _classes(feature: Feature, now: Sketch) -> list[ClassShare]:
    """Where each value of the reference has a bin of its own. What lies beyond the reference's ends is one, `other`."""
    edges = feature.sketch.edges
    texts = feature.classes
    if texts is not None:
        names = list(texts)
    elif all(edge == int(edge) for edge in edges[1:] if math.isfinite(edge)) and len(edges) <= _MOST_CLASSES + 1:
        names = [f"{edge:g}" for edge in edges[1:]]
    else:
        return []
    if len(names) != len(edges) - 1:
        return []
    counts = zip(names, feature.sketch.counts[1:], now.counts[1:], strict=False)
    was_all, now_all = max(feature.sketch.size, 1), max(now.size, 1)
    shares = [ClassShare(value=name, reference=was / was_all, now=new / now_all) for name, was, new in counts]
    other = now.counts[0] + now.counts[-1]
    return [*shares, ClassShare(value="other", reference=0.0, now=other / now_all)] if other else shares


def _quality(found: Mapping[tuple[int, str, str], Sums]) -> list[QualityDocument]:
    versions: dict[tuple[int, str | None, str | None], Sums] = {}
    days: dict[tuple[int, str | None, str | None], Sums] = {}
    groups: dict[tuple[int, str | None, str | None], Sums] = {}
    for (version, day, group), sums in sorted(found.items()):
        for place, key in (
            (versions, (version, None, None)),
            (days, (version, day, None)),
            (groups, (version, None, group)),
        ):
            place[key] = place.get(key, Sums()) + sums
    return [
        QualityDocument(
            version=version,
            day=day,
            group=group,
            answers=sums.answers,
            accuracy=sums.accuracy,
            bias=sums.bias,
            error=sums.error,
            mean=sums.mean,
        )
        for place in (versions, days, groups)
        for (version, day, group), sums in place.items()
    ]
