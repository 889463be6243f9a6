"""Replaying invocation counts as Azure Functions' public trace has them."""

import pytest

from roost_loadtest import shape_text, trace

HEAD = "HashOwner,HashApp,HashFunction,Trigger,1,2,3,4\n"


@pytest.fixture
def day(tmp_path):
    path = tmp_path / "invocations_per_function_md.anon.d01.csv"
    path.write_text(HEAD + "o1,a1,f1,http,60,0,120,0\no1,a2,f2,timer,1,1,1,\n\no2,a3,f3,http,0,0,6,6\n")
    return path


def test_rows_are_functions_and_columns_minutes(day):
    rows = trace.read(day)
    assert [(row.function, row.trigger, row.calls) for row in rows] == [
        ("f1", "http", 180),
        ("f2", "timer", 3),
        ("f3", "http", 12),
    ]
    assert rows[1].counts == (1, 1, 1, 0)


def test_rows_are_chosen_by_number_or_by_the_beginning_of_a_hash(day):
    rows = trace.read(day)
    assert trace.choose(rows) == rows
    assert [row.function for row in trace.choose(rows, "#2")] == ["f2"]
    assert [row.function for row in trace.choose(rows, "o1")] == ["f1", "f2"]
    for which in ("#0", "#4", "#x", "zzz"):
        with pytest.raises(ValueError, match=r"trace has rows #1 to #3|begins with 'zzz'"):
            trace.choose(rows, which)


def test_a_replay_keeps_the_calls_and_shortens_the_time(day):
    shape = shape_text.shape(f"trace:{day},speed=60", duration_s=1)
    assert (shape.duration_s, shape.requests) == (4, 195)
    assert [shape.rate(at) for at in (0.5, 1.5, 2.5, 3.5)] == [61, 1, 127, 6]
    chosen = shape_text.shape(f"trace:{day},row=#1,scale=0.5,from=2,minutes=2", duration_s=1)
    assert (chosen.duration_s, chosen.requests, chosen.rate(30), chosen.rate(90)) == (120, 60, 0, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "named by the number of a minute"),
        ("a,b\n1,2\n", "named by the number of a minute"),
        (HEAD, "without rows"),
        (HEAD + "o,a,f,http,1,2\n", "line 2: a count"),
        (HEAD + "o,a,f,http,1,2,x,4\n", "line 2: a count"),
        (HEAD + "o,a,f,http,1,2,-3,4\n", "line 2: fewer than no"),
    ],
)
def test_a_file_that_is_no_trace_is_told_by_line(tmp_path, content, says):
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=says):
        trace.read(path)


@pytest.mark.parametrize("option", ["from=0", "from=5", "minutes=0", "scale=0", "speed=0", "speed=x"])
def test_minutes_and_speeds_that_are_none_are_refused(day, option):
    with pytest.raises(ValueError, match=r"minutes|above 0|no number"):
        shape_text.shape(f"trace:{day},{option}", duration_s=1)


def test_a_trace_of_minutes_alone_is_as_good(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("minute,1,2\nmonday,30,90\n")
    assert shape_text.shape(f"trace:{path}", duration_s=1).requests == 120
