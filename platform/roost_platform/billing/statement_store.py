"""Final statements and their notes, as they were made: canonical JSON in rows that nobody can change, and marks beside them.

Whoever writes to a tenant's documents locks them first, so that two who do it at once do it one after the other, and both find
the one document that there is. Functions of a connection; they speak SQLite and PostgreSQL.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, insert, select

from roost_platform.billing.exports.json import canonical, from_json
from roost_platform.billing.months import Month
from roost_platform.billing.notes import Note, make_note
from roost_platform.billing.statements import Kind, Statement, Status, statement_id
from roost_platform.database.money_tables import statement_marks, statements
from roost_platform.domain.errors import Conflict, NotFound

_LOCK = 0x4D6F6E79
"""The first half of PostgreSQL's advisory locks of tenants' documents; the second one is made of the tenant's name."""


class Mark(StrEnum):
    """What became of a final document; it keeps its first mark."""

    PAID = "paid"
    VOID = "void"
    """Nothing of it is owed, and what becomes known of its month later is billed no more."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A final document without its lines."""

    id: str
    tenant: str
    month: str
    kind: Kind
    of: str
    status: str
    """`final`, `paid` or `void`."""
    currency: str
    total: str
    inputs_hash: str
    document_hash: str
    """sha256 of the document; it never changes."""
    finalized_at: datetime


class OutdatedError(Exception):
    """The tenant has other documents by now than those that a statement was made from: make it again."""


def documents_of(connection: Connection, tenant: str, *, since: Month | None = None) -> list[Statement]:
    """All final documents of a tenant, of this month and later ones; by month, a statement before its notes."""
    row = statements.c
    query = select(row.document).where(row.tenant == tenant).order_by(row.month, row.finalized_at, row.id)
    if since is not None:
        query = query.where(row.month >= str(since))
    return [from_json(json.loads(document)) for document in connection.scalars(query)]


def listed(connection: Connection, tenant: str | None = None) -> list[Listed]:
    """The latest month first; of one tenant, or of all."""
    row = statements.c
    query = select(statements).order_by(row.month.desc(), row.tenant, row.finalized_at, row.id)
    if tenant is not None:
        query = query.where(row.tenant == tenant)
    marks = _marks(connection, tenant)
    return [
        Listed(
            id=found.id,
            tenant=found.tenant,
            month=found.month,
            kind=Kind(found.kind),
            of=json.loads(found.document)["of"],
            status=marks.get(found.id, str(Status.FINAL)),
            currency=found.currency,
            total=found.total,
            inputs_hash=found.inputs_hash,
            document_hash=hashlib.sha256(found.document.encode()).hexdigest(),
            finalized_at=found.finalized_at,
        )
        for found in connection.execute(query)
    ]


def read_document(connection: Connection, document_id: str) -> Statement | None:
    document = connection.scalar(select(statements.c.document).where(statements.c.id == document_id))
    return None if document is None else from_json(json.loads(document))


def state_of(connection: Connection, tenant: str) -> frozenset[str]:
    """What of a tenant's documents matters to the statements to come: which there are, and which of them are void."""
    row = statements.c
    ids = connection.scalars(select(row.id).where(row.tenant == tenant, row.kind == Kind.STATEMENT))
    return frozenset(ids) | {f"{found} is void" for found in void_ids(connection, tenant)}


def void_ids(connection: Connection, tenant: str) -> frozenset[str]:
    return frozenset(found for found, mark in _marks(connection, tenant).items() if mark == Mark.VOID)


def keep(connection: Connection, statement: Statement, *, seen: frozenset[str]) -> Statement:
    """Keep a final statement; returns the one that is kept, which is the first.

    `seen`: the `state_of` its tenant's documents when it was made. Raises OutdatedError when it is another by now.
    """
    _lock(connection, statement.tenant)
    there = read_document(connection, statement.id)
    if there is not None:
        return there
    if state_of(connection, statement.tenant) != seen:
        raise OutdatedError
    _insert(connection, statement)
    return statement


def add_note(connection: Connection, of: str, note: Note, *, now: datetime) -> Statement:
    """Write a note for a final statement. The same one again is the one that is there.

    Raises NotFound without such a statement, Conflict when it is a note itself, void, or credited with all it came to.
    """
    found = read_document(connection, of)
    if found is None:
        raise NotFound("no such final statement", code="statement_not_found")
    _lock(connection, found.tenant)
    if found.kind is not Kind.STATEMENT:
        raise Conflict(f"{of} is a note; write notes for the statement {found.of}", code="not_a_statement")
    notes = _notes_of(connection, found)
    made = make_note(found, note, others=notes, now=now)
    for there in notes:
        if there.inputs_hash == made.inputs_hash:
            return there
    if of in void_ids(connection, found.tenant):
        raise Conflict(f"{of} is void: nothing of it is owed", code="statement_void")
    _insert(connection, made)
    return made


def set_mark(connection: Connection, document_id: str, mark: Mark, note: str, *, now: datetime) -> Listed:
    """Write down what became of a document; the same again changes nothing. Raises NotFound, Conflict for another mark."""
    found = read_document(connection, document_id)
    if found is None:
        raise NotFound("no such final statement", code="statement_not_found")
    _lock(connection, found.tenant)
    there = _marks(connection, found.tenant).get(document_id)
    if there is None:
        row = {"statement": document_id, "state": str(mark), "at": now, "note": note}
        connection.execute(insert(statement_marks).values(row))
    elif there != mark:
        raise Conflict(f"{document_id} is {there} already", code="statement_marked", field="state")
    return next(each for each in listed(connection, found.tenant) if each.id == document_id)


def final_statement(connection: Connection, tenant: str, month: Month) -> Statement | None:
    return read_document(connection, statement_id(tenant, month))


def _insert(connection: Connection, made: Statement) -> None:
    row = {
        "id": made.id,
        "tenant": made.tenant,
        "month": str(made.month),
        "kind": str(made.kind),
        "currency": made.currency,
        "total": f"{made.total:f}",
        "inputs_hash": made.inputs_hash,
        "document": canonical(made).decode(),
        "finalized_at": made.made_at,
    }
    connection.execute(insert(statements).values(row))


def _notes_of(connection: Connection, statement: Statement) -> list[Statement]:
    found = documents_of(connection, statement.tenant, since=statement.month)
    return [each for each in found if each.of == statement.id]


def _marks(connection: Connection, tenant: str | None) -> dict[str, str]:
    row = statement_marks.c
    query: Any = select(row.statement, row.state)
    if tenant is not None:
        of_tenant = select(statements.c.id).where(statements.c.tenant == tenant)
        query = query.where(row.statement.in_(of_tenant))
    return {statement: state for statement, state in connection.execute(query)}  # noqa: C416 (rows are no pairs)


def _lock(connection: Connection, tenant: str) -> None:
    """Until the transaction ends, nobody else writes to this tenant's documents. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(tenant))))
