"""The JSON documents of the control API, as the OpenAPI document describes them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from roost_gateway.access.routes import RevisionState
from roost_gateway.deployments.rollout import ModelState
from roost_platform.domain.services import Readiness
from roost_platform.domain.tenants import Quota, Scope

NAME_PATTERN = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""What the domain takes for a name; it refuses in better words than a pattern's, so this only tells."""

_NAME = Field(
    description="1 to 63 lower-case letters, digits or inner hyphens.",
    examples=["acme"],
    json_schema_extra={"pattern": NAME_PATTERN},
)


def _to_int(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_number(value: Any) -> Any:
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError("a moment is written in ISO 8601")


def _refuse_outside_the_calendar(value: datetime) -> datetime:
    """In UTC it is stored: the last hours of the year 9999 somewhere may be the year 10000 there, which is none."""
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a moment must be one of the years 1 to 9999 in UTC") from error
    return value


# What JSON schema calls an integer: 3.0 is one, `"3"` and `true` are none.
_Count = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=2**53), BeforeValidator(_to_int)] | None,
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**53}),
]
_Rate = Annotated[
    Annotated[float, Field(strict=True, ge=0, le=2**53)] | None,
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 2**53}),
]
VersionNumber = Annotated[int, Field(strict=True, ge=1, le=999_999_999), BeforeValidator(_to_int)]

Moment = Annotated[AwareDatetime, BeforeValidator(_refuse_number), AfterValidator(_refuse_outside_the_calendar)]
"""ISO 8601 with an offset; a count of seconds is none."""


class Request(BaseModel):
    """Requests refuse fields they do not know: a typo must not pass unseen."""

    model_config = ConfigDict(extra="forbid")


class QuotaChange(Request):
    """Limits to set; those left out stay as they are. 0 = no limit."""

    models: _Count = Field(default=None, description="Most models.", examples=[100])
    storage_bytes: _Count = Field(default=None, description="Most bytes of all versions together.")
    concurrent_requests: _Count = Field(default=None, description="Most predictions in flight at once.")
    requests_per_second: _Rate = Field(default=None, description="Sustained rate of predictions.", examples=[50])
    burst: _Count = Field(default=None, description="Predictions at once above the rate; 0 = one second's worth.")
    cpu_millicores: _Count = Field(default=None, description="On a cluster: thousandths of a core of all replicas.")
    memory_bytes: _Count = Field(default=None, description="On a cluster: bytes of memory of all replicas.")
    replicas: _Count = Field(default=None, description="On a cluster: most replicas of all models together.")
    gpus: _Count = Field(default=None, description="On a cluster: GPUs of all replicas.")


class NewTenant(Request):
    name: str = _NAME
    quota: QuotaChange = Field(default=QuotaChange(), description="Limits that differ from the defaults.")


class TenantChange(Request):
    quota: QuotaChange = Field(description="Limits to change.")


class NewKeyRequest(Request):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$", description="For people, to tell keys apart.", examples=["ci"]
    )
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=len(Scope),
        description="admin implies the others; deploy and predict imply read.",
        examples=[["predict"]],
    )
    expires_at: Moment | None = Field(default=None, description="With an offset from UTC; null = never.")


class RollbackRequest(Request):
    version: VersionNumber = Field(description="A version that was ready before.", examples=[1])


class TenantDocument(BaseModel):
    name: str = _NAME
    quota: Quota
    created_at: datetime


class TenantList(BaseModel):
    tenants: list[TenantDocument]


class KeyDocument(BaseModel):
    id: str = Field(description="Public; names the key.", examples=["9f86d081884c7d65"])
    name: str = Field(examples=["ci"])
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute; null = never.")


class KeyList(BaseModel):
    keys: list[KeyDocument]


class NewKeyDocument(BaseModel):
    id: str = Field(examples=["9f86d081884c7d65"])
    name: str = Field(examples=["ci"])
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    secret: str = Field(description="The key itself. It is shown this once and not stored.")


class NewTenantDocument(TenantDocument):
    key: NewKeyDocument = Field(description="The tenant's first key, with scope admin.")


class TensorDocument(BaseModel):
    name: str = Field(examples=["input"])
    datatype: str = Field(description="Open Inference Protocol name.", examples=["FP32"])
    shape: list[int] = Field(description="-1 = any length.", examples=[[-1, 4]])


class SignatureDocument(BaseModel):
    inputs: list[TensorDocument]
    outputs: list[TensorDocument]


class VersionDocument(BaseModel):
    tenant: str = Field(examples=["acme"])
    model: str = Field(examples=["iris"])
    version: int = Field(description="1, 2, 3 … within the model.", examples=[1])
    digest: str = Field(description="sha256 of the file, hexadecimal.")
    size: int = Field(description="Bytes of the file.")
    signature: SignatureDocument
    revision: str | None = Field(
        description="The revision that serves it; null = none is kept.", examples=["iris-00001"]
    )
    state: RevisionState
    reason: str = Field(description="Why it failed; empty otherwise.")
    created_at: datetime
    url: str = Field(description="The model's Open Inference Protocol path.")
    predict_url: str = Field(description="POST predictions here.")


class VersionList(BaseModel):
    versions: list[VersionDocument]


class TrafficDocument(BaseModel):
    revision: str = Field(examples=["iris-00001"])
    version: int = Field(examples=[1])
    percent: int = Field(examples=[100])


class ModelDocument(BaseModel):
    tenant: str = Field(examples=["acme"])
    model: str = Field(examples=["iris"])
    created_at: datetime
    traffic: list[TrafficDocument] = Field(description="Empty until a first version was ready.")
    latest_version: int
    state: ModelState
    replicas_ready: int
    replicas_wanted: int
    url: str


class ModelList(BaseModel):
    models: list[ModelDocument]


class ModelDetails(ModelDocument):
    scaling: dict[str, Any] = Field(description="The scaling policy, in Knative's spelling.")
    versions: list[VersionDocument]


class LoadDocument(BaseModel):
    """Of this moment. Requests are those of the gateway that answers; null = the engine does not say."""

    replicas_starting: int = Field(description="On their way to being ready.")
    queued: int = Field(description="Requests that wait for a replica.")
    in_flight: int = Field(description="Requests that replicas work on; on a cluster, those that were sent there.")
    desired: int | None = Field(description="Replicas that the load alone calls for, before bounds and delays.")
    average_stable: float | None = Field(
        description="The autoscaler's average over its stable window, in requests in flight or per second as `metric` says."
    )
    average_panic: float | None = Field(description="The same over its panic window.")
    panicking: bool | None = Field(description="Whether the panic window rules, and nothing is scaled down.")
    cold_starts: int = Field(description="How often it came up from no replica since this gateway runs.")


class RevisionDocument(BaseModel):
    name: str = Field(examples=["iris-00001"])
    version: int
    state: RevisionState
    ready: Readiness
    reason: str = Field(description="One word for programs; empty when ready.", examples=["OutOfMemory"])
    message: str = Field(description="A sentence for people.")
    replicas_wanted: int
    replicas_ready: int
    log: list[str] = Field(description="Last lines of the runtime's log, oldest first.")
    load: LoadDocument | None = Field(description="Replicas and load of this moment; null = it is not run any more.")


class StatusDocument(BaseModel):
    tenant: str
    model: str
    state: ModelState
    traffic: list[TrafficDocument]
    scaling: dict[str, Any] = Field(description="The policy in force for all revisions, in Knative's spelling.")
    revisions: list[RevisionDocument]


class ScalingDocument(BaseModel):
    scaling: dict[str, Any] = Field(description="The whole policy after the change.")


class InfoDocument(BaseModel):
    version: str = Field(examples=["0.1.0"])
    engine: str = Field(examples=["local"])
    models: int = Field(description="Models of the caller's tenant; of all tenants for the operator.")
