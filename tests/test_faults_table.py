"""docs/faults.md names tests; each of them is there, and no row is without one unless it says why."""

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE.parent / "docs" / "faults.md").read_text()
ROW = re.compile(
    r"^\| (?P<row>[KSUPAQLM]\d+) \| (?P<what>[^|]+) \| (?P<tests>[^|]*) \| (?P<note>[^|]*) \|$", re.MULTILINE
)
TEST = re.compile(r"`(\w+)::(\w+)`")


def test_every_test_that_the_table_names_is_there():
    named = TEST.findall(TABLE)
    assert len(named) > 150
    functions = {path.stem: set(re.findall(r"def (test_\w+)\(", path.read_text())) for path in HERE.glob("test_*.py")}
    missing = [(file, name) for file, name in named if f"test_{name}" not in functions.get(f"test_{file}", ())]
    assert missing == []


def test_every_row_names_a_test_or_says_why_it_has_none():
    rows = ROW.findall(TABLE)
    assert len(rows) == sum(
        line.startswith(("| K", "| S", "| U", "| P", "| A", "| Q", "| L", "| M")) for line in TABLE.splitlines()
    )
    assert [row for row, _, tests, note in rows if not TEST.search(tests) and "cannot be met" not in note] == []
    assert len({row for row, *_ in rows}) == len(rows)
