"""Corrections of usage over HTTP: new rows, once for ever (M2), exact whoever sends them in whatever order (M4), all or nothing."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import DBAPIError

from gateway_parts import NOON, Parts, gateway_parts, refusal
from metering_parts import event as call
from money_corrections_parts import correction
from roost_gateway.api.correction_events import read_events
from roost_platform.database.money_tables import dirty_hours, ledger_conflicts, usage_corrections
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.tenants import Scope
from roost_platform.metering.recording import record

PATH = "/api/v1/usage/corrections"
ONE, MANY = "application/cloudevents+json", "application/cloudevents-batch+json"


@pytest.fixture
async def parts(tmp_path: Path, each_database: str) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant("acme")
        yield made


@pytest.fixture
async def operator(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.client() as client:
        yield client


async def send(client: httpx.AsyncClient, content: Any, kind: str = ONE) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return await client.post(PATH, content=body, headers={"Content-Type": kind})


def _count(connection: Connection, table: Any) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


async def stored(parts: Parts) -> int:
    return await parts.database.read(_count, usage_corrections)


async def hours(parts: Parts) -> dict[tuple[str, str, str], int]:
    def read(connection: Connection) -> dict[tuple[str, str, str], int]:
        rows = connection.execute(select(dirty_hours).order_by(dirty_hours.c.hour))
        return {(row.kind, row.tenant, row.hour.isoformat()): row.marks for row in rows}

    return await parts.database.read(read)


async def test_a_correction_is_a_new_row_that_marks_its_hour_and_can_be_read_again(
    parts: Parts, operator: httpx.AsyncClient
):
    parts.clock.move(minutes=34)
    answer = await send(operator, correction(time="2026-11-03T13:15:00.25+01:00"), f"{ONE}; charset=utf-8")
    assert (answer.status_code, answer.json()) == (201, {"source": "/desk", "id": "c-1", "duplicate": False})
    assert await hours(parts) == {("calls", "acme", "2026-11-03T12:00:00+00:00"): 1}
    secret = (await parts.keys.create("acme", name="reader", scopes=frozenset({Scope.READ}), expires_at=None)).secret
    async with parts.client(secret) as acme:
        seen = (await acme.get(PATH)).json()
    assert seen == (await operator.get(PATH, params={"tenant": "acme"})).json()
    assert seen == {
        "tenant": "acme",
        "corrections": [
            {
                "source": "/desk",
                "id": "c-1",
                "time": "2026-11-03T12:15:00.250000Z",
                "recorded_at": "2026-11-03T12:34:00Z",
                "model": "iris",
                "version": 1,
                "outcome": "ok",
                "requests": -1,
                "rows": -1,
                "compute_us": -1500,
                "bytes_in": -100,
                "bytes_out": -60,
                "corrects": None,
                "reason": "answered twice",
            }
        ],
    }


async def test_m2_the_same_event_again_after_a_second_a_day_and_forty_days_is_one_row_for_ever(
    parts: Parts, operator: httpx.AsyncClient
):
    again = {"source": "/desk", "id": "c-1", "duplicate": True}
    assert (await send(operator, correction())).status_code == 201
    for later in ({"seconds": 1}, {"hours": 25}, {"days": 40}, {"days": 400}):
        parts.clock.move(**later)
        # The same moment in another zone, the same data in another order, an attribute that is not kept: the same event.
        event = correction(time="2026-11-03T17:00:00+05:00", traceparent="00-1-1-00")
        event["data"] = dict(reversed(event["data"].items()))
        answer = await send(operator, event)
        assert (answer.status_code, answer.json()) == (200, again)
    assert await stored(parts) == 1
    assert await hours(parts) == {("calls", "acme", "2026-11-03T12:00:00+00:00"): 1}


@pytest.mark.parametrize("later_s", [0, 40 * 86400])
async def test_other_content_under_a_known_id_is_409_the_first_is_kept_and_the_other_put_aside_once(
    parts: Parts, operator: httpx.AsyncClient, later_s: int
):
    await send(operator, correction())
    parts.clock.move(seconds=later_s)
    for _ in range(2):
        refused = await send(operator, correction(rows=-2))
        assert refusal(refused) == (409, "correction_differs", "id")
    listed = (await operator.get(PATH, params={"tenant": "acme", "from": "2026-11-01T00:00:00Z"})).json()
    assert [each["rows"] for each in listed["corrections"]] == [-1]

    def conflicts(connection: Connection) -> list[tuple[str, str, int]]:
        return [
            (row.source, row.id, json.loads(row.content)["rows"])
            for row in connection.execute(select(ledger_conflicts))
        ]

    assert await parts.database.read(conflicts) == [("/desk", "c-1", -2)]
    other = correction(source="/other", rows=-2, time=parts.clock().isoformat())
    assert (await send(operator, other)).status_code == 201, "another source's id"


async def test_m4_eight_writers_of_one_set_in_any_order_make_the_exact_total(
    parts: Parts, tmp_path: Path, each_database: str
):
    chance = random.Random(4)
    events = [
        correction(f"c-{n}", time=(NOON.replace(hour=n % 5)).isoformat(), requests=chance.randint(-9, 9), rows=n + 1)
        for n in range(120)
    ]

    async def write(seed: int, client: httpx.AsyncClient) -> int:
        mine = events.copy()
        random.Random(seed).shuffle(mine)
        new = 0
        for start in range(0, len(mine), 15):
            answer = await send(client, mine[start : start + 15], MANY)
            assert answer.status_code in (200, 201), answer.text
            new += [taken["duplicate"] for taken in answer.json()["corrections"]].count(False)
        return new

    async with parts.client() as client:
        new = await asyncio.gather(*(write(seed, client) for seed in range(8)))
    assert sum(new) == len(events)

    def sums(connection: Connection) -> tuple[int, ...]:
        row = usage_corrections.c
        columns = (func.count(), func.sum(row.requests), func.sum(row.rows), func.sum(row.compute_us))
        return tuple(int(value) for value in connection.execute(select(*columns)).one())

    wanted = tuple(sum(event["data"][name] for event in events) for name in ("requests", "rows", "compute_us"))
    assert await parts.database.read(sums) == (len(events), *wanted)
    assert len(await hours(parts)) == 5


@pytest.mark.sqlite
async def test_how_late_and_how_early_a_correction_may_be(parts: Parts, operator: httpx.AsyncClient):
    parts.clock.move(days=35)  # the month of the usage is over: that is no matter here
    assert refusal(await send(operator, correction("a", time="2026-11-03T11:59:59.999999Z"))) == (
        400,
        "correction_too_late",
        "time",
    )
    assert (await send(operator, correction("b", time="2026-11-03T12:00:00Z"))).status_code == 201
    assert refusal(await send(operator, correction("c", time="2026-12-08T12:05:00.000001Z"))) == (
        400,
        "correction_too_early",
        "time",
    )
    assert (await send(operator, correction("d", time="2026-12-08T12:05:00Z"))).status_code == 201
    assert await stored(parts) == 2


async def test_of_a_batch_with_one_bad_event_nothing_is_stored_and_the_error_says_which(
    parts: Parts, operator: httpx.AsyncClient
):
    good = [correction(f"c-{n}") for n in range(5)]
    await send(operator, correction("known"))

    def with_bad(**changes: Any) -> list[dict[str, Any]]:
        return [*good[:3], correction(**{"id": "bad"} | changes), *good[3:]]

    for changes, wanted in (
        ({"rows": "many"}, (400, "invalid_request", "3.data.rows")),
        ({"time": "2026-01-01T00:00:00Z"}, (400, "correction_too_late", "3.time")),
        ({"subject": "tenant/absent"}, (404, "not_found", "3.subject")),
        ({"corrects": ("run", 7)}, (400, "corrected_call_unknown", "3.data.corrects")),
        ({"id": "known", "rows": -5}, (409, "correction_differs", "3.id")),
        ({"id": "c-1", "rows": -5}, (409, "correction_differs", "3.id")),
    ):
        assert refusal(await send(operator, with_bad(**changes), MANY)) == wanted
        assert await stored(parts) == 1, changes
    assert (await hours(parts))["calls", "acme", "2026-11-03T12:00:00+00:00"] == 1
    taken = (await send(operator, [*good, correction("known"), good[0]], MANY)).json()
    assert [each["duplicate"] for each in taken["corrections"]] == [False] * 5 + [True, True]
    again = await send(operator, good, MANY)
    assert (again.status_code, [each["duplicate"] for each in again.json()["corrections"]]) == (200, [True] * 5)


@pytest.fixture
async def known_calls(parts: Parts) -> Parts:
    await parts.add_tenant("rival")
    events = [call(n, rows=8, compute_us=1500, bytes_in=100, bytes_out=60) for n in range(3)]
    await parts.database.write(record, [*events, call(3, tenant="rival")])
    return parts


WHOLE = {"requests": -1, "rows": -8, "compute_us": -1500, "bytes_in": -100, "bytes_out": -60}


async def test_a_call_that_is_named_must_be_there_and_be_that_tenants(known_calls: Parts, operator: httpx.AsyncClient):
    unknown = (400, "corrected_call_unknown", "data.corrects")
    assert refusal(await send(operator, correction("a", corrects=("run", 4)))) == unknown
    assert refusal(await send(operator, correction("a", corrects=("other", 0)))) == unknown
    assert refusal(await send(operator, correction("a", corrects=("run", 3)))) == unknown, "another tenant's"
    differs = (400, "corrected_call_differs", "data.model")
    assert refusal(await send(operator, correction("a", corrects=("run", 0), version=2))) == differs
    assert (await send(operator, correction("a", corrects=("run", 0), **WHOLE))).status_code == 201
    (row,) = (await operator.get(PATH, params={"tenant": "acme"})).json()["corrections"]
    assert row["corrects"] == {"source": "run", "sequence": 0}


async def test_all_corrections_of_a_call_take_away_no_more_than_it_had(known_calls: Parts, operator: httpx.AsyncClient):
    def part(id: str, rows: int, **changes: Any) -> dict[str, Any]:  # noqa: A002
        nothing = dict.fromkeys(WHOLE, 0)
        return correction(id, corrects=("run", 1), **nothing | {"rows": rows} | changes)

    assert (await send(operator, part("a", -5))).status_code == 201
    below = (409, "corrected_below_zero", "data.rows")
    assert refusal(await send(operator, part("b", -4))) == below
    assert refusal(await send(operator, [part("b", -2), part("c", -2)], MANY))[:2] == below[:2]
    assert refusal(await send(operator, part("b", -1, outcome="model_error"))) == below, "it had none that ended so"
    assert (await send(operator, part("b", 1))).status_code == 201, "given back"
    assert (await send(operator, part("c", -4))).status_code == 201
    assert refusal(await send(operator, part("d", -1))) == below
    moved = [correction("e", corrects=("run", 2), **WHOLE)]
    moved.append(correction("f", corrects=("run", 2), outcome="platform_error", **{k: -v for k, v in WHOLE.items()}))
    assert (await send(operator, moved, MANY)).status_code == 201, "a call that was our own fault after all"


async def test_of_two_that_take_the_same_call_away_at_once_one_is_refused(
    known_calls: Parts, operator: httpx.AsyncClient
):
    for number in range(3):
        answers = await asyncio.gather(
            *(send(operator, correction(f"{number}-{n}", corrects=("run", number), **WHOLE)) for n in range(4))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert await stored(known_calls) == 3


async def test_a_correction_cannot_be_changed_or_removed_in_the_database_itself(
    parts: Parts, operator: httpx.AsyncClient
):
    await send(operator, correction())

    def tamper(connection: Connection) -> None:
        connection.execute(update(usage_corrections).values(rows=-100))

    with pytest.raises(DBAPIError, match="final"):
        await parts.database.write(tamper)
    with pytest.raises(DBAPIError, match="final"):
        await parts.database.write(lambda connection: connection.execute(usage_corrections.delete()) and None)


@pytest.mark.sqlite
async def test_a_moment_that_is_none_in_utc_is_refused(parts: Parts, operator: httpx.AsyncClient):
    for path in (PATH, "/api/v1/usage"):
        for name, moment in (("from", "0001-01-01T00:00:00+14:00"), ("to", "9999-12-31T23:59:59-14:00")):
            refused = await operator.get(path, params={"tenant": "acme", name: moment})
            assert refusal(refused) == (400, "invalid_request", name), path


@pytest.mark.sqlite
async def test_only_the_operator_corrects(parts: Parts):
    async with parts.client(await parts.add_tenant("rival")) as rival:
        assert refusal(await send(rival, correction())) == (403, "operator_only", None)
        assert refusal(await rival.get(PATH, params={"tenant": "acme"})) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "a b"}, "id"),
        ({"source": None}, "source"),
        ({"type": "io.roost.usage.correction.v2"}, "type"),
        ({"subject": "acme"}, "subject"),
        ({"subject": "tenant/ACME"}, "subject"),
        ({"time": None}, "time"),
        ({"time": "2026-11-03T12:00:00"}, "time"),
        ({"time": 1_700_000_000}, "time"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "time"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"data_base64": "e30="}, "body"),
        ({"Subject": "tenant/acme"}, "body"),
        ({"model": "IRIS"}, "data.model"),
        ({"version": -1}, "data.version"),
        ({"outcome": "fine"}, "data.outcome"),
        ({"requests": 0.5}, "data.requests"),
        ({"requests": "1"}, "data.requests"),
        ({"requests": True}, "data.requests"),
        ({"bytes_in": 2**53 + 1}, "data.bytes_in"),
        ({"reason": ""}, "data.reason"),
        ({"reason": "a\x00b"}, "data.reason"),
        (dict.fromkeys(WHOLE, 0), "data"),
    ],
)
def test_what_is_wrong_with_an_event_is_named(changes: dict[str, Any], field: str):
    for kind, content, place in ((ONE, correction(**changes), ""), (MANY, [correction(), correction(**changes)], "1.")):
        with pytest.raises(InvalidRequest) as refused:
            read_events(kind, json.dumps(content).encode())
        named = refused.value.field
        assert named == (f"{place}{field}" if field != "body" else place.rstrip(".") or "body")


@pytest.mark.sqlite
async def test_bodies_that_are_no_events(parts: Parts, operator: httpx.AsyncClient):
    assert refusal(await send(operator, b"{", ONE)) == (400, "invalid_json", "body")
    assert refusal(await send(operator, b"\xff", ONE)) == (400, "invalid_json", "body")
    assert refusal(await send(operator, [correction()], ONE))[0] == 400
    assert refusal(await send(operator, correction(), MANY))[0] == 400
    assert refusal(await send(operator, [], MANY)) == (400, "invalid_request", "body")
    many = [correction(f"c-{n}", reason="x") for n in range(1001)]
    assert refusal(await send(operator, many, MANY)) == (400, "invalid_request", "body")
    assert refusal(await send(operator, correction(), "application/json"))[:2] == (415, "unsupported_media_type")
    typo = correction()
    typo["data"]["row"] = 1
    assert refusal(await send(operator, typo)) == (400, "invalid_request", "data.row")
    assert (await send(operator, many[:1000], MANY)).status_code == 201
    assert await stored(parts) == 1000
    listed = [
        (await operator.get(PATH, params={"tenant": "acme", "limit": 600, "offset": at})).json() for at in (0, 600)
    ]
    assert [len(page["corrections"]) for page in listed] == [600, 400]
    assert len({each["id"] for page in listed for each in page["corrections"]}) == 1000
