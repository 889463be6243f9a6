"""Who changed what of a model, when, from which to which: an audit log that the database refuses to change.

Each entry is written in the transaction of its change, so there is neither a change without one nor one without its
change. It outlives the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, insert, select

from roost_platform.database.tables import UtcTime, metadata
from roost_platform.domain.services import ServiceKey

history = Table(
    "history",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("by", String(63), nullable=False),
    Column("what", String(32), nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Index("ix_history_tenant_model", "tenant", "model", "id"),
    sqlite_autoincrement=True,
)

OPERATOR = "operator"
ROOST = "roost"
"""Nobody asked: a revision became ready, or did not."""


class What(StrEnum):
    DEPLOY = "deploy"
    READY = "ready"
    FAILED = "failed"
    TRAFFIC = "traffic"
    ROLLBACK = "rollback"
    ROLLOUT = "rollout"
    SHADOW = "shadow"
    ALIAS = "alias"
    SCALE = "scale"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something, and when. `by`: the id of a key, `operator`, or `roost` itself."""

    at: datetime
    by: str = ROOST


@dataclass(frozen=True, slots=True)
class Entry:
    """`before` and `after` hold only what differs."""

    id: int
    at: datetime
    by: str
    what: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def record_change(
    connection: Connection,
    key: ServiceKey,
    act: Act,
    what: What,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """In the transaction of the change. What is the same before and after is left out."""
    old, new = dict(before or {}), dict(after or {})
    same = {name for name in old.keys() & new.keys() if old[name] == new[name]}
    connection.execute(
        insert(history).values(
            tenant=key.tenant,
            model=key.model,
            at=act.at,
            by=act.by,
            what=what,
            before={name: value for name, value in old.items() if name not in same},
            after={name: value for name, value in new.items() if name not in same},
        )
    )


def read_history(connection: Connection, key: ServiceKey, *, limit: int, before: int | None = None) -> list[Entry]:
    """The newest first; `before`: only what is older than the entry of this id."""
    query = select(history).where(history.c.tenant == key.tenant, history.c.model == key.model)
    if before is not None:
        query = query.where(history.c.id < before)
    rows = connection.execute(query.order_by(history.c.id.desc()).limit(limit)).mappings()
    return [Entry(**{name: row[name] for name in Entry.__slots__}) for row in rows]
