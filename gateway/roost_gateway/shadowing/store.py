"""Shadows in the database, and what was counted of them. Functions of a connection."""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from roost_gateway.access.routes import Route
from roost_gateway.deployments import rows
from roost_gateway.deployments.traffic import ready_record
from roost_platform.database.history import Act, What, record_change
from roost_platform.database.shadow_tables import shadow_sums, shadows
from roost_platform.domain.errors import Conflict, NotFound
from roost_platform.domain.rollouts import breaks
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.shadows import Shadow, ShadowPlan, ShadowSums
from roost_platform.metering.line_sql import insert_for

_NO_SHADOW = "the model has no shadow"


def all_shadows(connection: Connection) -> dict[ServiceKey, Shadow]:
    """Of all models."""
    found = connection.execute(select(shadows)).mappings()
    return {ServiceKey(row["tenant"], row["model"]): _shadow(row) for row in found}


def report_of(connection: Connection, key: ServiceKey) -> tuple[Shadow, ShadowSums]:
    """A model's shadow, and what all gateways have counted of it. Raises NotFound."""
    shadow = _find(connection, key)
    if shadow is None:
        rows.existing(connection, key)
        raise NotFound(_NO_SHADOW, code="no_shadow")
    found = connection.execute(select(shadow_sums.c.document).where(shadow_sums.c.shadow == shadow.id)).scalars()
    return shadow, ShadowSums.together([ShadowSums.from_json(document) for document in found])


def put(connection: Connection, key: ServiceKey, plan: ShadowPlan, *, act: Act) -> Route | None:
    """Copy the model's calls from now on, in place of the shadow there is; counting begins anew.

    Raises NotFound (the model, the version), Conflict when the version is not ready, gets all calls, or cannot be called as
    the one can that gets most.
    """
    route = rows.existing(connection, key)
    record = ready_record(connection, route, plan.to)
    serving = route.leading()
    if [route.service.revision(t.revision).version for t in route.service.traffic] == [plan.to]:
        raise Conflict(f"version {plan.to} gets all calls itself", code="already_serving")
    if broken := breaks(serving.signature, record.revision.signature):
        raise Conflict(f"version {plan.to} cannot take the calls: {broken}", code="signature_differs")
    before = _find(connection, key)
    connection.execute(delete(shadows).where(rows.of_model(shadows, key)))
    connection.execute(
        insert(shadows).values(
            tenant=key.tenant, model=key.model, id=secrets.token_hex(8), plan=plan.to_json(), began_at=act.at
        )
    )
    earlier = None if before is None else before.plan.to_json()
    record_change(connection, key, act, What.SHADOW, before=earlier, after=plan.to_json())
    return None


def remove(connection: Connection, key: ServiceKey, *, act: Act) -> Route | None:
    """Copy no more; what was counted goes. Raises NotFound."""
    rows.existing(connection, key)
    before = _find(connection, key)
    if before is None:
        raise NotFound(_NO_SHADOW, code="no_shadow")
    connection.execute(delete(shadows).where(rows.of_model(shadows, key)))
    record_change(connection, key, act, What.SHADOW, before=before.plan.to_json())
    return None


def write_sums(connection: Connection, source: str, counted: Mapping[str, Mapping[str, Any]]) -> None:
    """What this run of a gateway has counted, whole, by the id of the shadow; nothing of one that is no more."""
    insert_row = insert_for(connection.dialect)(shadow_sums)
    keys = [shadow_sums.c.shadow, shadow_sums.c.source]
    for shadow, document in sorted(counted.items()):
        there = select(shadows.c.id).where(shadows.c.id == shadow).with_for_update(read=True)
        if connection.scalar(there) is not None:
            row = insert_row.values(shadow=shadow, source=source, document=dict(document))
            connection.execute(
                row.on_conflict_do_update(index_elements=keys, set_={"document": insert_row.excluded.document})
            )


def _find(connection: Connection, key: ServiceKey) -> Shadow | None:
    row = connection.execute(select(shadows).where(rows.of_model(shadows, key))).mappings().one_or_none()
    return None if row is None else _shadow(row)


def _shadow(row: Mapping[Any, Any]) -> Shadow:
    return Shadow(row["id"], ShadowPlan.from_json(row["plan"]), row["began_at"])
