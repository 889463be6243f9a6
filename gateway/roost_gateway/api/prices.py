"""Routes about prices: those in force, and what a month would have cost with others."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from roost_gateway.api.callers import AnyCaller, OperatorCaller, TenantQuery, visible_tenant
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts, Services
from roost_gateway.money.what_if import Compared, sum_of, tenants_with_usage, what_if
from roost_platform.billing.months import Month, parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.prices import Period, PriceBook, PriceBooks
from roost_platform.billing.skus import MEASURES, Sku
from roost_platform.billing.terms import Terms
from roost_platform.billing.tiers import Mode
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.names import check_name

router = APIRouter(prefix="/api/v1/prices", tags=["usage and money"])

_TOML_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The other price list: TOML, such as the file that ROOST_PRICES names; up to 1 MiB.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


class PriceDocument(BaseModel):
    """What units of a sku cost; one for each resource class and tier."""

    model_config = ConfigDict(populate_by_name=True)

    sku: str = Field(examples=["requests"])
    resource_class: str = Field(alias="class", description="Empty where prices do not differ by it; `*` = any other.")
    mode: str = Field(description="`flat`, `graduated` or `volume`.", examples=["flat"])
    tier: int = Field(description="From 1; 0 where there are no tiers.")
    up_to: int | None = Field(description="The last unit of the tier, in `count`s; null = no end.")
    count: str = Field(description="What tiers and allowances are told in.", examples=["requests"])
    unit_price: str = Field(description="A decimal string, for `per` units.", examples=["0.20"])
    per: int = Field(examples=[1000000])
    unit: str = Field(examples=["requests"])


class FreeDocument(BaseModel):
    sku: str = Field(examples=["requests"])
    quantity: int = Field(description="The month's first units, which cost nothing.")
    unit: str = Field(examples=["requests"])


class TermsDocument(BaseModel):
    tenant: str
    effective_from: str
    until: str | None = Field(description="Exclusive; null = until its next terms.")
    discount: str = Field(description="The share taken off the book's prices, 0 to 1.", examples=["0.1"])


class PriceBookDocument(BaseModel):
    """The prices in force; of a tenant, what it pays."""

    version: str
    currency: str = Field(examples=["USD"])
    effective_from: str
    cold_start: str = Field(description="What of a cold start is charged: `platform` (nothing), `load` or `all`.")
    prices: list[PriceDocument]
    free: list[FreeDocument] = Field(description="Monthly allowances.")
    terms: TermsDocument | None = Field(description="What the tenant has agreed beside the book.")


class ComparedDocument(BaseModel):
    """A month's amount in both price lists; decimal strings."""

    billed: str = Field(description="With the prices in force.", examples=["12.30"])
    other: str = Field(description="With those of the body.", examples=["11.07"])
    difference: str = Field(description="`other` less `billed`.", examples=["-1.23"])
    percent: str | None = Field(description="Of `billed`; null of nothing.", examples=["-10.00"])


class ComparedTenant(ComparedDocument):
    tenant: str = Field(examples=["acme"])


class WhatIfDocument(BaseModel):
    month: str = Field(examples=["2026-10"])
    currency: str = Field(examples=["USD"])
    tenants: list[ComparedTenant]
    total: ComparedDocument


@router.get("", summary="Show the prices in force", responses=faults(404))
async def get_prices(caller: AnyCaller, parts: Parts, named: TenantQuery = None) -> PriceBookDocument:
    """To a tenant's key, and to the operator who names a tenant, what that tenant pays; else the book as it is."""
    now, tenant = parts.clock(), caller.tenant
    if named is not None:
        tenant = visible_tenant(caller, parts, check_name(named, field="tenant")).name
    book = parts.prices.in_force(now)
    terms = parts.prices.terms_in_force(tenant, now) if tenant else None
    return _document(book, Period(now, now, book, terms))


@router.post(
    "/what-if", summary="Rate a month with other prices", responses=faults(403, 404, 413), openapi_extra=_TOML_BODY
)
async def rate_with_other_prices(
    _operator: OperatorCaller,
    request: Request,
    parts: Parts,
    *,
    month: Annotated[str, Query(description="A calendar month in UTC that has begun, written like 2026-11.")],
    tenant: Annotated[str | None, Query(description="Only this one; default: all who used anything.")] = None,
) -> WhatIfDocument:
    """What each tenant's month costs with the prices in force, and with those in the body. Nothing is kept."""
    chosen = parse_month(month)
    if parts.clock() < chosen.start:
        raise InvalidRequest(f"the month {chosen} has not begun", code="invalid_month", field="month")
    name = None if tenant is None else check_name(tenant, field="tenant")
    other = await asyncio.to_thread(_read, await request.body())
    await parts.drain()
    compared = await what_if(
        parts.database,
        books=parts.prices,
        other=other,
        month=chosen,
        tenants=await _tenants(parts, chosen, name),
    )
    total = sum_of(compared, other.currency)
    return WhatIfDocument(
        month=str(chosen),
        currency=other.currency,
        tenants=[ComparedTenant(tenant=each.tenant, **_amounts(each)) for each in compared],
        total=ComparedDocument(**_amounts(total)),
    )


async def _tenants(parts: Services, month: Month, name: str | None) -> list[str]:
    found = await parts.database.read(tenants_with_usage, month)
    if name is None:
        return found
    if name not in found:
        parts.tenants.get(name)
    return [name]


def _read(body: bytes) -> PriceBooks:
    try:
        return load_price_books(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        message = "the price book is not UTF-8 text"
        raise InvalidRequest(message, code="invalid_price_book", field="body") from error


def _amounts(compared: Compared) -> dict[str, Any]:
    amounts = {name: f"{getattr(compared, name):f}" for name in ("billed", "other", "difference")}
    return amounts | {"percent": compared.percent}


def _document(book: PriceBook, period: Period) -> PriceBookDocument:
    return PriceBookDocument(
        version=book.version,
        currency=book.currency,
        effective_from=book.effective_from.isoformat(),
        cold_start=str(book.cold_start),
        prices=[price for sku in Sku for price in _prices(sku, period)],
        free=[
            FreeDocument(sku=str(sku), quantity=free // MEASURES[sku].count_units, unit=MEASURES[sku].count)
            for sku in Sku
            if (free := period.free(sku))
        ],
        terms=None if period.terms is None else _terms(period.terms),
    )


def _prices(sku: Sku, period: Period) -> list[PriceDocument]:
    measure = MEASURES[sku]
    return [
        PriceDocument(
            sku=str(sku),
            resource_class=name if measure.by_class else "",
            mode=str(found[1].mode),
            tier=0 if found[1].mode is Mode.FLAT else number,
            up_to=tier.up_to,
            count=measure.count,
            unit_price=f"{tier.price:f}",
            per=measure.per,
            unit=measure.unit,
        )
        for name in period.classes(sku)
        if (found := period.price(sku, name)) is not None
        for number, tier in enumerate(found[1].tiers, start=1)
    ]


def _terms(terms: Terms) -> TermsDocument:
    return TermsDocument.model_validate(terms.to_json())
