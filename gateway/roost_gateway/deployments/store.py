"""Revisions in the database, and what becomes of them: each function is one transaction and returns the model as it is after it.

The database is the truth about rollouts. Whatever moment a gateway dies at, these rows hold a state that `start` of the
next one can carry on from: a revision is deploying, ready or failed, and traffic goes to ready revisions only. Whoever
changes a model locks its row first, so that of two gateways the second one sees what the first one did.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from roost_gateway.access.routes import RevisionRecord, RevisionState, Route, generation_of, revision_name
from roost_gateway.deployments import rows
from roost_gateway.deployments.traffic import give_traffic
from roost_platform.database.history import Act, What, record_change
from roost_platform.database.tables import models, revisions
from roost_platform.domain.errors import NotFound
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import ServiceKey

REVISIONS_KEPT = 20
"""Per model. Those with traffic, an alias or a rule and those being deployed are kept besides; versions are never dropped."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a deployment asks for. `scaling_options` in Knative's spelling; they change the model's policy."""

    version: int
    scaling_options: Mapping[str, Any]
    max_batch_size: int
    runtime: str
    traffic: bool = True
    """Whether it takes the traffic once it is ready; a model's first version does in any case."""


def add_revision(
    connection: Connection, key: ServiceKey, wish: Wish, act: Act, check: Callable[[ScalingPolicy], None]
) -> tuple[Route, str]:
    """Make a revision for the wish, state deploying, and return its name; traffic stays as it is.

    A revision that is the same and did not fail is taken instead; one that failed is left as it is and tried again
    under a new name. One that waited without traffic gets it when the wish says so. Raises NotFound when there is no such version, InvalidRequest for the scaling options, and what
    `check` raises for the policy that they make.
    """
    route = rows.existing(connection, key)
    if not rows.has_version(connection, key, wish.version):
        raise NotFound("no such version")
    scaling = route.service.scaling.with_changes(wish.scaling_options)
    if scaling != route.service.scaling:
        check(scaling)
        rows.change_model(connection, key, scaling=scaling.to_json())
        record_change(connection, key, act, What.SCALE, before=route.service.scaling.to_json(), after=scaling.to_json())
    same = _same(route.records, wish)
    if same is not None:
        if wish.traffic:
            _end_waiting(connection, route, same, act)
        return rows.changed(connection, key), same
    query = select(models.c.last_generation).where(rows.is_model(key))
    generation = connection.execute(query).scalar_one() + 1
    name = revision_name(key.model, generation)
    rows.change_model(connection, key, last_generation=generation)
    connection.execute(
        insert(revisions).values(
            tenant=key.tenant,
            model=key.model,
            name=name,
            version=wish.version,
            runtime=wish.runtime,
            max_batch_size=wish.max_batch_size,
            state=RevisionState.DEPLOYING,
            reason="",
            created_at=act.at,
            takes_traffic=wish.traffic,
        )
    )
    record_change(
        connection, key, act, What.DEPLOY, after={"version": wish.version, "revision": name, "traffic": wish.traffic}
    )
    _drop_old(connection, rows.existing(connection, key))
    return rows.changed(connection, key), name


def mark_ready(connection: Connection, key: ServiceKey, name: str, act: Act) -> Route:
    """A revision under way became ready, and takes all traffic unless it was to wait, or something newer has it already.

    A revision that is no longer under way (cancelled, say) stays as it is. Raises NotFound when the model is gone.
    """
    route = rows.existing(connection, key)
    record = route.record(name)
    if record is None or record.state is not RevisionState.DEPLOYING:
        return route
    rows.change_revision(connection, key, name, RevisionState.READY, "")
    newest_serving = max((generation_of(t.revision) for t in route.service.traffic), default=0)
    takes = not newest_serving or (record.generation > newest_serving and not rows.waits(connection, key, name))
    if takes:
        give_traffic(connection, route, {name: 100}, act, What.READY)
    else:
        after = {"version": record.revision.version, "revision": name, "traffic": False}
        record_change(connection, key, act, What.READY, after=after)
    return rows.changed(connection, key)


def mark_failed(connection: Connection, key: ServiceKey, name: str, reason: str, act: Act) -> Route:
    """A revision under way will not become ready. Raises NotFound when the model is gone."""
    route = rows.existing(connection, key)
    record = route.record(name)
    if record is None or record.state is not RevisionState.DEPLOYING:
        return route
    rows.change_revision(connection, key, name, RevisionState.FAILED, reason)
    after = {"version": record.revision.version, "revision": name, "reason": reason}
    record_change(connection, key, act, What.FAILED, after=after)
    return rows.changed(connection, key)


def change_scaling(
    connection: Connection,
    key: ServiceKey,
    options: Mapping[str, Any],
    check: Callable[[ScalingPolicy], None],
    act: Act,
) -> Route:
    """Raises NotFound, InvalidRequest naming the option, and what `check` raises for the policy that they make."""
    before = rows.existing(connection, key).service.scaling
    scaling = before.with_changes(options)
    check(scaling)
    rows.change_model(connection, key, scaling=scaling.to_json())
    if scaling != before:
        record_change(connection, key, act, What.SCALE, before=before.to_json(), after=scaling.to_json())
    return rows.changed(connection, key)


def _same(records: Iterable[RevisionRecord], wish: Wish) -> str | None:
    """The newest revision with the wish's version and settings that did not fail."""
    names = [
        r.revision.name
        for r in records
        if r.state is not RevisionState.FAILED
        and (r.revision.version, r.revision.runtime, r.revision.max_batch_size)
        == (wish.version, wish.runtime, wish.max_batch_size)
    ]
    return names[-1] if names else None


def _end_waiting(connection: Connection, route: Route, name: str, act: Act) -> None:
    """Let a revision have the traffic that was to wait without: at once when it is ready, else when it is."""
    if not rows.waits(connection, route.key, name):
        return
    change = update(revisions).where(rows.is_revision(route.key, name)).values(takes_traffic=True)
    connection.execute(change)
    record = route.record(name)
    if record is not None and record.state is RevisionState.READY:
        give_traffic(connection, route, {name: 100}, act, What.TRAFFIC)


def _drop_old(connection: Connection, route: Route) -> None:
    named = {rule.version for rule in route.routing.rules} | {version for _, version in route.routing.aliases}
    serving = {t.revision for t in route.service.traffic}
    serving |= {record.revision.name for n in named if (record := route.record_of_version(n)) is not None}
    surplus = len(route.records) - REVISIONS_KEPT
    idle = [r for r in route.records if r.state is not RevisionState.DEPLOYING and r.revision.name not in serving]
    for record in idle[: max(0, surplus)]:
        connection.execute(delete(revisions).where(rows.is_revision(route.key, record.revision.name)))
