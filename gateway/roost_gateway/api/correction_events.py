"""Corrections of usage on the wire: CloudEvents 1.0 in JSON, one or a batch, as `roost_platform.metering` takes them."""

import re
from datetime import UTC
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic import model_validator as validates

from roost_gateway.api.documents import NAME_PATTERN, Moment, Request
from roost_gateway.api.faults import explain
from roost_platform.domain.errors import InvalidRequest, UnsupportedMedia
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import AMOUNTS, Correction

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
EVENT_TYPE = "io.roost.usage.correction.v1"
LARGEST_BATCH = 1000
_SUBJECT = "tenant/"
_EXTENSION = re.compile(r"[a-z0-9]+")


def to_int(value: Any) -> Any:
    """What JSON schema calls an integer: 3.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Amount = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53), BeforeValidator(to_int)]
_Whole = Annotated[int, Field(strict=True, ge=0, le=2**53), BeforeValidator(to_int)]
_Version = Annotated[int, Field(strict=True, ge=0, le=999_999_999), BeforeValidator(to_int)]


class Corrected(Request):
    """A call of the ledger."""

    source: str = Field(pattern=r"^[!-~]{1,32}$", examples=["9f86d081884c7d65"])
    sequence: _Whole = Field(examples=[4711])


class CorrectionData(Request):
    model: str = Field(pattern=NAME_PATTERN, examples=["iris"])
    version: _Version = Field(description="0 where none was chosen.", examples=[1])
    outcome: Outcome
    requests: _Amount = Field(description="Added to what was metered; negative takes back.", examples=[-1])
    rows: _Amount = Field(examples=[-8])
    compute_us: _Amount = Field(description="Microseconds.", examples=[-1500])
    bytes_in: _Amount = Field(examples=[-100])
    bytes_out: _Amount = Field(examples=[-60])
    corrects: Corrected | None = Field(default=None, description="The one call that is meant, where there is one.")
    reason: str = Field(
        pattern="^[^\\x00-\\x1f\\x7f]{1,500}$", description="For people.", examples=["answered twice by a bad proxy"]
    )

    @validates(mode="after")
    def _changes_something(self) -> Self:
        if not any(getattr(self, name) for name in AMOUNTS):
            raise ValueError("a correction must change an amount")
        return self


class CorrectionEvent(BaseModel):
    """A CloudEvent; extension attributes are taken, and not kept."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: str = Field(pattern=r"^[!-~]{1,128}$", description="With `source`: unique for ever.", examples=["2026-11-23-1"])
    source: str = Field(pattern=r"^[!-~]{1,64}$", description="Who says so.", examples=["/billing/desk"])
    type: Literal["io.roost.usage.correction.v1"]
    subject: str = Field(pattern=f"^{_SUBJECT}{NAME_PATTERN[1:]}", examples=["tenant/acme"])
    time: Moment = Field(
        description="Decides hour, month and price: to undo a call where it was billed, the call's own time. At most 35 "
        "days ago and 5 minutes ahead."
    )
    datacontenttype: Literal["application/json"] | None = None
    data: CorrectionData

    @validates(mode="after")
    def _extensions_are_named_as_such(self) -> Self:
        for name in self.model_extra or ():
            if not _EXTENSION.fullmatch(name):
                raise ValueError(f"{name[:64]!r} cannot be the name of an attribute")
        return self

    def correction(self) -> Correction:
        data, corrects = self.data, self.data.corrects
        return Correction(
            source=self.source,
            id=self.id,
            time=self.time.astimezone(UTC),
            tenant=self.subject.removeprefix(_SUBJECT),
            model=data.model,
            version=data.version,
            outcome=data.outcome,
            **{name: getattr(data, name) for name in AMOUNTS},
            corrects_source="" if corrects is None else corrects.source,
            corrects_sequence=0 if corrects is None else corrects.sequence,
            reason=data.reason,
        )


_ONE = TypeAdapter(CorrectionEvent)
_MANY = TypeAdapter(list[CorrectionEvent])


def read_events(content_type: str, body: bytes) -> tuple[list[Correction], bool]:
    """The corrections in a request, and whether they came as a batch.

    Raises UnsupportedMedia, or InvalidRequest that names the field at fault; in a batch with the event's index before it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (SINGLE, BATCH):
        raise UnsupportedMedia(f"send a CloudEvent as {SINGLE}, or up to {LARGEST_BATCH} as {BATCH}")
    try:
        events = [_ONE.validate_json(body)] if kind == SINGLE else _MANY.validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise explain([{**each, "loc": ("body", *each["loc"])} for each in found]) from None
    if not 1 <= len(events) <= LARGEST_BATCH:
        raise InvalidRequest(f"a batch has 1 to {LARGEST_BATCH} events", field="body")
    return [event.correction() for event in events], kind == BATCH


def body_documentation() -> dict[str, Any]:
    """The request's body for the OpenAPI document."""
    event = _inlined(_ONE.json_schema())
    batch = {"type": "array", "items": event, "minItems": 1, "maxItems": LARGEST_BATCH}
    content = {SINGLE: {"schema": event}, BATCH: {"schema": batch}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without references: it stands in the middle of another document."""
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(each) for each in part]
        if not isinstance(part, dict):
            return part
        name = part.get("$ref", "").rpartition("/")[2]
        rest = {key: resolved(value) for key, value in part.items() if key != "$ref"}
        return resolved(definitions[name]) | rest if name else rest

    inlined: dict[str, Any] = resolved(schema)
    return inlined
