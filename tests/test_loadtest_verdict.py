"""The verdict on a run: which rule it breaks, which run proves nothing, and what programs read of it."""

import json
from dataclasses import replace

import pytest

from loadtest_records import bill, failed, from_second, latencies, of, plan_of, record_of, slower, steady_second
from roost_loadtest import shapes
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Generator, Record
from roost_loadtest.verdict import FORMAT, Result, judge


def test_a_run_that_went_as_planned_passes():
    verdict = judge(record_of())
    assert (verdict.result, verdict.exit_code, verdict.broken) == (Result.PASS, 0, ())
    assert [each.measured for each in of(verdict, "achieved_rate")] == [1.0, 1.0, 1.0]
    assert [(c.from_s, c.to_s) for c in of(verdict, "latency_p99")] == [(10, 30), (40, 60), (70, 90)]
    assert all(each.measured == pytest.approx(0.005, rel=0.002) for each in of(verdict, "latency_p99"))


def test_the_same_record_gives_the_same_verdict_after_it_was_written_and_read():
    plan = plan_of(shapes.constant(50, 8))
    record = record_of(plan, second=from_second(4, 6, slower(0.3)), events=((2.5, "version 2 is ready"),))
    assert judge(Record.from_json(record.to_json())).to_text() == judge(record).to_text()


def test_each_aim_of_latency_is_judged_for_itself():
    def tail(each):
        return replace(each, latency=latencies(0.01, times=96) if each.sent < 100 else Histogram.sum(
            [latencies(0.01, times=190), latencies(0.2, times=10)]))  # fmt: skip

    aims = Aims(p50_s=0.02, p95_s=0.05, p99_s=0.1, billed=False)
    verdict = judge(record_of(plan_of(aims=aims), second=tail))
    assert [each.id for each in verdict.broken] == ["latency_p99"]
    (broken,) = verdict.broken
    assert (broken.from_s, broken.to_s, broken.limit) == (40, 60, 0.1)
    assert verdict.exit_code == 1


def test_a_stall_shows_although_every_request_was_answered():
    """The run that coordinated omission would call fine: two seconds in which nothing is answered."""

    def stalled(each):
        waits = [5.0 - each.second - n / 100 for n in range(100)] if each.second in (3, 4) else [0.01] * 100
        return replace(each, latency=latencies(*(max(0.01, wait) for wait in waits)))

    plan = plan_of(shapes.constant(100, 10), aims=Aims(p99_s=0.1, settle_s=0, billed=False))
    verdict = judge(record_of(plan, second=stalled))
    assert [each.id for each in verdict.broken] == ["latency_p99"]
    assert verdict.broken[0].measured == pytest.approx(1.9, abs=0.02)


def test_latency_counts_from_when_autoscaling_may_have_settled():
    assert failed(record_of(second=from_second(30, 40, slower(0.5)))) == []
    assert failed(record_of(second=from_second(30, 41, slower(0.5)))) == ["latency_p99"]


def test_a_rate_that_was_not_answered_is_not_achieved():
    verdict = judge(record_of(second=from_second(30, 60, lambda s: replace(s, answered=s.sent * 98 // 100))))
    assert [each.id for each in verdict.broken] == ["achieved_rate"]
    assert verdict.broken[0].measured == pytest.approx(0.98)


def test_a_backlog_that_grows_is_rate_that_was_not_achieved():
    """Every request is answered in the end, long after the stretch: the platform did 180 of 200 a second."""
    growing = from_second(30, 60, lambda s: replace(s, in_flight=20 * (s.second - 29)))
    plan = plan_of(aims=Aims(billed=False))
    verdict = judge(record_of(plan, second=growing))
    assert [each.id for each in verdict.broken] == ["achieved_rate"]
    assert verdict.broken[0].measured == pytest.approx(0.9, abs=0.0003)


def test_a_request_under_way_at_the_end_of_a_slow_stretch_is_no_backlog():
    last = from_second(59, 60, lambda s: replace(s, in_flight=1))
    assert failed(record_of(plan_of(shapes.constant(2, 60), aims=Aims(billed=False)), second=last)) == []


def test_errors_count_over_the_whole_run_and_by_class():
    def broken(each):
        return replace(each, answered=each.answered - 5, errors={"503": 3, "timeout": 2})

    verdict = judge(record_of(second=from_second(31, 33, broken)))
    assert [each.id for each in verdict.broken] == ["errors"]
    assert verdict.broken[0].measured == pytest.approx(10 / 9000)
    assert verdict.broken[0].detail == "6 x 503, 4 x timeout"
    assert verdict.run["errors"] == {"503": 6, "timeout": 4}
    assert failed(record_of(second=from_second(31, 32, broken))) == [], "5 of 9000 is within 0.1 %"


def test_a_run_without_a_single_answer_fails_in_every_way():
    def silent(each):
        return replace(each, answered=0, errors={"connection": each.sent}, latency=Histogram(), in_flight=0)

    assert set(failed(record_of(second=silent))) == {"achieved_rate", "latency_p99", "errors"}


def test_time_to_capacity_is_from_a_step_to_five_seconds_that_meet_the_aims():
    plan = plan_of(aims=Aims(p99_s=0.1, capacity_within_s=6, billed=False))
    steps = of(judge(record_of(plan, second=from_second(30, 36, slower(0.5)))), "time_to_capacity")
    assert [(each.title, each.measured, each.passed) for each in steps] == [
        ("time to capacity: the start", 0, True),
        ("time to capacity: 50 → 200/s", 6, True),
    ], "a step down needs no capacity"
    assert failed(record_of(plan, second=from_second(30, 37, slower(0.5)))) == ["time_to_capacity"]
    never = of(judge(record_of(plan, second=from_second(30, 60, slower(0.5)))), "time_to_capacity")[1]
    assert (never.measured, never.passed, never.detail) == (None, False, "the aims were never met")


@pytest.mark.parametrize(("billed", "answered"), [(10_001, 10_000), (9_999, 10_000)])
def test_a_bill_is_right_to_the_unit(billed, answered):
    plan = plan_of(aims=Aims(p99_s=0.1))
    assert failed(record_of(plan, billing=bill(billed=answered, answered=answered))) == []
    verdict = judge(record_of(plan, billing=bill(billed=billed, answered=answered)))
    assert [(each.id, each.measured, each.limit, each.target) for each in verdict.broken] == [
        ("billed", billed, answered, "acme/iris")
    ]


def test_a_bill_that_could_not_be_read_is_told_and_decides_nothing():
    verdict = judge(record_of(plan_of(aims=Aims())))
    assert [(each.passed, each.detail) for each in of(verdict, "billed")] == [(None, "no bill was read")]
    assert verdict.result is Result.PASS


@pytest.mark.parametrize(
    ("generator", "id_"),
    [
        (Generator(lag=latencies(0.011), cpu=0.4), "send_lag_p99"),
        (Generator(lag=latencies(0.001), cpu=0.86), "generator_cpu"),
        (Generator(lag=latencies(0.001), cpu=0.4, starved_s=0.6), "starved"),
    ],
)
def test_a_generator_that_was_too_slow_proves_nothing(generator, id_):
    verdict = judge(record_of(generator=generator, second=from_second(0, 90, slower(0.5))))
    assert (verdict.result, verdict.exit_code) == (Result.INVALID, 2)
    assert [each.id for each in verdict.broken] == [id_], "what the platform seems to have done is not held against it"


def test_requests_that_were_not_sent_make_a_run_invalid():
    verdict = judge(record_of(second=from_second(40, 41, lambda s: replace(s, sent=s.sent - 1, dropped=1))))
    assert (verdict.result, [each.id for each in verdict.broken]) == (Result.INVALID, ["dropped"])


def test_a_run_that_was_broken_off_is_invalid():
    nothing = from_second(60, 90, lambda s: replace(steady_second(s.second, 0), offered=s.offered))
    verdict = judge(record_of(second=nothing))
    assert (verdict.result, [each.id for each in verdict.broken]) == (Result.INVALID, ["schedule"])


def test_verdict_json_has_the_documented_fields():
    document = json.loads(judge(record_of()).to_text())
    assert list(document) == ["format", "result", "exit_code", "run", "validity", "criteria"]
    assert (document["format"], document["result"], document["exit_code"]) == (FORMAT, "pass", 0)
    fields = ["id", "title", "passed", "measured", "limit", "relation", "unit", "target", "from_s", "to_s", "detail"]
    assert all(list(each) == fields for each in (*document["validity"], *document["criteria"]))
    assert [each["id"] for each in document["validity"]] == [
        "dropped", "schedule", "send_lag_p99", "generator_cpu", "starved",
    ]  # fmt: skip
    assert {each["id"] for each in document["criteria"]} == {
        "achieved_rate", "latency_p50", "latency_p95", "latency_p99", "time_to_capacity", "errors", "replicas",
    }  # fmt: skip
    assert document["run"] == {
        "started_at": "2026-11-23T05:00:00+00:00",
        "duration_s": 90,
        "targets": ["acme/iris"],
        "engine": "local",
        "platform_version": "0.1.0",
        "requests": {"planned": 9000, "sent": 9000, "answered": 9000, "failed": 0, "dropped": 0},
        "errors": {},
        "latency_s": dict.fromkeys(("p50", "p95", "p99", "p999", "max"), 0.005003),
        "service_p99_s": 0.005003,
        "replicas": {},
    }
