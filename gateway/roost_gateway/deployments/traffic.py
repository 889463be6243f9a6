"""Traffic in the database: splits, rollbacks, rules and aliases. As in `store`, each function is one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, update

from roost_gateway.access.routes import RevisionRecord, RevisionState, Route
from roost_gateway.deployments import rows
from roost_platform.database.history import Act, What, record_change
from roost_platform.database.tables import revisions
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.routing import Routing, Rule, Sticky, check_alias
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.splits import checked


@dataclass(frozen=True, slots=True)
class Split:
    """What is asked for: percents by version, a number or an alias as text. What is None stays as it is."""

    percents: Mapping[str, int] | None = None
    rules: Sequence[Rule] | None = None
    sticky: Sticky | None = None
    keep_sticky: bool = True
    """Whether `sticky` does not count."""


def roll_back(connection: Connection, key: ServiceKey, version: int, act: Act) -> Route:
    """Give all traffic to the newest ready revision of a version, and cancel what is being deployed.

    Cancelled, because a revision that became ready a moment later would take the traffic right back; one that is to wait
    without traffic does not, and goes on. Raises NotFound
    when there is no such version, Conflict when it has no ready revision.
    """
    route = rows.existing(connection, key)
    record = ready_record(connection, route, version)
    for other in route.records:
        if other.state is RevisionState.DEPLOYING and not rows.waits(connection, key, other.revision.name):
            reason = f"Cancelled: the model was rolled back to version {version} first"
            rows.change_revision(connection, key, other.revision.name, RevisionState.FAILED, reason)
    give_traffic(connection, route, {record.revision.name: 100}, act, What.ROLLBACK)
    return rows.changed(connection, key)


def split(connection: Connection, key: ServiceKey, wish: Split, act: Act) -> Route:
    """Share the traffic anew, at once. What is being deployed will wait without traffic when the shares were changed.

    Raises NotFound (the model, or a version), Conflict when a version has no ready revision, InvalidRequest.
    """
    route = rows.existing(connection, key)
    routing = Routing(
        sticky=route.routing.sticky if wish.keep_sticky else wish.sticky,
        rules=route.routing.rules if wish.rules is None else tuple(wish.rules),
        aliases=route.routing.aliases,
    )
    for rule in wish.rules or ():
        ready_record(connection, route, rule.version)
    _change_routing(connection, route, routing)
    if wish.percents is None:
        if routing != route.routing:
            record_change(connection, key, act, What.TRAFFIC, before=route.routing.to_json(), after=routing.to_json())
        return rows.changed(connection, key)
    shares = {
        ready_record(connection, route, version).revision.name: percent
        for version, percent in _by_number(route, wish.percents).items()
        if percent
    }
    connection.execute(
        update(revisions)
        .where(rows.of_model(revisions, key), revisions.c.state == RevisionState.DEPLOYING)
        .values(takes_traffic=False)
    )
    give_traffic(connection, route, shares, act, What.TRAFFIC, routing=routing)
    return rows.changed(connection, key)


def set_alias(connection: Connection, key: ServiceKey, name: str, version: int | None, act: Act) -> Route:
    """Give a name to a version, in place of the one that had it; None = take it away.

    Raises NotFound (the model, the version, the alias to be taken away), InvalidRequest for the name.
    """
    route = rows.existing(connection, key)
    check_alias(name)
    if version is None and route.routing.alias(name) is None:
        raise NotFound("no such alias")
    if version is not None and not rows.has_version(connection, key, version):
        raise NotFound("no such version")
    routing = route.routing.with_alias(name, version)
    _change_routing(connection, route, routing)
    before, after = dict(route.routing.aliases), dict(routing.aliases)
    if before != after:
        record_change(connection, key, act, What.ALIAS, before=before, after=after)
    return rows.changed(connection, key)


def give_traffic(
    connection: Connection,
    route: Route,
    shares: Mapping[str, int],
    act: Act,
    what: What,
    *,
    routing: Routing | None = None,
) -> None:
    """Share the traffic among revisions by name, and write down who did it; percents that sum to 100."""
    rows.change_model(
        connection, route.key, traffic=[{"revision": name, "percent": share} for name, share in shares.items()]
    )
    versions = {r.revision.name: r.revision.version for r in route.records}
    before: dict[str, Any] = {"traffic": {str(versions[t.revision]): t.percent for t in route.service.traffic}}
    after: dict[str, Any] = {"traffic": {str(versions[name]): percent for name, percent in shares.items()}}
    if routing is not None:
        before, after = before | route.routing.to_json(), after | routing.to_json()
    if before != after or what is not What.TRAFFIC:
        record_change(connection, route.key, act, what, before=before, after=after)


def ready_record(connection: Connection, route: Route, version: int) -> RevisionRecord:
    """The revision that may get traffic. Raises NotFound, Conflict."""
    if not rows.has_version(connection, route.key, version):
        raise NotFound("no such version")
    record = route.record_of_version(version)
    if record is None:
        raise Conflict(f"version {version} is no longer deployed; upload it again", code="version_not_deployed")
    if record.state is RevisionState.FAILED:
        raise Conflict(f"version {version} did not become ready: {record.reason}", code="version_failed")
    if record.state is RevisionState.DEPLOYING:
        raise Conflict(f"version {version} is still being deployed", code="version_deploying")
    return record


def _by_number(route: Route, percents: Mapping[str, int]) -> dict[int, int]:
    """Raises InvalidRequest, NotFound."""
    shares: dict[int, int] = {}
    for name, percent in checked(percents).items():
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= 9 else route.routing.alias(name)
        if number is None:
            raise NotFound(f"there is no version {name[:64]!r}")
        if number in shares:
            raise InvalidRequest(f"version {number} is named twice", field="split")
        shares[number] = percent
    return shares


def _change_routing(connection: Connection, route: Route, routing: Routing) -> None:
    if routing != route.routing:
        rows.change_model(connection, route.key, routing=routing.to_json())
