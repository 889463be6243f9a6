"""Routes about who gets a model's calls: the split, what sticks, testers' rules, aliases; and the log of all changes."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from roost_gateway.access.routes import Route
from roost_gateway.api.callers import AnyCaller, Deployer, Reader, actor, model_key
from roost_gateway.api.documents import Request, VersionNumber
from roost_gateway.api.faults import faults
from roost_gateway.api.models import found
from roost_gateway.api.services import Parts
from roost_gateway.deployments.traffic import Split
from roost_platform.database.history import read_history
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.domain.routing import MOST_RULES, Rule, Sticky, StickyBy

router = APIRouter(prefix="/api/v1/models", tags=["models"])

Alias = Annotated[
    str,
    Path(
        description="Begins with a letter; else as every name.",
        json_schema_extra={"pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"},
    ),
]


class StickyDocument(Request):
    by: StickyBy = Field(description="What keeps a caller at one version.")
    name: str = Field(default="", max_length=64, description="Of the header or cookie.", examples=["x-user"])


class RuleDocument(Request):
    header: str = Field(max_length=64, description="In lower case.", examples=["x-tester"])
    value: str = Field(max_length=256, examples=["yes"])
    version: VersionNumber = Field(examples=[4])


class TrafficWish(Request):
    """What is left out stays as it is."""

    split: dict[str, Annotated[int, Field(strict=True, ge=0, le=100)]] | None = Field(
        default=None,
        description="Percents by version, a number or an alias; they sum to 100.",
        examples=[{"3": 90, "4": 10}],
        min_length=1,
        max_length=20,
    )
    sticky: StickyDocument | None = Field(default=None, description="null = nothing sticks.")
    rules: list[RuleDocument] | None = Field(
        default=None, max_length=MOST_RULES, description="The first that matches goes before the split; [] = none."
    )


class ShareDocument(BaseModel):
    version: int = Field(examples=[3])
    revision: str = Field(examples=["iris-00003"])
    percent: int = Field(examples=[90])


class RoutingDocument(BaseModel):
    split: list[ShareDocument] = Field(description="Empty until a first version was ready.")
    sticky: StickyDocument | None
    rules: list[RuleDocument]
    aliases: dict[str, int] = Field(description="Versions by their names.", examples=[{"stable": 3}])


class AliasWish(Request):
    version: VersionNumber = Field(description="That the name stands for from now on.", examples=[4])


class EntryDocument(BaseModel):
    id: int
    at: datetime
    by: str = Field(description="The id of a key, `operator`, or `roost` itself.", examples=["9f86d081884c7d65"])
    what: str = Field(examples=["traffic"])
    before: dict[str, Any] = Field(description="What differs, as it was.", examples=[{"traffic": {"3": 100}}])
    after: dict[str, Any] = Field(description="What differs, as it is.", examples=[{"traffic": {"3": 90, "4": 10}}])


class HistoryDocument(BaseModel):
    entries: list[EntryDocument] = Field(description="The newest first.")


@router.get("/{model}/traffic", summary="Show who gets the calls", responses=faults(403, 404))
async def get_traffic(tenant: Reader, parts: Parts, model: str) -> RoutingDocument:
    return _document(found(parts, tenant, model))


@router.put("/{model}/traffic", summary="Split the traffic", responses=faults(403, 404, 409, 413, 507))
async def put_traffic(
    tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, wish: TrafficWish
) -> RoutingDocument:
    """One change, in force for the next call, at every gateway within a second; no call is lost over it."""
    if not wish.model_fields_set:
        raise InvalidRequest("say what is to change: split, sticky or rules")
    for name in ("split", "rules"):
        if name in wish.model_fields_set and getattr(wish, name) is None:
            raise InvalidRequest(f"{name} cannot be null; leave it out to keep it", field=name)
    split = Split(
        percents=wish.split,
        rules=None if wish.rules is None else [Rule(**rule.model_dump()) for rule in wish.rules],
        sticky=None if wish.sticky is None else Sticky(wish.sticky.by, wish.sticky.name),
        keep_sticky="sticky" not in wish.model_fields_set,
    )
    return _document(await parts.deployments.split(model_key(tenant, model), split, by=actor(caller)))


@router.put("/{model}/aliases/{alias}", summary="Name a version", responses=faults(403, 404, 413, 507))
async def put_alias(
    tenant: Deployer, caller: AnyCaller, parts: Parts, *, model: str, alias: Alias, wish: AliasWish
) -> RoutingDocument:
    """The name can be used in prediction paths wherever a version's number can."""
    key = model_key(tenant, model)
    return _document(await parts.deployments.set_alias(key, alias, wish.version, by=actor(caller)))


@router.delete("/{model}/aliases/{alias}", summary="Take a name away", responses=faults(403, 404, 507))
async def delete_alias(tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, alias: Alias) -> RoutingDocument:
    return _document(await parts.deployments.set_alias(model_key(tenant, model), alias, None, by=actor(caller)))


@router.get("/{model}/history", summary="Show who changed what", responses=faults(403, 404))
async def get_history(
    tenant: Reader,
    parts: Parts,
    model: str,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most entries.")] = 100,
    before: Annotated[
        int | None, Query(ge=1, le=2**53, description="Only what is older than the entry of this id.")
    ] = None,
) -> HistoryDocument:
    """Entries stay when the model is deleted, and nobody can change them."""
    key = model_key(tenant, model)
    entries = await parts.database.read(read_history, key, limit=limit, before=before)
    if not entries and parts.directory.route(key.tenant, key.model) is None:
        raise NotFound("no such model")
    return HistoryDocument(entries=[EntryDocument.model_validate(entry, from_attributes=True) for entry in entries])


def _document(route: Route) -> RoutingDocument:
    routing = route.routing
    return RoutingDocument(
        split=[
            ShareDocument(version=route.service.revision(t.revision).version, revision=t.revision, percent=t.percent)
            for t in route.service.traffic
        ],
        sticky=None if routing.sticky is None else StickyDocument(by=routing.sticky.by, name=routing.sticky.name),
        rules=[RuleDocument(header=r.header, value=r.value, version=r.version) for r in routing.rules],
        aliases=dict(routing.aliases),
    )
