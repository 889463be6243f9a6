"""The JSON documents of statements, as the OpenAPI document describes them. Money is in decimal strings."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from roost_gateway.api.documents import Request
from roost_platform.billing.lines import Category
from roost_platform.billing.notes import Note
from roost_platform.billing.statement_store import Mark
from roost_platform.billing.statements import Kind, Status

_Id = Annotated[str, Field(examples=["acme-2026-11"], description="Of notes: `acme-2026-11-C1`, `acme-2026-11-D1`.")]


class LineDocument(BaseModel):
    """One sku of one model at one price."""

    model_config = ConfigDict(populate_by_name=True)

    category: Category = Field(
        description="`usage`; `credit`: a free allowance; `correction`: of an earlier month that was final already."
    )
    model: str = Field(description="Empty for what concerns the tenant as a whole.", examples=["iris"])
    sku: str = Field(description="As in the price book; `not_charged`; of notes their kind.", examples=["requests"])
    variant: str = Field(description="The resource class where prices differ by it.", examples=["cpu-1"])
    price_book: str = Field(description="Empty before the first one came into force.", examples=["2026-10"])
    tier: int = Field(description="From 1; 0 where the price has no tiers.")
    start: str = Field(alias="from", description="The part of the month in which that book was in force.")
    end: str = Field(alias="to", description="Exclusive.")
    quantity: int = Field(description="In `unit`s.")
    unit: str = Field(examples=["requests"])
    list_price: str = Field(description="For `per` units, as the book has it.")
    unit_price: str = Field(description="For `per` units, as this tenant pays it.")
    per: int
    list_amount: str
    amount: str = Field(description="quantity x unit_price / per, rounded once, halves to the even digit.")
    month: str = Field(description="Of corrections: the month that the usage belongs to.", examples=[""])


class StatementDocument(BaseModel):
    """A tenant's bill for a month, or a note that belongs to one."""

    model_config = ConfigDict(populate_by_name=True)

    id: _Id
    kind: Kind
    of: str = Field(description="Of notes: the statement that they belong to.")
    tenant: str
    month: str = Field(examples=["2026-11"])
    start: str = Field(alias="from")
    end: str = Field(alias="to")
    status: Status = Field(description="`open`: the month is running; `draft`: it is over; `final`: it never changes.")
    made_at: str
    currency: str
    lines: list[LineDocument]
    total: str
    calls: dict[str, int] = Field(description="Calls by outcome.")
    charged_calls: int
    unknown_calls: int = Field(description="Calls of which nobody knows how they ended; never charged.")
    price_books: dict[str, str] = Field(description="The name and hash of what the prices are from.")
    inputs_hash: str = Field(description="sha256 of all that the lines were computed from.")
    notes: list[str]


class ListedDocument(BaseModel):
    """A final document without its lines."""

    id: _Id
    tenant: str
    month: str = Field(examples=["2026-11"])
    kind: Kind
    of: str
    status: Literal["final", "paid", "void"]
    currency: str
    total: str
    inputs_hash: str
    document_hash: str = Field(description="sha256 of the document (`format=json`); it never changes.")
    finalized_at: datetime


class StatementList(BaseModel):
    statements: list[ListedDocument] = Field(description="The latest month first.")


class EventList(BaseModel):
    events: list[dict[str, Any]] = Field(
        description="By time: calls, corrections of them, or stretches in which something was held, as `kind` says;"
        " `quantity` is what each adds to the line, in its unit."
    )
    next: str | None = Field(description="For `after`: where to go on; null = that was all.")


_Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class NoteWish(Request):
    kind: Literal["credit", "debit"] = Field(description="In the tenant's favour, or in yours.")
    amount: str = Field(
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,4})?$", description="Over 0, in the statement's currency.", examples=["12.50"]
    )
    reason: _Reason = Field(description="What the tenant reads on it.")

    def note(self) -> Note:
        kind = Kind.CREDIT_NOTE if self.kind == "credit" else Kind.DEBIT_NOTE
        return Note(kind, Decimal(self.amount), self.reason)


class MarkWish(Request):
    state: Mark
    note: Annotated[str, StringConstraints(max_length=500)] = Field(default="", description="For the operator's books.")
