"""`GET /usage`: calls and what was held, by every key there is, for one tenant or all."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete

from gateway_parts import NOON, OPERATOR_KEY, gateway_parts
from metering_parts import event
from roost_platform.database.money_tables import resource_usage
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.hours import refresh
from roost_platform.metering.ledger import record
from roost_platform.metering.resource_report import _merged, resource_report
from roost_platform.metering.resources import record_resources

pytestmark = pytest.mark.usefixtures("each_database")

HOUR = timedelta(hours=1)
NOTHING = {"provisioned_us": 0, "setup_us": 0, "active_us": 0, "idle_us": 0, "reserved_us": 0, "cold_starts": 0}
NOTHING |= {"pull_us": 0, "schedule_us": 0, "load_us": 0, "byte_seconds": 0, "job_us": 0}


def replica(identity: str, *, start: datetime = NOON, **changes: object) -> ResourceUsage:
    values = {
        "source": "engine",
        "id": identity,
        "kind": ResourceKind.REPLICA,
        "start": start,
        "end": start + timedelta(seconds=10),
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "replica": identity,
        "resource_class": "cpu-1",
        "idle_us": 10_000_000,
    }
    return ResourceUsage(**(values | changes))


def storage(identity: str, **changes: object) -> ResourceUsage:
    kind = {"kind": ResourceKind.STORAGE, "replica": "", "resource_class": "", "idle_us": 0, "byte_seconds": 2**61}
    return replica(identity, **(kind | changes))


USED = (
    replica("a", setup_us=4_000_000, load_us=1, pull_us=3_999_999, idle_us=6_000_000, cold_starts=1),
    replica("b", start=NOON + HOUR, idle_us=0, active_us=7, reserved_us=9_999_993),
    replica("c", resource_class="gpu-1", version=2),
    replica("d", model="wine", start=NOON + 24 * HOUR),
    replica("e", tenant="rival"),
    # Together more byte-seconds than a 64-bit sum holds.
    *(storage(f"s{number}", start=NOON + hours * HOUR) for number, hours in enumerate((0, 0, 1, 1, 24))),
    replica("k", kind=ResourceKind.CHECK, replica="", resource_class="", idle_us=0, job_us=830),
)
CALLS = (
    event(0),
    event(1, outcome=Outcome.MODEL_ERROR, status=422),
    event(2, model="wine", time=NOON + 24 * HOUR, cold_start_us=9),
    event(3, tenant="rival"),
)


@pytest.fixture
async def parts(tmp_path):
    async with gateway_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
async def acme(parts):
    key = await parts.add_tenant()
    await parts.database.write(record, CALLS)
    await parts.database.write(record_resources, USED)
    async with parts.client(key) as client:
        yield client


@pytest.fixture
async def operator(parts, acme):
    async with parts.client(OPERATOR_KEY) as client:
        yield client


async def ask(client, status=200, **params):
    answer = await client.get("/api/v1/usage", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def table(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


async def test_the_whole_answer_for_a_tenants_month(acme):
    found = await ask(acme, group_by="version")
    calls = {"requests": 3, "billed_requests": 3, "rows": 3, "compute_us": 4500, "queue_us": 60, "cold_starts": 1}
    calls |= {"cold_start_us": 9, "bytes_in": 300, "bytes_out": 180, "errors": 1, "shadow_requests": 0}
    first = {"provisioned_us": 30_000_000, "setup_us": 4_000_000, "active_us": 7, "idle_us": 16_000_000}
    first |= {"reserved_us": 9_999_993, "cold_starts": 1, "pull_us": 3_999_999, "load_us": 1}
    first |= {"byte_seconds": 5 * 2**61, "job_us": 830}
    second = {"provisioned_us": 10_000_000, "idle_us": 10_000_000}
    total = first | {"provisioned_us": 40_000_000, "idle_us": 26_000_000}
    assert found == {
        "tenant": "acme",
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "group_by": ["version"],
        "rows": [{"version": 1} | calls],
        "total": calls,
        "resources": {
            "group_by": ["version"],
            "rows": [{"version": 1} | NOTHING | first, {"version": 2} | NOTHING | second],
            "total": NOTHING | total,
        },
    }


async def test_calls_are_grouped_by_what_they_have(acme):
    for key, calls in {
        "model": [("iris", 2), ("wine", 1)],
        "outcome": [("model_error", 1), ("ok", 2)],
        "day": [("2026-11-03", 2), ("2026-11-04", 1)],
        "hour": [("2026-11-03T12:00:00+00:00", 2), ("2026-11-04T12:00:00+00:00", 1)],
    }.items():
        found = await ask(acme, group_by=key)
        assert (found["group_by"], table(found["rows"], key, "requests")) == ([key], calls)


async def test_resources_are_grouped_by_what_they_have(acme):
    for key, held in {
        "model": [("iris", 30_000_000), ("wine", 10_000_000)],
        "version": [(1, 30_000_000), (2, 10_000_000)],
        "class": [("", 0), ("cpu-1", 30_000_000), ("gpu-1", 10_000_000)],
        "day": [("2026-11-03", 30_000_000), ("2026-11-04", 10_000_000)],
        "hour": [
            ("2026-11-03T12:00:00+00:00", 20_000_000),
            ("2026-11-03T13:00:00+00:00", 10_000_000),
            ("2026-11-04T12:00:00+00:00", 10_000_000),
        ],
    }.items():
        found = (await ask(acme, group_by=key))["resources"]
        assert (found["group_by"], table(found["rows"], key, "provisioned_us")) == ([key], held)
        assert found["total"]["provisioned_us"] == 40_000_000


async def test_a_key_that_a_kind_does_not_have_is_summed_over(acme):
    found = await ask(acme, group_by="class")
    assert (found["group_by"], table(found["rows"], "requests")) == ([], [(3,)])
    found = (await ask(acme, group_by="outcome"))["resources"]
    assert (found["group_by"], table(found["rows"], "provisioned_us")) == ([], [(40_000_000,)])


async def test_by_meter_both_kinds_are_one_table(acme):
    found = await ask(acme, group_by="model,class,outcome,meter", model="wine")
    calls, held = {"model": "wine", "class": "", "outcome": "ok"}, {"model": "wine", "class": "cpu-1", "outcome": ""}
    assert found["meters"] == [
        calls | {"meter": "requests", "quantity": 1, "unit": "requests"},
        calls | {"meter": "inferences", "quantity": 1, "unit": "rows"},
        calls | {"meter": "compute", "quantity": 1500, "unit": "microseconds"},
        calls | {"meter": "bytes_in", "quantity": 100, "unit": "bytes"},
        calls | {"meter": "bytes_out", "quantity": 60, "unit": "bytes"},
        held | {"meter": "idle", "quantity": 10_000_000, "unit": "microseconds"},
    ]
    assert (await ask(acme, group_by="meter", model="absent"))["meters"] == []


async def test_the_operator_sees_all_tenants_or_one(acme, operator):
    found = await ask(operator, group_by="tenant")
    assert (found["tenant"], table(found["rows"], "tenant", "requests")) == (None, [("acme", 3), ("rival", 1)])
    held = found["resources"]["rows"]
    assert table(held, "tenant", "provisioned_us") == [("acme", 40_000_000), ("rival", 10_000_000)]
    assert (await ask(operator, tenant="acme", group_by="model"))["total"]["requests"] == 3


@pytest.mark.sqlite
async def test_what_cannot_be_reported_is_refused_with_what_can(acme, operator):
    for client, params, field, sentence in (
        (acme, {"group_by": "tenant"}, "group_by", "group_by takes model, version, class, day, hour, outcome, meter"),
        (acme, {"group_by": "model,modell"}, "group_by", "not 'modell'"),
        (operator, {}, "tenant", "say for which tenant (?tenant=NAME), or group by tenant to see all"),
        (operator, {"group_by": "tenant", "tenant": "acme"}, "group_by", "not 'tenant'"),
        (acme, {"from": "2026-11-02T00:00:00Z", "to": "2026-11-02T00:00:00Z"}, "to", "to must be later than from"),
    ):
        refused = await ask(client, 400, **params)
        assert refused["field"] == field
        assert sentence in refused["error"]


@pytest.mark.usefixtures("acme")
async def test_stretches_belong_to_the_period_in_which_they_begin(parts):
    def report(connection, **changes):
        about = {"tenant": "acme", "start": NOON, "end": NOON + HOUR, "model": "iris"}
        return resource_report(connection, **(about | changes)).total.provisioned_us

    instant = timedelta(microseconds=1)
    assert await parts.database.read(report) == 20_000_000
    assert await parts.database.read(report, end=NOON + HOUR + instant) == 30_000_000
    assert await parts.database.read(report, start=NOON + instant) == 0
    with pytest.raises(InvalidRequest, match="resources are grouped by tenant, model, version, class, day, hour"):
        await parts.database.read(resource_report, tenant=None, start=NOON, end=NOON + HOUR, group_by=["outcome"])


@pytest.mark.usefixtures("acme")
async def test_the_report_is_the_same_whether_hours_are_rolled_up_or_not(parts):
    """Also while some are behind, and for a period with broken hours at its ends."""

    def reports(connection):
        periods = [(NOON, NOON + HOUR), (NOON - HOUR, NOON + 30 * HOUR), (NOON + timedelta(seconds=5), NOON + 2 * HOUR)]
        return [
            resource_report(connection, tenant=tenant, start=start, end=end, group_by=keys)
            for tenant in ("acme", None)
            for start, end in periods
            for keys in ((), ("tenant", "model", "version", "class", "hour"))
        ]

    told = await parts.database.read(reports)
    assert len(await parts.database.write(refresh, 1)) == 1
    assert await parts.database.read(reports) == told
    await parts.database.write(refresh, 100)
    assert await parts.database.read(reports) == told
    await parts.database.write(record_resources, [replica("late", start=NOON + 2 * HOUR)])
    later = await parts.database.read(reports)
    assert later[2].total.provisioned_us == told[2].total.provisioned_us + 10_000_000
    await parts.database.write(lambda connection: connection.execute(delete(resource_usage)))
    rolled_up = await parts.database.read(resource_report, tenant="acme", start=NOON, end=NOON + HOUR)
    assert rolled_up.total.provisioned_us == 20_000_000  # the stretches are gone: it is the roll-up that was read


def test_hours_that_are_behind_are_read_as_ranges_but_not_as_too_many():
    hours = [NOON + number * HOUR for number in (0, 1, 2, 4)]
    assert _merged(hours) == [(NOON, NOON + 3 * HOUR), (NOON + 4 * HOUR, NOON + 5 * HOUR)]
    scattered = [NOON + number * 2 * HOUR for number in range(101)]
    assert _merged(scattered) == [(NOON, NOON + 201 * HOUR)]
    assert _merged([]) == []
