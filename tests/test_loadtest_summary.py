"""The verdict for people and for CI: Markdown and JUnit XML, whatever the texts in it hold."""

from dataclasses import replace
from xml.etree import ElementTree as ET

from loadtest_records import IRIS, bill, from_second, latencies, plan_of, record_of, slower, with_replicas
from roost_loadtest.criterion import shown
from roost_loadtest.junit import to_junit
from roost_loadtest.record import Aims, Generator, Replicas, Target
from roost_loadtest.summary import to_markdown
from roost_loadtest.verdict import judge


def told(_: int) -> Replicas:
    return Replicas(wanted=1, ready=1, cold_starts=2)


def test_the_summary_says_first_what_came_of_it():
    record = record_of(
        plan_of(aims=Aims(p99_s=0.1)), second=with_replicas(told), billing=bill(billed=9000, answered=9000)
    )
    text = to_markdown(record, judge(record))
    assert text.startswith(
        "# Load test of acme/iris: passed\n\n9,000 requests in 90 s from 2026-11-23T05:00:00+00:00: "
    )
    assert (
        "9,000 answered, 0 failed,\n0 not sent. Latency from due time: p50 5 ms, p95 5 ms, p99 5 ms, max 5 ms." in text
    )
    assert "Roost 0.1.0 (local). Offered: uniform acme/iris up to 200/s (seed 0)." in text
    assert "acme/iris: 1 replicas at most, 2 cold starts." in text
    assert "| pass | p99 from due time at 200/s | 40-60 s | 5 ms | ≤ 100 ms |  |" in text
    assert "| pass | billed requests = answered calls | acme/iris | 9,000 requests | = 9,000 requests |" in text


def test_the_summary_of_a_failure_begins_with_what_broke_it():
    def broken(each):
        return replace(each, answered=each.answered - 20, errors={"503": 20})

    record = record_of(second=from_second(40, 60, broken), events=((41.0, "version 2 | is <ready>"),))
    text = to_markdown(record, judge(record))
    assert text.startswith(
        "# Load test of acme/iris: failed\n\n- achieved rate at 200/s (40-60 s): 90 %, ≥ 99 % wanted"
    )
    assert "- failed requests: 4.444 %, ≤ 0.1 % wanted (400 x 503)" in text
    assert "## Errors" in text
    assert "| 503 | 400 |" in text
    assert "| 41.0 | version 2 \\| is \\<ready\\> |" in text


def test_the_summary_of_an_invalid_run_says_why():
    record = record_of(generator=Generator(lag=latencies(0.02), cpu=0.4))
    text = to_markdown(record, judge(record))
    assert text.startswith(
        "# Load test of acme/iris: invalid: the generator was too slow\n\n- p99 of the send lag: 20 ms"
    )


def suites(text: str) -> list[tuple[dict[str, str], list[tuple[str, str]]]]:
    """Of each suite its counts, and each case with its outcome."""
    return [
        (suite.attrib, [(case.attrib["classname"], next(child.tag for child in case)) for case in suite])
        for suite in ET.fromstring(text.encode())
    ]


def test_junit_has_a_case_for_each_criterion():
    record = record_of(second=from_second(40, 60, slower(0.15)))
    validity, criteria = suites(to_junit(judge(record)))
    assert (validity[0]["tests"], validity[0]["errors"]) == ("5", "0")
    assert (criteria[0]["name"], criteria[0]["tests"], criteria[0]["failures"]) == ("acme/iris", "16", "1")
    assert ("loadtest.latency_p99", "failure") in criteria[1]
    assert criteria[1].count(("loadtest.latency_p99", "system-out")) == 2
    assert criteria[1].count(("loadtest.latency_p50", "skipped")) == 3
    assert int(criteria[0]["skipped"]) == 9


def test_junit_of_an_invalid_run_has_errors_and_no_failure():
    record = record_of(generator=Generator(lag=latencies(0.02), cpu=0.4), second=from_second(40, 60, slower(0.15)))
    validity, criteria = suites(to_junit(judge(record)))
    assert (validity[0]["errors"], criteria[0]["failures"]) == ("1", "0")
    assert ("loadtest.send_lag_p99", "error") in validity[1]


def test_junit_can_be_read_whatever_the_platform_said():
    hostile = Target("acme", 'x\x00\x1b[2J<&"]]>\ud800')
    record = record_of(replace(plan_of(aims=Aims(p99_s=0.1, billed=False), targets=(hostile,))))
    document = ET.fromstring(to_junit(judge(record)).encode())
    assert 'x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2J<&"]]>' in document[1].attrib["name"]
    assert str(IRIS) == "acme/iris"


def test_figures_for_people():
    assert [shown(value, "s") for value in (None, 0.0123, 1.5, 61)] == ["-", "12.3 ms", "1.5 s", "61 s"]
    assert [shown(0.98765, "share"), shown(12345.0, "requests"), shown(2.0, "")] == ["98.77 %", "12,345 requests", "2"]
