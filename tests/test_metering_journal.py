"""The journal: one write per turn, segments, torn and damaged lines."""

import asyncio

import pytest

from metering_parts import NOON, append, event, segments
from roost_platform.domain.errors import StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.files import is_sealed
from roost_platform.metering.journal import Journal
from roost_platform.metering.lines import Stretch, encode, encode_batch, event_values, read_lines, scan


def _batch(*sequences: int) -> bytes:
    return encode_batch([encode(event_values(event(i))) for i in sequences])


def _rows(found: Stretch) -> list[tuple[object, ...]]:
    return read_lines(found.sound)[0] + read_lines(found.damaged)[0]


def _sequences(rows: list[tuple[object, ...]]) -> list[object]:
    return [row[1] for row in rows]


async def test_events_are_in_the_file_when_written_is_done(tmp_path):
    journal = Journal(tmp_path, source="run")
    append(journal, "a", model="résnet", outcome=Outcome.MODEL_ERROR, rows=7)
    append(journal, "b")
    assert (tmp_path / "run-1.jsonl").exists() is False
    await journal.written()
    found = scan((tmp_path / "run-1.jsonl").read_bytes())
    assert found.damaged == b""
    assert _rows(found) == [
        ("run", 0, NOON, "acme", "résnet", 1, "model_error", 200, 1500, 20, 0, 100, 60, 7, "a", 1),
        ("run", 1, NOON, "acme", "iris", 1, "ok", 200, 1500, 20, 0, 100, 60, 1, "b", 1),
    ]
    assert journal.events == 2
    journal.close()


async def test_all_events_of_a_turn_share_one_batch(tmp_path):
    journal = Journal(tmp_path, source="run")

    async def call(name: str) -> None:
        append(journal, name)
        await journal.written()

    await asyncio.gather(*(call(f"c{i}") for i in range(20)))
    assert (tmp_path / "run-1.jsonl").read_bytes().count(b"\n\n") == 1
    journal.close()


async def test_written_without_an_event_is_done_at_once(tmp_path):
    journal = Journal(tmp_path, source="run")
    await journal.written()
    journal.close()


async def test_a_cancelled_caller_does_not_take_the_others_of_its_turn_with_it(tmp_path):
    journal = Journal(tmp_path, source="run")
    done = []

    async def call(name: str) -> None:
        append(journal, name)
        await journal.written()
        done.append(name)

    tasks = [asyncio.ensure_future(call(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)  # all wait for the same turn now
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert done == ["a", "c"]
    assert isinstance(results[1], asyncio.CancelledError)
    journal.close()


async def test_with_no_sync_interval_every_turn_waits_for_the_disk_and_is_settled(tmp_path):
    journal = Journal(tmp_path, source="run", sync_interval_s=0, segment_bytes=500)
    for i in range(20):
        append(journal, f"r{i}")
        await journal.written()
    assert journal.sync_failures == 0
    journal.close()
    rows = [row for path in tmp_path.iterdir() for row in _rows(scan(path.read_bytes()))]
    assert sorted(_sequences(rows)) == list(range(20))


async def test_segments_are_rotated_and_sealed_but_for_the_last(tmp_path):
    journal = Journal(tmp_path, source="run", segment_bytes=150)
    for i in range(5):
        append(journal, f"r{i}")
        await journal.written()
    assert segments(tmp_path) == ["run-1.jsonl", "run-2.jsonl", "run-3.jsonl"]
    assert not is_sealed(tmp_path / "run-3.jsonl")
    journal.close()
    assert all(is_sealed(path) for path in tmp_path.iterdir())


async def test_a_journal_never_appends_to_a_segment_it_did_not_make(tmp_path):
    first = Journal(tmp_path, source="run")
    append(first, "a")
    await first.written()
    first.close()
    before = (tmp_path / "run-1.jsonl").read_bytes()
    with pytest.raises(FileExistsError):  # a source is not used twice, whatever was left of it
        Journal(tmp_path, source="run")
    (tmp_path / "run.open").unlink()
    second = Journal(tmp_path, source="run")
    append(second, "b")
    with pytest.raises(StorageFull):
        await second.written()
    assert (tmp_path / "run-1.jsonl").read_bytes() == before
    second.close()


async def test_calls_are_refused_while_too_much_waits_to_be_shipped(tmp_path):
    journal = Journal(tmp_path, source="run", segment_bytes=150, limit_bytes=300)
    outcomes = []
    for i in range(8):
        append(journal, f"r{i}")
        try:
            await journal.written()
            outcomes.append("stored")
        except StorageFull:
            outcomes.append("refused")
    assert outcomes == ["stored"] * 4 + ["refused"] * 4
    for path in tmp_path.glob("run-*.jsonl"):
        path.unlink()  # as the shipper does when the database takes events again
    append(journal, "r8")
    await journal.written()
    assert journal.events == 5
    assert journal.failures == 4
    journal.close()
    assert _sequences(_rows(scan((tmp_path / "run-3.jsonl").read_bytes()))) == [4]


async def test_close_writes_what_is_left_and_refuses_more(tmp_path):
    journal = Journal(tmp_path, source="run")
    append(journal, "a")
    journal.close()
    journal.close()
    assert _sequences(_rows(scan((tmp_path / "run-1.jsonl").read_bytes()))) == [0]
    with pytest.raises(RuntimeError):
        append(journal, "b")


async def test_an_event_that_cannot_be_encoded_leaves_no_trace(tmp_path):
    journal = Journal(tmp_path, source="run")
    append(journal, "a")
    with pytest.raises(TypeError):
        append(journal, "lone surrogate \ud800")
    append(journal, "b")
    await journal.written()
    journal.close()
    assert _sequences(_rows(scan((tmp_path / "run-1.jsonl").read_bytes()))) == [0, 1]


async def test_leftovers_of_a_writer_killed_while_it_made_a_segment_are_removed(tmp_path):
    (tmp_path / "dead-1.new").touch()
    journal = Journal(tmp_path, source="run")
    assert segments(tmp_path) == []
    journal.close()


@pytest.mark.parametrize("source", ["", "a/b", "a.b", "x" * 33, "ü"])
def test_a_source_that_makes_no_safe_file_name_is_refused(tmp_path, source):
    with pytest.raises(ValueError, match="source"):
        Journal(tmp_path, source=source)


def test_a_tail_cut_at_any_byte_yields_whole_batches_only():
    first, second = _batch(0, 1), _batch(2, 3, 4)
    text = first + second
    for cut in range(len(text) + 1):
        found = scan(text[:cut])
        wanted = [0, 1, 2, 3, 4] if cut == len(text) else [0, 1] if cut >= len(first) else []
        assert _sequences(_rows(found)) == wanted
        assert found.damaged == b""
        assert read_lines(text[found.consumed : cut])[1] == []  # a torn tail is not taken for damage


def test_any_changed_byte_is_noticed_and_costs_at_most_the_lines_it_touches():
    text = _batch(0, 1) + _batch(2) + _batch(3)
    whole = _rows(scan(text))
    for at in range(len(text) - len(_batch(3))):
        for change in {0x01, 0x20, ord("\n") ^ text[at]} - {0}:
            changed = bytearray(text)
            changed[at] ^= change
            found = scan(bytes(changed))
            assert found.damaged
            assert all(row in whole for row in _rows(found))
            # A changed line end joins two lines; a changed mark harms none, or the one that it then runs into.
            assert len(_rows(found)) >= len(whole) - 2


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        ["run", 0],
        ["run", "0", 0, "t", "m", 1, "ok", 200, 0, 0, 0, 0, 0, 0, "r"],
        ["run", 0, 0, "t", "m", 1, "fine", 200, 0, 0, 0, 0, 0, 0, "r"],
        ["run", 0, 2**62, "t", "m", 1, "ok", 200, 0, 0, 0, 0, 0, 0, "r"],
        ["run", 0, 0, "t", "m", 2**31, "ok", 200, 0, 0, 0, 0, 0, 0, "r"],
        ["run", 0, 0, "t", "m", 1, "ok", 200, 2**63, 0, 0, 0, 0, 0, "r"],
        ["run", 0, 0, "t", "m", 1, "ok", 200, 0, 0, 0, 0, 0, 0, "r", "2"],
        ["run", 0, 0, "t", "m", 1, "ok", 200, 0, 0, 0, 0, 0, 0, "r", 2**63],
        ["run", 0, 0, "t", "m", 1, "ok", 200, 0, 0, 0, 0, 0, 0, "r", 2, 2],
    ],
)
def test_a_line_that_the_ledger_could_not_hold_is_damaged(values):
    rows, damaged = read_lines(encode(values))
    assert rows == []
    assert len(damaged) == 1


def test_text_too_long_for_the_ledger_is_cut_and_the_call_still_counts():
    rows, damaged = read_lines(encode(event_values(event(0, model="m" * 1000, request_id="a\0b\n\n" + "c" * 200))))
    assert damaged == []
    assert rows[0][4] == "m" * 63
    assert rows[0][14] == ("ab\n\n" + "c" * 200)[:128]
