"""The JSON documents of `GET /usage`. A row has those keys that were asked for and that its kind of usage has."""

from pydantic import BaseModel, ConfigDict, Field

from roost_platform.domain.meters import Meter


class UsageKeys(BaseModel):
    """What both kinds of usage can be grouped by."""

    tenant: str = Field(default="", examples=["acme"])
    model: str = Field(default="", examples=["iris"])
    version: int = Field(default=0, description="0: the call ended before a version was chosen.")
    day: str = Field(default="", description="UTC.", examples=["2026-11-01"])
    hour: str = Field(default="", description="UTC; its first moment.", examples=["2026-11-01T10:00:00+00:00"])


class CallFigures(BaseModel):
    requests: int = Field(description="Calls, refused ones included.")
    billed_requests: int = Field(description="Those that ended in a way that is charged: `ok` and `model_error`.")
    rows: int = Field(description="Rows of the batches that were run.")
    compute_us: int = Field(description="Microseconds in which models computed.")
    queue_us: int = Field(description="Microseconds of waiting for a replica, waking included.")
    cold_starts: int = Field(description="Calls that waited for a replica to wake.")
    cold_start_us: int = Field(description="The part of the wait that was spent on waking.")
    bytes_in: int
    bytes_out: int
    errors: int = Field(description="Calls that ended in any other way than `ok`.")
    shadow_requests: int = Field(description="Copies to a shadow: part of `requests`, and of all amounts.")


class CallRow(UsageKeys, CallFigures):
    outcome: str = Field(default="", examples=["ok"])


class ResourceFiguresDocument(BaseModel):
    provisioned_us: int = Field(
        description="Microseconds that replicas were there: setup, active, idle and reserved together."
    )
    setup_us: int = Field(description="Until the replica was ready: pull, schedule and load together.")
    active_us: int = Field(description="At least one request was in the replica.")
    idle_us: int = Field(description="Ready, no request in it, and more replicas there than `min-scale` asks for.")
    reserved_us: int = Field(description="Ready, no request in it, and kept because of `min-scale`.")
    cold_starts: int = Field(description="Replicas that were woken by a request and became ready.")
    pull_us: int = Field(description="Part of setup: bringing the image or the file to the machine.")
    schedule_us: int = Field(description="Part of setup: waiting for a place and a process.")
    load_us: int = Field(description="Part of setup: loading and warming the model.")
    byte_seconds: int = Field(description="Stored bytes times seconds.")
    job_us: int = Field(description="Microseconds of checking uploads, refused ones too.")


class ResourceRowDocument(UsageKeys, ResourceFiguresDocument):
    resource_class: str = Field(
        default="", alias="class", description="What a replica holds; empty for storage and checks.", examples=["cpu-1"]
    )


class ResourceReportDocument(BaseModel):
    """What was held: replicas, stored files, checks."""

    group_by: list[str] = Field(description="Those of the keys asked for that resources have.")
    rows: list[ResourceRowDocument]
    total: ResourceFiguresDocument = Field(description="The sums of all rows.")


class MeterRow(UsageKeys):
    """A key that a meter does not have is empty: calls have no class, replicas no outcome."""

    outcome: str = Field(default="", examples=["ok"])
    resource_class: str = Field(default="", alias="class", examples=["cpu-1"])
    meter: Meter
    quantity: int
    unit: str = Field(description="The meter's base unit.", examples=["microseconds"])


class UsageDocument(BaseModel):
    """Usage of [from, to): calls by the time of their answer, resources by the time they were held."""

    model_config = ConfigDict(populate_by_name=True)

    tenant: str | None = Field(description="null: of all tenants.", examples=["acme"])
    start: str = Field(alias="from", description="Inclusive.")
    end: str = Field(alias="to", description="Exclusive.")
    group_by: list[str] = Field(description="Those of the keys asked for that calls have.")
    rows: list[CallRow] = Field(description="Calls: the keys of `group_by`, then the figures.")
    total: CallFigures = Field(description="The sums of all rows.")
    resources: ResourceReportDocument
    meters: list[MeterRow] = Field(
        default=[], description="Only with `meter` in the keys asked for: both kinds, one meter a row."
    )
