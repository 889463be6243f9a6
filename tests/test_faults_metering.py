"""What is counted, when, and that it is counted once (M2, M4, M5, M12)."""

import asyncio
import json
import random
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

import models_for_tests as models
from faulty_calls import request, tensor
from http_raw import ADD_ONE
from metering_parts import NOON, append, event, ledger_in, request_ids, segments
from predict_parts import PredictPath, json_response, predict_path
from roost_gateway.money.metered import metered
from roost_platform.billing.months import month_of
from roost_platform.billing.price_file import default_price_books
from roost_platform.billing.statements import make_statement
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Unavailable
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps, record, usage_report
from roost_platform.metering.shipper import Shipper
from roost_process import RoostProcess, until

WRITERS = 8


def copy_of(folder: Path, name: str) -> Path:
    kept = folder / name
    shutil.copytree(folder / "journal", kept)
    return kept


@pytest.mark.usefixtures("each_database")
@pytest.mark.parametrize("age", [timedelta(seconds=1), timedelta(hours=25), timedelta(days=40), timedelta(days=4000)])
async def test_m2_a_journal_that_comes_back_however_late_adds_nothing(tmp_path: Path, age: timedelta):
    """As after a restored backup. No window of time is involved: an event's source and number are unique for ever."""
    happened = NOON - age
    journal = Journal(tmp_path / "journal", source="run")
    for number in range(20):
        append(journal, f"r{number}", time_us=int(happened.timestamp()) * 1_000_000 + number)
        await journal.written()
    journal.close()
    kept = copy_of(tmp_path, "kept")
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "journal", database=database)
        assert await shipper.ship_once() == 20
        assert segments(tmp_path / "journal") == []
        report = await database.read(usage_report, tenant="acme", start=happened - age, end=NOON + age)
        for rename in ("run-1.jsonl", "run-77.jsonl", "other-1.jsonl"):  # a segment's name is not what makes it known
            for segment in kept.glob("*.jsonl"):
                shutil.copy(segment, tmp_path / "journal" / rename)
            assert await Shipper(journal_folder=tmp_path / "journal", database=database).ship_once() == 0
        assert await database.read(request_ids) == [f"r{number}" for number in range(20)]
        again = await database.read(usage_report, tenant="acme", start=happened - age, end=NOON + age)
        assert again == report
        assert again.total.requests == 20


@pytest.mark.usefixtures("each_database")
async def test_m4_eight_writers_of_one_set_of_events_in_any_order(tmp_path: Path):
    events = [event(n, source=f"run{n % 3}", compute_us=n, rows=1) for n in range(3000)]
    with ExitStack() as stack:
        first = stack.enter_context(ledger_in(tmp_path))
        url = first.engine.url.render_as_string(hide_password=False)
        databases = [first]
        for _ in range(WRITERS - 1):
            databases.append(Database(url))
            stack.callback(databases[-1].close)

        async def write(writer: int) -> int:
            chance = random.Random(writer)
            mine = chance.sample(events, len(events))
            new = 0
            while mine:
                some = [mine.pop() for _ in range(min(len(mine), chance.randint(1, 400)))]
                try:
                    new += await databases[writer].write(record, some)
                except Unavailable:  # the others had it for longer than a write waits: as a shipper's, it comes again
                    mine += some
            return new

        new = await asyncio.gather(*map(write, range(WRITERS)))
        assert sum(new) == len(events), "each event was new to exactly one writer"
        report = await first.read(usage_report, tenant="acme", start=NOON, end=NOON + timedelta(seconds=1))
    assert report.total.requests == report.total.rows == len(events)
    assert report.total.compute_us == sum(range(3000))


@pytest.mark.usefixtures("each_database")
async def test_m4_eight_shippers_of_one_journal_count_it_once(tmp_path: Path):
    journal = Journal(tmp_path / "journal", source="run", segment_bytes=4000)
    with ExitStack() as stack:
        first = stack.enter_context(ledger_in(tmp_path))
        url = first.engine.url.render_as_string(hide_password=False)
        databases = [first, *(Database(url) for _ in range(WRITERS - 1))]
        for database in databases[1:]:
            stack.callback(database.close)
        shippers = [
            Shipper(journal_folder=tmp_path / "journal", database=database, stretch_bytes=700 + 100 * index)
            for index, database in enumerate(databases)
        ]
        for number in range(300):
            append(journal, f"r{number:03}")
            await journal.written()
            if number % 30 == 0:
                await asyncio.gather(*(shipper.ship_once() for shipper in shippers))
        journal.close()
        await asyncio.gather(*(shipper.ship_once() for shipper in shippers))
        assert sum(shipper.shipped for shipper in shippers) == 300
        assert await first.read(request_ids) == [f"r{number:03}" for number in range(300)]
        assert await first.read(gaps, "run") == ()


MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.usefixtures("each_database")
async def test_m5_every_moment_at_midnight_is_in_exactly_one_hour_day_and_month(tmp_path: Path):
    moments = [MIDNIGHT - timedelta(milliseconds=1), MIDNIGHT - TICK, MIDNIGHT, MIDNIGHT + TICK]
    with ledger_in(tmp_path) as database:
        await database.write(record, [event(n, time=moment, compute_us=10**n) for n, moment in enumerate(moments)])
        seen = []
        for month in (month_of(MIDNIGHT - TICK), month_of(MIDNIGHT)):
            report = await database.read(
                usage_report, tenant="acme", start=month.start, end=month.end, group_by=("day",)
            )
            seen.append(({row.keys["day"]: row.figures.requests for row in report.rows}, report.total.compute_us))
            usage = await database.read(metered, tenant="acme", edges=[month.start, month.end])
            made = make_statement(tenant="acme", month=month, usage=usage, books=default_price_books(), now=month.end)
            assert made.charged_calls == 2
        assert seen == [({"2026-11-30": 2}, 11), ({"2026-12-01": 2}, 1100)]
        hours = await database.read(
            usage_report, tenant="acme", start=moments[0], end=moments[-1] + TICK, group_by=("hour",)
        )
        assert [row.keys["hour"] for row in hours.rows] == ["2026-11-30T23:00:00+00:00", "2026-12-01T00:00:00+00:00"]
        without_last = await database.read(usage_report, tenant="acme", start=moments[0], end=moments[-1])
        assert without_last.total.requests == 3, "half-open: the end is not in it"


async def test_m5_a_call_belongs_to_the_moment_in_which_its_answer_was_ready(tmp_path: Path):
    async with predict_path(tmp_path) as path:
        await _assert_timed_by_its_answer(path)


async def _assert_timed_by_its_answer(path: PredictPath) -> None:
    moments: list[datetime] = []

    async def answer(request_: object):
        moments.append(datetime.now(UTC))
        await asyncio.sleep(0.05)
        moments.append(datetime.now(UTC))
        return json_response({})

    path.engine.answer = answer
    assert (await path.call()).status == 200
    (recorded,) = path.events()
    assert moments[0] < moments[1] <= recorded.time <= datetime.now(UTC)


def test_m12_what_counts_and_what_does_not_is_what_is_written(tmp_path: Path):
    """docs/api.md, "Metering": one event per prediction let through to a model; looking and being refused is free."""
    with RoostProcess(tmp_path, ROOST_LIMIT_REQUEST_BYTES="100000") as server:
        key = server.make_tenant()
        server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), window=6)
        server.deploy(key, "pick", models.fails_on_negative(tmp_path / "pick.onnx"), min_scale=1)
        with server.client(key) as admin:
            reader = admin._json("POST", "/api/v1/keys", json={"name": "r", "scopes": ["read"]})["secret"]
        http = httpx.Client(base_url=server.url, timeout=60)

        def call(name: str, status: int, path: str = "/v2/models/one/infer", **more) -> None:
            headers = {"x-request-id": name, "authorization": f"Bearer {key}"} | more.pop("headers", {})
            method = more.pop("method", "POST")
            response = http.request(method, f"/t/acme{path}", headers=headers, **more)
            assert response.status_code == status, (name, response.content)

        for look in ("", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/one", "/v1/models/one",
                     "/v2/models/one/ready", "/v2/models/one/versions/1"):  # fmt: skip
            call("look", 200, look, method="GET")
        for probe in ("/livez", "/readyz", "/metrics"):
            assert http.get(probe).status_code == 200
        call("no key", 401, headers={"authorization": ""}, content=ADD_ONE)
        call("no scope", 403, headers={"authorization": f"Bearer {reader}"}, content=ADD_ONE)
        call("no model", 404, "/v2/models/absent/infer", content=ADD_ONE)
        call("no path", 404, "/v2/models/one/infer/", content=ADD_ONE)
        call("no method", 405, method="PUT", content=ADD_ONE)
        assert server.shipped_ledger(key) == []

        until(lambda: not server.replicas("one"), within=60, what="sleep")
        call("cold", 200, content=ADD_ONE)
        call("warm", 200, content=ADD_ONE)
        forged = {"roost-compute-us": "9" * 15, "x-roost-rows": "99", "k-queue-us": "9", "knative-serving-revision": "x",
                  "content-length": str(len(ADD_ONE)), "user-agent": "kube-probe/1.30"}  # fmt: skip
        call("forged", 200, headers=forged, content=ADD_ONE)
        call("three-rows", 200, content=request(tensor(shape=[3, 4], data=[1.5] * 12)))
        call("no-version", 404, "/v2/models/one/versions/9/infer", content=ADD_ONE)
        call("bad-json", 400, content=b"{")
        call("bad-kind", 415, content=ADD_ONE, headers={"content-type": "text/plain"})
        call("too-large", 413, content=b" " * 100_001)
        index = b'{"inputs":[{"name":"index","datatype":"INT64","shape":[1],"data":[%d]}]}'
        call("model-error", 422, "/v2/models/pick/infer", content=index % 9)
        call("v1", 200, "/v1/models/one:predict", content=b'{"instances":[[1,2,3,4],[5,6,7,8]]}')

        columns = "request_id, outcome, status, version, compute_us, queue_us, cold_start_us, rows, bytes_in, bytes_out"
        rows = {row[0]: row[1:] for row in server.shipped_ledger(key, columns)}
        none = {name: row[:3] + row[6:7] for name, row in rows.items()}
        assert none == {
            "cold": ("ok", 200, 1, 1), "warm": ("ok", 200, 1, 1), "forged": ("ok", 200, 1, 1),
            "three-rows": ("ok", 200, 1, 3), "v1": ("ok", 200, 1, 2), "model-error": ("model_error", 422, 1, 1),
            "no-version": ("client_error", 404, 0, 0), "bad-json": ("client_error", 400, 1, 0),
            "bad-kind": ("client_error", 415, 1, 0), "too-large": ("client_error", 413, 1, 0),
        }  # fmt: skip
        cold, warm = rows["cold"], rows["warm"]
        assert cold[4] >= cold[5] > 0, "waking is a part of waiting"
        assert warm[5] == 0
        assert all(
            0 < rows[name][3] < 60_000_000 for name in ("cold", "warm", "forged", "three-rows", "v1", "model-error")
        )
        assert warm[7] == len(ADD_ONE)
        with server.client(key) as client:
            total = client.usage()["total"]
            statement = client.statement(datetime.now(UTC).strftime("%Y-%m"))
        assert (total["requests"], total["billed_requests"], total["cold_starts"]) == (10, 6, 1)
        assert statement["charged_calls"] == 6, json.dumps(statement)
        skus = {line["sku"] for line in statement["lines"]}
        assert not [sku for sku in skus if "queue" in sku or "cold" in sku], "waiting is not charged"
        http.close()
        assert server.stop() == 0
