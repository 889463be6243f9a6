"""`roost doctor`: what it judges, and what it finds in real folders and databases."""

import json
import os
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from databases import url_of
from recording_server import Command
from roost_gateway.doctor import judging
from roost_gateway.doctor.judging import Verdict
from roost_gateway.doctor.looking import examine
from roost_gateway.settings import Settings
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate


@given(
    st.one_of(
        st.builds(judging.judge_space, st.integers(0, 2**50), upload_bytes=st.integers(1, 2**31)),
        st.builds(judging.judge_mode, st.integers(0, 0o777)),
        st.builds(judging.judge_skew, st.floats(-1e6, 1e6), uncertain_s=st.floats(0, 100)),
        st.builds(judging.judge_synchronized, st.sampled_from([True, False, None])),
        st.builds(judging.judge_open_files, st.integers(-1, 2**20), st.integers(-1, 2**20)),
        st.builds(judging.judge_memory, st.integers(0, 2**40)),
        st.builds(judging.judge_landlock, st.integers(0, 9)),
    )
)
def test_whatever_is_not_well_comes_with_what_to_do(finding):
    assert finding.says
    assert bool(finding.do) == (finding.verdict in (Verdict.WARN, Verdict.FAIL))


@pytest.mark.parametrize(
    ("skew_s", "uncertain_s", "verdict"),
    [
        (0.9, 0, Verdict.OK),
        (-1.0, 0, Verdict.WARN),
        (5.0, 4.5, Verdict.OK),  # the question took nine seconds: nothing is known to be wrong
        (59.9, 0, Verdict.WARN),
        (-60.0, 0, Verdict.FAIL),
    ],
)
def test_a_clock_is_blamed_only_for_what_the_question_itself_did_not_take(skew_s, uncertain_s, verdict):
    assert judging.judge_skew(skew_s, uncertain_s=uncertain_s).verdict is verdict


def test_space_is_measured_against_the_largest_upload():
    verdicts = [judging.judge_space(free, upload_bytes=2**31).verdict for free in (2**30 - 1, 2**30, 2**32)]
    assert verdicts == [Verdict.FAIL, Verdict.WARN, Verdict.OK]


def test_it_makes_nothing_where_nothing_is(tmp_path):
    findings = examine(Settings(data=tmp_path / "absent"))
    assert [f.says for f in findings if f.part == "store"] == ["no data folder yet: `roost serve` makes it"]
    assert list(tmp_path.iterdir()) == []


def _about(settings: Settings, part: str) -> list[tuple[Verdict, str]]:
    return [(f.verdict, f.do) for f in examine(settings) if f.part == part]


def test_a_database_is_judged_by_its_tables(tmp_path, each_database):
    url = url_of(tmp_path, empty=True)
    settings = Settings(data=tmp_path, database_url=url)
    database = Database(url)
    shared = database.shared
    before = _about(settings, "database")
    migrate(database.engine)
    database.close()
    assert before == ([(Verdict.FAIL, "Run: roost migrate")] if shared else [(Verdict.OK, "")])
    assert _about(settings, "database") == [(Verdict.OK, "")]
    clocks = [f for f in examine(settings) if f.says == "agrees with the database's"]
    assert len(clocks) == shared


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path):
    file = tmp_path / "roost.db"
    with sqlite3.connect(file) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t SELECT zeroblob(100000);")
    connection.close()
    whole = bytearray(file.read_bytes())
    whole[100:4096] = os.urandom(3996)
    file.write_bytes(whole)
    [(verdict, do)] = _about(Settings(data=tmp_path), "database")
    assert (verdict, do) == (Verdict.FAIL, "Stop the server and restore a backup (docs/operations.md).")
    assert file.read_bytes() == bytes(whole)


def test_a_database_that_is_away_is_said_without_its_password(tmp_path):
    settings = Settings(data=tmp_path, database_url="postgresql+psycopg://roost:hunter2@127.0.0.1:1/roost")
    findings = [f for f in examine(settings) if f.part == "database"]
    assert [f.verdict for f in findings] == [Verdict.FAIL]
    assert "hunter2" not in str(findings)


def test_an_address_for_others_needs_an_operator_key(tmp_path):
    findings = examine(Settings(data=tmp_path, host="0.0.0.0"))
    assert findings[0].verdict is Verdict.FAIL
    assert findings[0].do == "Set ROOST_OPERATOR_KEY, or listen on 127.0.0.1."


def test_the_command_says_what_to_do_and_exits_1_only_for_failures(tmp_path):
    roost = Command("http://127.0.0.1:1", tmp_path)
    well = roost("doctor", "--json")
    document = json.loads(well.stdout)
    assert (well.exit_code, document["ok"]) == (0, True)
    assert {f["part"] for f in document["findings"]} == {"store", "database", "engine", "clock", "limits"}
    ill = roost("doctor", environment={"ROOST_HOST": "0.0.0.0"})
    assert ill.exit_code == 1
    assert "Must (limits): Set ROOST_OPERATOR_KEY, or listen on 127.0.0.1." in ill.stdout
