"""Rollouts in the database. Each function is one transaction; what changes traffic changes it in the same one.

Whoever decides locks the model's row first, so of two gateways, or a gateway and a person, the second sees what the first did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from roost_gateway.access.routes import Route
from roost_gateway.deployments import rows
from roost_gateway.deployments.traffic import give_traffic, ready_record
from roost_platform.database.history import Act, What, record_change
from roost_platform.database.rollout_tables import rollout_events, rollout_evidence, rollouts
from roost_platform.domain.comparing import By, Comparison
from roost_platform.domain.errors import Conflict
from roost_platform.domain.evidence import Counts
from roost_platform.domain.guards import parse
from roost_platform.domain.rollouts import (
    ACTIVE,
    Decision,
    Evidence,
    Move,
    Rollout,
    RolloutPlan,
    RolloutState,
    breaks,
    decide,
)
from roost_platform.domain.services import ServiceKey
from roost_platform.metering.line_sql import insert_for

CANDIDATE, STABLE = "candidate", "stable"
"""Aliases that a rollout moves."""
_LONGEST_PAUSE = timedelta(hours=1)
_CHANGED_BY_HAND = Decision(Move.ROLL_BACK, "the traffic was changed by hand", {})
_ABORTED_BY_HAND = Decision(Move.ROLL_BACK, "it was aborted by hand", {})


@dataclass(frozen=True, slots=True)
class Event:
    """One decision. `by`: the id of a key, `operator`, or `roost` itself."""

    id: int
    at: datetime
    by: str
    what: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """An event that somebody has to be told of."""

    event: Event
    tries: int
    key: ServiceKey
    rollout: int


def active(connection: Connection) -> dict[ServiceKey, Rollout]:
    """All that go on, of all models."""
    found = connection.execute(select(rollouts).where(rollouts.c.state.in_(ACTIVE))).mappings()
    return {ServiceKey(row["tenant"], row["model"]): _rollout(row) for row in found}


def of_model(connection: Connection, key: ServiceKey, *, limit: int) -> list[Rollout]:
    """The newest first; of a deleted model too."""
    query = _of(key).order_by(rollouts.c.id.desc()).limit(limit)
    return [_rollout(row) for row in connection.execute(query).mappings()]


def events_of(connection: Connection, rollout: int) -> list[Event]:
    """The oldest first."""
    query = select(rollout_events).where(rollout_events.c.rollout == rollout).order_by(rollout_events.c.id)
    return [_event(row) for row in connection.execute(query).mappings()]


def evidence_of(connection: Connection, rollout: Rollout) -> Evidence:
    """Of the step that it is at, from all gateways together."""
    query = select(rollout_evidence.c.counts).where(
        rollout_evidence.c.rollout == rollout.id, rollout_evidence.c.step == rollout.step
    )
    sums: dict[str, list[int]] = {}
    for counts in connection.execute(query).scalars():
        for guard, four in counts.items():
            sums[guard] = [a + b for a, b in zip(sums.get(guard, (0, 0, 0, 0)), four, strict=True)]
    return Evidence(
        candidate={guard: Counts(four[0], four[1]) for guard, four in sums.items()},
        serving={guard: Counts(four[2], four[3]) for guard, four in sums.items()},
    )


def write_evidence(
    connection: Connection, gateway: str, counted: Mapping[tuple[int, int], Mapping[str, tuple[int, int, int, int]]]
) -> None:
    """What this gateway has counted, whole, by rollout and step."""
    insert_row = insert_for(connection.dialect)(rollout_evidence)
    keys = [rollout_evidence.c.rollout, rollout_evidence.c.step, rollout_evidence.c.gateway]
    for (rollout, step), counts in counted.items():
        values = {
            "rollout": rollout,
            "step": step,
            "gateway": gateway,
            "counts": {g: list(c) for g, c in counts.items()},
        }
        change = insert_row.values(values).on_conflict_do_update(
            index_elements=keys, set_={"counts": insert_row.excluded.counts}
        )
        connection.execute(change)


def begin(connection: Connection, key: ServiceKey, plan: RolloutPlan, *, tell: bool, act: Act) -> Route:
    """Start a rollout: the first step's share goes to the new version.

    Raises NotFound (the model, the version), Conflict when a rollout goes on, when the traffic is split already, when the
    version serves it all, is not ready, or cannot be called as the serving one is.
    """
    route = rows.existing(connection, key)
    candidate = ready_record(connection, route, plan.to)
    if _active(connection, key) is not None:
        raise Conflict("a rollout of this model goes on; abort it first", code="rollout_active")
    if len(route.service.traffic) != 1:
        raise Conflict("the traffic is split; give it all to one version first", code="traffic_split")
    serving = route.service.revision(route.service.traffic[0].revision)
    start = serving.version
    if start == plan.to:
        raise Conflict(f"version {start} serves all calls already", code="already_serving")
    if broken := breaks(serving.signature, candidate.revision.signature):
        raise Conflict(f"version {plan.to} would break its callers: {broken}", code="signature_differs")
    made = connection.execute(
        insert(rollouts).values(
            tenant=key.tenant,
            model=key.model,
            start=start,
            to=plan.to,
            steps=list(plan.steps),
            every_s=plan.every_s,
            guard=",".join(guard.text for guard in plan.guards),
            minimum=plan.minimum,
            compare=plan.comparison.to_json(),
            state=RolloutState.RUNNING,
            step=0,
            step_began_at=act.at,
            began_at=act.at,
            reason="",
        )
    )
    (number,) = made.inserted_primary_key or (0,)
    share = plan.steps[0]
    _share(connection, route, {start: 100 - share, plan.to: share}, act)
    _name(connection, route, {STABLE: start, CANDIDATE: candidate.revision.version}, act)
    facts = {"from": start, "to": plan.to, "percent": share, "steps": list(plan.steps), "every_s": plan.every_s}
    _note(connection, number, act, "started", facts, tell=tell)
    return rows.changed(connection, key)


def advance(connection: Connection, key: ServiceKey, *, tell: bool, act: Act) -> Route | None:
    """Decide what the model's rollout does next, and do it. None when nothing but its reason changed, or nothing at all."""
    route = rows.existing(connection, key)
    rollout = _active(connection, key)
    if rollout is None:
        return None
    if not _undisturbed(route, rollout):
        _end(connection, route, rollout, RolloutState.ABORTED, _CHANGED_BY_HAND, tell=tell, act=act)
        return rows.changed(connection, key)
    decision = decide(rollout, evidence_of(connection, rollout), act.at)
    if decision.move is Move.HOLD:
        _hold(connection, rollout, decision, tell=tell, act=act)
        return None
    _move(connection, route, rollout, decision, tell=tell, act=act)
    return rows.changed(connection, key)


def change(connection: Connection, key: ServiceKey, wish: RolloutState, *, tell: bool, act: Act) -> Route:
    """Pause, resume or abort by hand. Raises NotFound, Conflict when there is nothing to be paused, resumed or aborted."""
    route = rows.existing(connection, key)
    rollout = _active(connection, key)
    if rollout is None:
        raise Conflict("no rollout of this model goes on", code="no_rollout")
    if wish is RolloutState.ABORTED:
        if _undisturbed(route, rollout):
            _share(connection, route, {rollout.start: 100}, act)
        _end(connection, route, rollout, wish, _ABORTED_BY_HAND, tell=tell, act=act)
        return rows.changed(connection, key)
    if wish is rollout.state:
        return route
    # A step that was paused begins anew: its time does, its evidence stays.
    since = {"step_began_at": act.at} if wish is RolloutState.RUNNING else {}
    _set(connection, rollout, state=wish, reason="", **since)
    what = "paused" if wish is RolloutState.PAUSED else "resumed"
    _note(connection, rollout.id, act, what, {"percent": rollout.percent}, tell=tell)
    return rows.changed(connection, key)


def end_orphan(connection: Connection, key: ServiceKey, *, tell: bool, act: Act) -> None:
    """The model was deleted while a rollout went on."""
    rollout = _active(connection, key)
    if rollout is not None:
        reason = "the model was deleted"
        _set(connection, rollout, state=RolloutState.ABORTED, reason=reason, ended_at=act.at)
        _note(connection, rollout.id, act, RolloutState.ABORTED, {"reason": reason}, tell=tell)


def untold(connection: Connection, now: datetime, *, limit: int) -> list[Told]:
    """Events that somebody has to be told of now, those that wait longest first."""
    due = rollout_events.c.next_try_at
    query = (
        select(rollout_events, rollouts.c.tenant, rollouts.c.model)
        .join(rollouts, rollouts.c.id == rollout_events.c.rollout)
        .where(due <= now)
        .order_by(due, rollout_events.c.id)
        .limit(limit)
    )
    found = connection.execute(query).mappings()
    return [Told(_event(r), r["tries"], ServiceKey(r["tenant"], r["model"]), r["rollout"]) for r in found]


def note_tries(connection: Connection, outcomes: Mapping[int, tuple[int, bool]], now: datetime) -> None:
    """What came of telling events, by id: how often it was tried, and whether they were taken."""
    for number, (tries, taken) in outcomes.items():
        again = None if taken else now + min(timedelta(seconds=2 ** min(tries - 1, 12)), _LONGEST_PAUSE)
        mine = rollout_events.c.id == number
        connection.execute(update(rollout_events).where(mine).values(tries=tries, next_try_at=again))


def _move(connection: Connection, route: Route, rollout: Rollout, decision: Decision, *, tell: bool, act: Act) -> None:
    plan = rollout.plan
    if decision.move is Move.ROLL_BACK:
        _share(connection, route, {rollout.start: 100}, act)
        _end(connection, route, rollout, RolloutState.ROLLED_BACK, decision, tell=tell, act=act)
    elif decision.move is Move.PROMOTE:
        _share(connection, route, {plan.to: 100}, act)
        _name(connection, route, {STABLE: plan.to}, act)
        _end(connection, route, rollout, RolloutState.PROMOTED, decision, tell=tell, act=act)
    else:
        share = plan.steps[rollout.step + 1]
        _share(connection, route, {rollout.start: 100 - share, plan.to: share}, act)
        _set(connection, rollout, step=rollout.step + 1, step_began_at=act.at, reason="")
        facts = {"percent": share, "reason": decision.reason, "numbers": decision.numbers}
        _note(connection, rollout.id, act, "step", facts, tell=tell)


def _hold(connection: Connection, rollout: Rollout, decision: Decision, *, tell: bool, act: Act) -> None:
    """Written down once for each reason."""
    if decision.reason != rollout.reason:
        _set(connection, rollout, reason=decision.reason)
        facts = {"percent": rollout.percent, "reason": decision.reason, "numbers": decision.numbers}
        _note(connection, rollout.id, act, "held", facts, tell=tell)


def _end(
    connection: Connection,
    route: Route,
    rollout: Rollout,
    state: RolloutState,
    why: Decision,
    *,
    tell: bool,
    act: Act,
) -> None:
    _name(connection, route, {CANDIDATE: None}, act)
    _set(connection, rollout, state=state, reason=why.reason, ended_at=act.at)
    facts = {"percent": rollout.percent, "reason": why.reason} | ({"numbers": why.numbers} if why.numbers else {})
    _note(connection, rollout.id, act, state, facts, tell=tell)


def _undisturbed(route: Route, rollout: Rollout) -> bool:
    """Whether the traffic is as the rollout left it, whatever revisions stand for the versions."""
    shares = {route.service.revision(t.revision).version: t.percent for t in route.service.traffic}
    return shares == {rollout.start: 100 - rollout.percent, rollout.plan.to: rollout.percent}


def _share(connection: Connection, route: Route, percents: Mapping[int, int], act: Act) -> None:
    shares = {ready_record(connection, route, version).revision.name: share for version, share in percents.items()}
    give_traffic(connection, route, shares, act, What.ROLLOUT)


def _name(connection: Connection, route: Route, wishes: Mapping[str, int | None], act: Act) -> None:
    stored = rows.existing(connection, route.key).routing
    routing = stored
    for alias, version in wishes.items():
        routing = routing.with_alias(alias, version)
    if routing != stored:
        rows.change_model(connection, route.key, routing=routing.to_json())
        before, after = dict(stored.aliases), dict(routing.aliases)
        record_change(connection, route.key, act, What.ALIAS, before=before, after=after)


def _note(connection: Connection, rollout: int, act: Act, what: str, facts: Mapping[str, Any], *, tell: bool) -> None:
    row = {"rollout": rollout, "at": act.at, "by": act.by, "what": what, "facts": dict(facts), "tries": 0}
    connection.execute(insert(rollout_events).values(**row, next_try_at=act.at if tell else None))


def _set(connection: Connection, rollout: Rollout, **values: Any) -> None:
    connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(**values))


def _active(connection: Connection, key: ServiceKey) -> Rollout | None:
    row = connection.execute(_of(key).where(rollouts.c.state.in_(ACTIVE))).mappings().one_or_none()
    return None if row is None else _rollout(row)


def _of(key: ServiceKey) -> Select[Any]:
    return select(rollouts).where(rollouts.c.tenant == key.tenant, rollouts.c.model == key.model)


def _rollout(row: Mapping[Any, Any]) -> Rollout:
    comparison = Comparison.of(**(row["compare"] or {"by": By.VALUES}))
    guards = parse(row["guard"])
    plan = RolloutPlan(row["to"], tuple(row["steps"]), row["every_s"], guards, row["minimum"], comparison)
    return Rollout(
        id=row["id"],
        plan=plan,
        start=row["start"],
        state=RolloutState(row["state"]),
        step=row["step"],
        step_began_at=row["step_began_at"],
        began_at=row["began_at"],
        ended_at=row["ended_at"],
        reason=row["reason"],
    )


def _event(row: Mapping[Any, Any]) -> Event:
    return Event(row["id"], row["at"], row["by"], row["what"], row["facts"])
