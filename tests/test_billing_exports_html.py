"""The page of a statement: whole, well-formed, harmless, and the same figures as the statement."""

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from billing_documents import HOSTILE, everything, line, note, statement, statements
from roost_platform.billing.exports.html import to_html
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.statements import Kind, Status

_VOID = {"meta", "col"}


class _Page(HTMLParser):
    """Reads a page strictly: every element is closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.values: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        self.values += [value for name, value in attrs if tag == "data" and name == "value"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def shown(self) -> str:
        return " ".join(" ".join(self.text).split())


def _page(made) -> _Page:
    return _Page(to_html(made, issuer=Issuer()))


@given(made=statements())
@settings(max_examples=25, deadline=None)
def test_a_page_holds_every_figure(made):
    page = _page(made)
    held = Counter(page.values)
    for figure, times in Counter(f"{part.amount:f}" for part in made.lines).items():
        assert held[figure] >= times
    for quantity, times in Counter(str(part.quantity) for part in made.lines).items():
        assert held[quantity] >= times
    assert held[f"{made.total:f}"] >= 2


def test_a_page_says_what_is_on_the_statement():
    shown = _page(everything()).shown()
    for text in (
        "Statement for acme",
        "November 2026",
        "1 Nov \N{EN DASH} 30 Nov 2026, UTC",
        "22,672.11 USD",
        "Replicas active (gpu-1) prices 2026-10 864,000 s 0.00062 per s 535.68",
        "Requests prices 2026-10 12,400,312 requests list price 0.20 0.18 per million requests 2.23",
        "Storage prices 2026-10 2,160 GiB-hours list price 0.000034 0.000031 per GiB-hour 0.07",
        "Compute (tier 1) 1 Nov 00:00 \N{EN DASH} 15 Nov 2026 06:00 prices 2026-10 8,123.456789 s",
        "Credits together \N{MINUS SIGN}0.18",
        "Corrections of earlier months together 0.24",
        "of 2026-10 1 Oct \N{EN DASH} 31 Oct 2026",
        "Your discount \N{MINUS SIGN}2,211.32",
        "Answered 232,400,000",
        "Lost with a gateway 3",
        "1,222 calls are not charged",
        "Prices book/2026-10 9f86d081",
        "Hash of the inputs fd61a03a",
        "Issued by Roost, 1 Dec 2026, 01:00:03 UTC",
    ):
        assert text in shown, text


def test_a_page_loads_nothing_and_runs_nothing():
    text = to_html(everything(), issuer=Issuer())
    page = _Page(text)
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "style", "action", "onload", "onclick"}
    assert not re.search(r"url\(|@import|https?:", text)


def test_the_policy_of_a_page_allows_its_own_style_and_nothing_else():
    text = to_html(everything(), issuer=Issuer())
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}';" in text
    for wanted in ("prefers-color-scheme: dark", "@media print", "tabular-nums", "@page"):
        assert wanted in style


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_statement_is_text_on_the_page(text):
    hostile = statement(
        [line("requests", 5_000_000, "1", model=text, variant=text, price_book=text)],
        tenant=text, id=text, notes=(text,), price_books={text: text}, inputs_hash=text, of=text,
    )  # fmt: skip
    page, plain = _page(hostile), _page(statement([line("requests", 5_000_000, "1")], of="x", price_books={"x": "x"}))
    assert page.tags == plain.tags
    assert page.shown().count(" ".join(text.split())) >= 8


def test_tables_can_be_read_aloud():
    page = _page(everything())
    assert page.tags["caption"] == page.tags["table"] == 5
    names = [name for name, _ in page.attributes]
    assert names.count("scope") == page.tags["th"]
    assert ("lang", "en") in page.attributes


def test_a_page_says_when_it_is_not_final():
    assert "Draft: not final yet" in _page(everything(status=Status.DRAFT)).shown()
    assert "Open: the month is running" in _page(everything(status=Status.OPEN)).shown()


def test_a_note_names_its_statement():
    shown = _page(note(Kind.CREDIT_NOTE, "12.50")).shown()
    assert "Credit note for acme" in shown
    assert "Belongs to acme-2026-11" in shown
    assert "Credit note Credit note: amounts in USD Item" in shown
    assert "Credited \N{MINUS SIGN}12.50" in shown
    assert "Usage" not in shown
    assert "requests" not in shown
    assert "\N{MINUS SIGN}12.50" in shown


def test_many_models_share_the_bars():
    shown = _page(everything(more=200)).shown()
    assert "18 others" in shown
