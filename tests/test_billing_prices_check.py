"""`roost prices check`: every mistake of a file in one run, each with its line."""

import json
import time
import tomllib
from datetime import date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating_reference import cases, toml_of
from recording_server import Command
from roost_platform.billing import price_file
from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.price_check import check_prices
from roost_platform.billing.price_file import FILE_LIMIT, load_price_books, read_price_books
from roost_platform.domain.errors import InvalidRequest

DEFAULT = Path(price_file.__file__).with_name("prices.toml")
BAD = """\
currency = "usd"
speed = 3

[[book]]
version = "a"
effective_from = 2026-01-01T00:00:00
[book.prices]
requests = 0.2
reserved_seconds = { "cpu1" = "1", "cpu-2" = "1e3" }
bytes_in = { mode = "gradual", tiers = [
  { up_to = 10, price = "1" },
  { up_to = 10, price = "-1" },
  { up_to = 20, price = "1" } ] }

[[book]]
version = "a"
effective_from = 2025-01-01T00:00:00Z
cold_start = "never"
[book.prices]
"no such" = "1"
idle_seconds = {}
[book.free]
bytes_out = 1.5
requests = 3

# A tenant.
[[tenant]]
name = "Acme"
effective_from = 2026-01-01T00:00:00Z
until = 2025-01-01T00:00:00Z
discount = "110%"
prices.requests.tiers = []
"""
A_PRICE = 'a decimal string with up to 12 places, such as "0.20"'
SKUS = (
    "active_seconds, bytes_in, bytes_out, check_seconds, cold_starts, compute_seconds, idle_seconds, inferences, "
    "requests, reserved_seconds, setup_seconds, storage"
)
FOUND = [
    (1, "currency", "'usd'", "an ISO 4217 code in use, such as USD"),
    (2, "speed", "3", "one of book, currency, tenant"),
    (6, "book[0].effective_from", "2026-01-01T00:00:00", "a time with an offset, such as 2026-01-01T00:00:00Z"),
    (8, "book[0].prices.requests", "0.2", A_PRICE),
    (9, "book[0].prices.reserved_seconds.cpu1", "'1'", 'of a resource class: cpu-N, gpu-N, or "*" for any other'),
    (9, "book[0].prices.reserved_seconds.cpu-2", "'1e3'", A_PRICE),
    (10, "book[0].prices.bytes_in.mode", "'gradual'", '"graduated" or "volume"'),
    (10, "book[0].prices.bytes_in.tiers[1].price", "'-1'", A_PRICE),
    (10, "book[0].prices.bytes_in.tiers[1].up_to", "10", "more than the tier before has, 10"),
    (10, "book[0].prices.bytes_in.tiers[2].up_to", "20", "absent: the last tier has no end"),
    (16, "book[1].version", "'a'", "different for each book"),
    (18, "book[1].cold_start", "'never'", '"platform", "load" or "all"'),
    (19, "book[1].prices.requests", "missing", "there (it may be the string 0)"),
    (20, "book[1].prices.'no such'", "'1'", f"one of {SKUS}"),
    (
        21,
        "book[1].prices.idle_seconds",
        "a table",
        'a price, or prices by resource class such as { "cpu-1" = "0.01", "*" = "0.02" }',
    ),
    (23, "book[1].free.bytes_out", "1.5", "a whole number of bytes from 0 to 10^18"),
    (24, "book[1].free.requests", "3", "of a sku that this book has a price for"),
    (28, "tenant[0].name", "'Acme'", "a tenant's name: 1 to 63 lower-case letters, digits or inner hyphens"),
    (
        30,
        "tenant[0].until",
        "2025-01-01T00:00:00+00:00",
        "later than effective_from, 2026-01-01T00:00:00+00:00",
    ),
    (31, "tenant[0].discount", "'110%'", 'a share from "0%" to "100%" with up to 4 places'),
    (32, "tenant[0].prices.requests.mode", "missing", '"graduated" or "volume"'),
    (
        32,
        "tenant[0].prices.requests.tiers",
        "a list of 0",
        '1 to 50 tiers, such as [{ up_to = 1000, price = "0.20" }, { price = "0.10" }]',
    ),
]


@pytest.fixture
def roost(tmp_path):
    return Command("http://127.0.0.1:1", tmp_path)  # nobody listens there


def test_every_mistake_is_told_with_its_line_in_one_run():
    books, findings = check_prices(BAD)
    assert books is None
    told = [(found.line, found.problem.key, found.problem.value, found.problem.wanted) for found in findings]
    assert sorted(told) == sorted(FOUND)
    assert [line for line, *_ in told] == sorted(line for line, *_ in told)


WHOLE = """
currency = "USD"
[[book]]
version = "a"
effective_from = 2026-01-01T00:00:00Z
cold_start = "all"
[book.prices]
requests = "1"
setup_seconds = { "cpu-1" = "1" }
bytes_in = { mode = "volume", tiers = [{ up_to = 10, price = "1" }, { price = "0.5" }] }
[book.free]
requests = 3
[[tenant]]
name = "acme"
effective_from = 2026-01-01T00:00:00Z
discount = "10%"
"""
STRANGE = (
    [],
    {},
    [[]],
    [{}],
    0,
    -1,
    1.5,
    float("nan"),
    True,
    "",
    "x",
    date(2026, 1, 1),
    clock_time(1),
    datetime(2026, 1, 1),  # noqa: DTZ001 - a time without an offset is one of the mistakes
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    """Where something stands, and what it stands in; not the whole."""
    found = [place for name, each in inside for place in places(each, (*at, name))]
    return [at, *found] if at else found


@pytest.mark.parametrize("place", places(tomllib.loads(WHOLE)), ids=str)
def test_whatever_stands_somewhere_is_taken_or_told_and_never_an_error(place: tuple[Any, ...]):
    for strange in STRANGE:
        content = tomllib.loads(WHOLE)
        inside: Any = content
        for name in place[:-1]:
            inside = inside[name]
        inside[place[-1]] = strange
        books, problems = read_price_books(content)
        assert (books is None) == bool(problems), (place, strange)


def test_the_command_tells_them_all_and_exits_1(roost, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    result = roost("prices", "check", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0] == f"{file}: {len(FOUND)} problems"
    assert sorted(lines[1:]) == sorted(
        f"  line {line}: {key} must be {wanted}, but is {value}" for line, key, value, wanted in FOUND
    )
    as_json = roost("prices", "check", "--json", str(file))
    assert as_json.exit_code == 1
    document = json.loads(as_json.stdout)
    assert (document["file"], document["ok"]) == (str(file), False)
    assert sorted(tuple(each.values()) for each in document["problems"]) == sorted(FOUND)


def test_a_good_file_is_said_to_be_good(roost):
    result = roost("prices", "check", str(DEFAULT))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{DEFAULT} is good: books 2026-01, 2026-10, 2026-12 in USD; terms of nobody.\n"
    assert json.loads(roost("prices", "check", str(DEFAULT), "--json").stdout) == {
        "file": str(DEFAULT),
        "ok": True,
        "problems": [],
        "currency": "USD",
        "books": ["2026-01", "2026-10", "2026-12"],
        "tenants": [],
    }


def test_the_example_in_the_default_file_is_good():
    example = [line[4:] for line in DEFAULT.read_text().splitlines() if line.startswith("#   ")]
    start = example.index("[[book]]")
    books, findings = check_prices('currency = "USD"\n' + "\n".join(example[start:]))
    assert not findings
    assert books is not None
    assert (books.books[0].version, books.terms[0].tenant) == ("2027-01", "acme")


def test_mistakes_of_writing_are_all_told_before_what_the_file_means(roost, tmp_path):
    file = tmp_path / "unreadable.toml"
    file.write_text('currency = "USD\n[[book]]\nversion = \nspeed = 1\nspeed = 2\n\n[oh no]\n')
    result = roost("prices", "check", str(file))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"{file}: 4 problems"
    assert [line.split(":")[0] for line in lines[1:5]] == ["  line 1", "  line 3", "  line 5", "  line 7"]
    assert lines[5] == "What its prices mean is checked once it can be read."


@pytest.mark.parametrize(
    "text",
    [
        "a" * (FILE_LIMIT + 1),
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
        "currency = 0x" + "f" * 100_000,
        "a." * 2000 + "a = 1",
        'a = "unclosed',
        'a = """unclosed\n\n\n',
        "effective_from = 0001-01-01T00:00:00+23:59\n",
        '[[book]]\nversion = "v"\neffective_from = 0001-01-01T00:00:00+23:59\n',
        '[[book]]\nversion = "v"\neffective_from = 9999-12-31T23:59:59-23:59\n',
        "[book]\n",
        "[[book.prices]]\n",
        "book = [1]\n",
        "[[tenant]]\n[[tenant]]\n",
        "\x00",
        "\ud800",
    ],
)
def test_no_text_makes_it_stumble(text):
    try:
        books, findings = check_prices(text)
    except UnicodeEncodeError:
        assert text == "\ud800"  # no file holds it: files are read as UTF-8
        return
    assert books is None
    assert findings
    assert all(len(str(found)) < 600 for found in findings)
    with pytest.raises(InvalidRequest) as caught:
        load_price_books(text)
    assert caught.value.code == "invalid_price_book"
    assert len(caught.value.message) < 800


@settings(max_examples=40)
@given(case=cases(), place=st.floats(0, 1), junk=st.text(alphabet='[]{}="\n.,-#a10 ', max_size=6))
def test_a_file_with_a_slip_is_good_or_explained(case, place, junk):
    text = toml_of(case)
    at = int(place * len(text))
    books, findings = check_prices(text[:at] + junk + text[at + 1 :])
    assert (books is None) == bool(findings)
    assert all(found.line is None or 1 <= found.line <= (text + junk).count("\n") + 2 for found in findings)


def test_a_file_that_cannot_be_read_is_told(roost, tmp_path):
    (tmp_path / "latin").write_bytes(b'currency = "EUR"\n# \xe9\n')
    (tmp_path / "large").write_bytes(b"#" * (FILE_LIMIT + 1))
    assert roost("prices", "check", str(tmp_path / "absent")).exit_code == 2
    assert roost("prices", "check", str(tmp_path)).exit_code == 2
    assert "the file is not UTF-8 text: see line 2" in roost("prices", "check", str(tmp_path / "latin")).stderr
    assert f"larger than {FILE_LIMIT} bytes" in roost("prices", "check", str(tmp_path / "large")).stderr


def test_the_first_mistake_is_what_a_server_says_when_it_starts_and_how_many_more_there_are():
    with pytest.raises(InvalidRequest) as caught:
        load_price_books(BAD)
    assert caught.value.message.startswith("price book: ")
    assert caught.value.message.endswith(f"(and {len(FOUND) - 1} more: `roost prices check` explains all)")


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not():
    filler = DEFAULT.read_text() + "#" * (FILE_LIMIT - len(DEFAULT.read_bytes()))
    assert check_prices(filler)[0] is not None
    with pytest.raises(InvalidRequest, match="larger than"):
        load_price_books(filler + "#")


def test_a_file_full_of_books_and_terms_is_not_read_in_quadratic_time():
    """5,000 terms; the limit is far above what it takes, and far below what comparing each with each would."""
    parts = [
        f'[[tenant]]\nname = "t{i}"\neffective_from = 2026-01-01T00:00:00Z\ndiscount = "1%"\n' for i in range(5000)
    ]
    text = DEFAULT.read_text() + "\n".join(parts)
    began = time.monotonic()
    books, findings = check_prices(text)
    assert not findings
    assert books is not None
    assert len(books.terms) == 5000
    assert time.monotonic() - began < 30


def test_a_month_takes_fifty_changes_of_prices_and_no_more():
    def text(count):
        books = [
            f'[[book]]\nversion = "v{i}"\neffective_from = 2026-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z\nprices = {{ requests = "0" }}\n'
            for i in range(count)
        ]
        return 'currency = "USD"\n' + "".join(books)

    assert check_prices(text(50))[0] is not None
    (found,) = check_prices(text(51))[1]
    assert found.problem.key == "book[50].effective_from"
    assert found.problem.wanted == "in another month: 2026-01 has 50 changes already"


def test_currencies_are_those_of_iso_4217():
    """Amendment 180; what it withdrew is gone, and what nobody pays with (funds, metals, tests) was never here."""
    assert len(MINOR_UNITS) == 156
    assert {"XCG", "ZWG", "SLE", "VED", "VES", "XAD", "MRU", "STN", "UYU", "CLP"} <= MINOR_UNITS.keys()
    withdrawn = {"BGN", "HRK", "ANG", "CUC", "SLL", "ZWL", "MRO", "STD", "BYR", "VEF", "LTL"}
    assert not MINOR_UNITS.keys() & (withdrawn | {"XXX", "XTS", "XAU", "XDR", "CLF", "UYW", "CHE", "USN", "BOV"})
    assert {digits: sum(each == digits for each in MINOR_UNITS.values()) for digits in (0, 2, 3)} == {
        0: 16,
        2: 133,
        3: 7,
    }
