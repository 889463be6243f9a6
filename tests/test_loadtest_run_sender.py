"""The sender against a server in a process of its own that does what is known beforehand: is what it measures true?"""

import time
from collections import Counter

import pytest

from loadtest_server import serving
from roost_loadtest.arrivals import Process, due_times
from roost_loadtest.collector import Collector
from roost_loadtest.record import Plan, Stream, Target
from roost_loadtest.sender import Sender, Traffic, same
from roost_loadtest.shapes import constant, steps

TARGET = Target("acme", "iris")


def send(url, shape, *, process=Process.UNIFORM, **how):
    """Everything that the shape says: the collector, and the seconds of the plan."""
    collector = Collector()
    traffic = Traffic(str(TARGET), TARGET.path, shape, same([b'{"inputs":[]}']), process=process)
    Sender(url, [traffic], collector, **how).run(time.perf_counter())
    return collector, collector.seconds(Plan(url, (Stream(TARGET, shape, process),)))


def test_a_stall_of_two_seconds_shows_in_the_99th_percentile():
    """0.3 s after its first request the server stalls for 2 s: what is due x s into the stall waits 2 - x s."""
    with serving("--stall", "0.3,2") as url:
        collector, seconds = send(url, constant(100, 3.0))
    first, *_ = dues = list(due_times(constant(100, 3.0), Process.UNIFORM))
    waits = sorted(max(0.0, first + 2.3 - due) if due >= first + 0.3 else 0.0 for due in dues)
    latency = sum_of(seconds)
    assert latency.count == 300
    own = collector.lag.largest  # what this machine owed the generator is no finding about the server
    longer = max(
        0.0, latency.quantile(1.0) - waits[-1]
    )  # the server's process may get to run late: it stalls longer then
    assert latency.quantile(0.99) == pytest.approx(waits[296] + longer, abs=0.02 * 2 + own)
    assert latency.quantile(0.75) == pytest.approx(waits[224] + longer, abs=0.02 * 1.2 + own)
    # Nothing was held back: all went out when they were due, which is what closed-loop tools get wrong.
    assert [second.sent for second in seconds] == [100] * 3
    assert [second.answered for second in seconds] == [100] * 3
    assert sum(second.finished for second in seconds) == 300
    assert seconds[1].in_flight == pytest.approx(170, abs=5)
    assert collector.in_flight == 0


def test_a_known_capacity_is_measured():
    """Asked for twice what it can, a server that answers 250 a second gets 250 done in every second but the first.

    As 100 may be in flight at once, each waits 100/250 s (Little's law).
    """
    with serving("--capacity", "250") as url:
        _, seconds = send(url, constant(500, 2.0), connections=100)
    assert seconds[1].finished == pytest.approx(250, rel=0.02)
    assert seconds[1].in_flight == pytest.approx(100, abs=10)  # where this machine was away, a few more are under way
    assert seconds[1].latency.quantile(0.5) == pytest.approx(0.4, rel=0.02)
    assert sum(second.answered + second.dropped for second in seconds) == 1000


def test_what_is_due_beyond_the_limit_is_dropped_and_counted_not_waited_for():
    with serving("--stall", "0,0.6") as url:
        _, seconds = send(url, constant(100, 0.5), connections=10)
    assert (seconds[0].sent, seconds[0].dropped, seconds[0].due) == (10, 40, 50)
    assert seconds[0].answered == 10


def test_errors_are_counted_by_class_and_only_answers_that_are_charged_are():
    with serving("--status", "200,422,503,200") as url:
        collector, seconds = send(url, constant(400, 0.1))
    assert (seconds[0].answered, seconds[0].errors) == (20, {"422": 10, "503": 10})
    assert collector.charged == Counter({"acme/iris": 30})
    assert collector.service.count == 40


def test_no_answer_within_the_timeout_is_an_error_of_its_own():
    with serving("--stall", "0,60") as url:
        collector, seconds = send(url, constant(20, 0.1), timeout_s=0.05)
    assert seconds[0].errors == {"timeout": 2}
    assert (collector.charged, seconds[0].answered) == (Counter(), 0)


def test_a_server_that_is_not_there_refuses_every_request():
    with serving() as url:
        pass
    _, seconds = send(url, constant(100, 0.05))
    assert seconds[0].errors == {"refused": 5}


def test_a_body_that_cannot_be_made_is_an_error_of_the_generator(capsys):
    collector = Collector()
    traffic = Traffic("x", "/x", constant(10, 0.1), lambda number: {}[number], process=Process.UNIFORM)
    Sender("http://127.0.0.1:9", [traffic], collector).run(time.perf_counter())
    (second,) = collector.seconds(Plan("", (Stream(TARGET, constant(10, 0.1)),)))
    assert second.errors == {"generator": 1}
    assert "KeyError" in capsys.readouterr().err


def test_several_processes_send_one_schedule_and_their_counts_add_up():
    shape = steps([(200, 0.1), (600, 0.1)])
    with serving("--status", "200,200,500") as url:
        parts = [send(url, shape, process=Process.POISSON, part=part, parts=3)[0] for part in range(3)]
    total = Collector()
    for part in parts:
        for name in ("cpu", "starved_s"):
            setattr(part, name, 0.25)
        total.merge(part.take())
        assert part.take()["seconds"] == {}, "taken once"
    plan = Plan("", (Stream(TARGET, shape),))
    (second,) = total.seconds(plan)
    assert second.sent == len(list(due_times(shape, Process.POISSON)))
    assert second.answered + second.failed == second.latency.count == total.lag.count == second.sent
    assert total.charged["acme/iris"] == second.answered
    assert (total.generator().cpu, total.generator().starved_s) == (0.25, 0.25)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8000", "http://"])
def test_a_url_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="URL"):
        Sender(url, [], Collector())


@pytest.mark.parametrize(("path", "headers"), [("/x y", {}), ("/x", {"A": "b\r\nC: d"})])
def test_nobody_smuggles_a_header(path, headers):
    with pytest.raises(ValueError, match="HTTP does not allow"):
        Sender("http://127.0.0.1:9", [Traffic("x", path, constant(1, 1), same([b""]), headers)], Collector())


def sum_of(seconds):
    total = type(seconds[0].latency)()
    for second in seconds:
        total.merge(second.latency)
    return total
