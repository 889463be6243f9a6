"""What every engine keeps of what its replicas print: whose line it is, when it was printed, and after the replica's end."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine_harness import KEY, Harness
from engines_under_test import HARNESSES
from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import Revision, RevisionKey
from roost_platform.engines.output import LINES_KEPT, Output

BEGIN = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.fixture(params=HARNESSES)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness: Harness = request.param()
    await harness.start(tmp_path)
    yield harness
    await harness.stop()


async def said(harness: Harness, revision: Revision, times: int) -> list[OutputLine]:
    key = RevisionKey(KEY, revision.name)

    def lines() -> list[OutputLine]:
        return [line for line in harness.engine.output(key) if line.text == "hello"]

    await harness.until(lambda: len(lines()) >= times, 20)
    return lines()


async def test_lines_are_told_apart_by_replica_and_outlive_it(under_test: Harness) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    revision = under_test.install(answer=1, says="hello")
    await under_test.apply(revision, min_scale=1)
    await under_test.until_ready(revision)
    (first,) = await said(under_test, revision, 1)
    await under_test.call(revision)
    under_test.kill_one()
    both = await said(under_test, revision, 2)

    assert both[0] == first
    assert len(both) == 2
    assert began < both[0].at <= both[1].at <= datetime.now(UTC) + timedelta(seconds=1)
    assert both[0].number < both[1].number
    assert both[0].replica
    assert both[1].replica
    everything = under_test.engine.output(RevisionKey(KEY, revision.name))
    assert [line.at for line in everything] == sorted(line.at for line in everything)
    assert under_test.engine.log(RevisionKey(KEY, revision.name), 1) == [everything[-1].text]


async def test_asking_wakes_nothing_and_unknown_revisions_have_no_lines(under_test: Harness) -> None:
    revision = under_test.install(answer=1, says="hello")
    await under_test.apply(revision)
    await under_test.until_ready(revision)
    await said(under_test, revision, 1)
    await under_test.pass_time(200)
    await under_test.until(lambda: not under_test.replicas())
    assert len(await said(under_test, revision, 1)) == 1
    assert not under_test.replicas()
    assert under_test.engine.output(RevisionKey(KEY, "sleeper-09999")) == []


def test_the_oldest_lines_go() -> None:
    output = Output(clock=lambda: BEGIN)
    for number in range(LINES_KEPT + 7):
        output.add("1", str(number))
    kept = output.lines()
    assert [line.text for line in kept] == [str(number) for number in range(7, LINES_KEPT + 7)]
    assert kept[-1] == OutputLine(LINES_KEPT + 7, BEGIN, "1", str(LINES_KEPT + 6))


def printed(*seconds: int) -> list[tuple[datetime, str]]:
    return [(BEGIN + timedelta(seconds=second), f"at {second}") for second in seconds]


def test_lines_that_were_fetched_before_are_not_told_again() -> None:
    output = Output()
    output.add_fetched("a", printed(1, 2))
    output.add_fetched("b", printed(1, 3))
    output.add_fetched("a", printed(1, 2, 4))
    assert [(line.replica, line.text) for line in output.lines()] == [
        ("a", "at 1"), ("b", "at 1"), ("a", "at 2"), ("b", "at 3"), ("a", "at 4"),
    ]  # fmt: skip
    assert sorted(line.number for line in output.lines()) == [1, 2, 3, 4, 5]


def test_lines_that_had_to_go_do_not_come_back() -> None:
    output = Output()
    output.add_fetched("a", printed(*range(LINES_KEPT)))
    output.add_fetched("a", printed(*range(1, LINES_KEPT + 1)))
    newest = output.lines()[-1]
    output.add_fetched("a", printed(0, 1, LINES_KEPT))
    assert output.lines()[-1] == newest
    assert (len(output.lines()), newest.number) == (LINES_KEPT, LINES_KEPT + 1)


def test_a_line_knows_its_zone() -> None:
    with pytest.raises(ValueError, match="aware"):
        OutputLine(1, BEGIN.replace(tzinfo=None), "1", "")
