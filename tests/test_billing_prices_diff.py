"""`roost prices diff`: what a book changes against another, by sku, class, tier and tenant."""

import json

import pytest

from recording_server import Command
from roost_platform.billing.price_diff import diff, percent, state_of
from roost_platform.billing.price_file import load_price_books
from roost_platform.domain.errors import InvalidRequest, NotFound

HEAD = 'currency = "USD"\n'


def book(version, prices, *, start="2026-01-01", more=""):
    return f'[[book]]\nversion = "{version}"\neffective_from = {start}T00:00:00Z\n{more}prices = {{ {prices} }}\n'


def terms(name, start, more):
    return f'[[tenant]]\nname = "{name}"\neffective_from = {start}T00:00:00Z\n{more}\n'


def changes(before, after, *versions):
    first, second = versions or (None, None)
    found = diff(state_of(load_price_books(HEAD + before), first), state_of(load_price_books(HEAD + after), second))
    return [tuple(change.to_json().values()) for change in found]


def test_the_same_prices_are_no_change():
    text = book("a", 'requests = "0.2", idle_seconds = { "cpu-1" = "1" }')
    assert changes(text, text.replace('"a"', '"b"')) == []


def test_flat_prices_by_sku_and_class_in_absolute_and_percent():
    before = book("a", 'requests = "0.20", bytes_in = "0", idle_seconds = { "cpu-1" = "3", "*" = "4" }')
    after = book("b", 'requests = "0.25", bytes_in = "1", storage = "7", idle_seconds = { "cpu-1" = "2", "*" = "4" }')
    assert changes(before, after) == [
        ("", "requests", "*", "price", "", "", "0.20", "0.25", "0.05", "25.00"),
        ("", "bytes_in", "*", "price", "", "", "0", "1", "1", None),
        ("", "idle_seconds", "cpu-1", "price", "", "", "3", "2", "-1", "-33.33"),
        ("", "storage", "*", "price", "", "", None, "7", None, None),
    ]
    assert changes(after, before)[3] == ("", "storage", "*", "price", "", "", "7", None, None, None)


def test_a_class_of_its_own_is_compared_with_what_it_cost_as_any_other():
    before, after = (
        book("a", 'requests = "0", idle_seconds = "4"'),
        book("b", 'requests = "0", idle_seconds = { "gpu-1" = "9", "*" = "4" }'),
    )
    assert changes(before, after) == [("", "idle_seconds", "gpu-1", "price", "", "", "4", "9", "5", "125.00")]


def test_tiers_are_compared_where_either_has_a_bound():
    tiers = 'requests = {{ mode = "{}", tiers = [{{ up_to = {}, price = "3" }}, {{ price = "{}" }}] }}'
    before, after = (book("a", tiers.format(*given)) for given in (("graduated", 10, 2), ("graduated", 20, 1)))
    assert changes(before, after) == [
        ("", "requests", "*", "price", "11 to 20", "graduated", "2", "3", "1", "50.00"),
        ("", "requests", "*", "price", "above 20", "graduated", "2", "1", "-1", "-50.00"),
    ]
    assert changes(before, book("a", tiers.format("volume", 10, 2))) == [
        ("", "requests", "*", "price", "1 to 10", "graduated → volume", "3", "3", "0", "0.00"),
        ("", "requests", "*", "price", "above 10", "graduated → volume", "2", "2", "0", "0.00"),
    ]
    assert changes(book("a", 'requests = "3"'), before) == [
        ("", "requests", "*", "price", "1 to 10", "flat → graduated", "3", "3", "0", "0.00"),
        ("", "requests", "*", "price", "above 10", "flat → graduated", "3", "2", "-1", "-33.33"),
    ]


def test_allowances_and_switches_are_told():
    before = book("a", 'requests = "1"', more="free = { requests = 100 }\n")
    after = book("b", 'requests = "1"', more='free = { requests = 150 }\ncold_start = "all"\nshadow = "charged"\n')
    assert changes(before, after) == [
        ("", "", "", "cold_start", "", "", "load", "all", None, None),
        ("", "", "", "shadow", "", "", "free", "charged", None, None),
        ("", "requests", "", "free", "", "", "100", "150", "50", "50.00"),
    ]


def test_each_tenant_with_terms_is_told_what_it_pays_before_and_after():
    books = book("a", 'requests = "1.00"') + book("b", 'requests = "2.00"', start="2026-06-01")
    agreed = terms("acme", "2026-02-01", 'discount = "10%"') + terms(
        "beta", "2026-07-01", 'prices = { requests = "1" }'
    )
    text = books + agreed + terms("gone", "2026-01-01", 'until = 2026-03-01T00:00:00Z\ndiscount = "50%"')
    assert changes(text, text, "a", "b") == [  # beta goes on paying 1, gone's terms have ended by June
        ("", "requests", "*", "price", "", "", "1.00", "2.00", "1.00", "100.00"),
        ("acme", "requests", "*", "price", "", "", "0.90", "1.80", "0.90", "100.00"),
    ]
    assert [each[0] for each in changes(books, text)] == ["acme", "beta"]


def test_two_currencies_are_not_compared_and_an_unknown_book_is_told():
    first = load_price_books(HEAD + book("a", 'requests = "1"'))
    second = load_price_books('currency = "JPY"\n' + book("a", 'requests = "1"'))
    with pytest.raises(InvalidRequest, match="USD and JPY cannot be compared"):
        diff(state_of(first, None), state_of(second, None))
    with pytest.raises(NotFound, match="there is no book 'x'; there are: a"):
        state_of(first, "x")


@pytest.mark.parametrize(
    ("difference", "before", "told"), [("0", "3", "0.00"), ("1", "3", "33.33"), ("-2", "3", "-66.67"), ("1", "0", None)]
)
def test_percents_have_two_places(difference, before, told):
    from decimal import Decimal

    assert percent(Decimal(difference), Decimal(before)) == told


def test_the_command_takes_files_and_the_versions_in_them(tmp_path):
    roost = Command("http://127.0.0.1:1", tmp_path)
    file = tmp_path / "prices#1.toml"
    file.write_text(HEAD + book("a", 'requests = "1.00"') + book("b", 'requests = "2.00"', start="2026-06-01"))
    result = roost("prices", "diff", f"{file}#a", str(file))
    assert result.exit_code == 0
    assert all(part in result.stdout for part in ("everybody", "requests", "1.00", "2.00", "+1.00", "+100.00 %"))
    document = json.loads(roost("prices", "diff", f"{file}#b", f"{file}#a", "--json").stdout)
    assert [(each["before"], each["after"], each["percent"]) for each in document["changes"]] == [
        ("2.00", "1.00", "-50.00")
    ]
    assert roost("prices", "diff", str(file), f"{file}#b").stdout == "No price changes.\n"
    assert "there is no book 'c'" in roost("prices", "diff", f"{file}#c", str(file)).stderr
    (tmp_path / "bad.toml").write_text("currency = 3\n")
    refused = roost("prices", "diff", str(tmp_path / "bad.toml"), str(file))
    assert (refused.exit_code, "2 problems" in refused.stderr) == (1, True)
