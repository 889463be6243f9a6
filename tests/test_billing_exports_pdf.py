"""The PDF of a statement: what the page says, on as many sheets as it takes; text is never markup."""

import io
import subprocess
import sys

import pytest
from pypdf import PdfReader

from billing_documents import HOSTILE, everything, line, note, statement
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.exports.pdf import MOST_LINES, to_pdf
from roost_platform.billing.statements import Kind
from roost_platform.domain.errors import InvalidRequest

_WITHOUT_TYPST = """
import sys
sys.modules["typst"] = None  # as where it is not installed
from billing_documents import everything
from roost_platform.billing.exports import render
from roost_platform.billing.statements import Kind
from roost_platform.domain.errors import InvalidRequest
render(everything(), "html")
try:
    render(everything(), "pdf")
except InvalidRequest as error:
    print(error.code, error.field, error.message)
"""


def _pages(made) -> list[str]:
    reader = PdfReader(io.BytesIO(to_pdf(made, issuer=Issuer())))
    return [" ".join(page.extract_text().replace("\u200b", "").split()) for page in reader.pages]


def test_a_pdf_says_what_is_on_the_statement():
    shown = " ".join(_pages(everything()))
    for text in (
        "Statement for acme",
        "22,672.11",
        "864,000 s 0.00062 per s 535.68",
        "2,160 GiB-hours",
        "1 Nov 00:00 \N{EN DASH} 15 Nov 2026 06:00",
        "Your discount \N{MINUS SIGN}2,211.32",
        "Lost with a gateway",
        "1,222 calls are not charged",
        "fd61a03a",
        "1 of 2",
    ):
        assert text in shown, text


def test_a_pdf_has_a_title_and_no_date_and_is_tagged():
    made = to_pdf(everything(), issuer=Issuer(name="Acme Hosting"))
    reader = PdfReader(io.BytesIO(made))
    assert reader.metadata.title == "Statement acme-2026-11"
    assert reader.metadata.author == "Acme Hosting"
    assert reader.metadata.creation_date is None
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"].value is True
    assert made == to_pdf(everything(), issuer=Issuer(name="Acme Hosting"))


def test_a_long_statement_repeats_its_header_and_counts_its_pages():
    pages = _pages(everything(more=300))
    assert len(pages) > 6
    for number, page in enumerate(pages, start=1):
        assert f"{number} of {len(pages)}" in page
    for page in pages[1:-2]:
        assert "Item Quantity Unit price Amount, USD" in page
    assert "299,000.000299 s" in " ".join(pages)


def test_text_of_a_statement_is_text_in_the_pdf():
    notes = tuple(text for text in HOSTILE if "\u202e" not in text)
    made = statement(
        [line("requests", 5_000_000, "1", model=notes[7], variant=notes[9], price_book=notes[10])],
        tenant=notes[8], notes=notes, price_books={notes[7]: notes[9]},
    )  # fmt: skip
    shown = "".join("".join(_pages(made)).split())
    for text in notes:
        assert "".join(text.split()) in shown, text


def test_a_note_is_a_document_of_its_own():
    shown = " ".join(_pages(note(Kind.DEBIT_NOTE, "12.50")))
    assert "Debit note for acme" in shown
    assert "12.50" in shown


def test_a_statement_that_is_too_long_is_refused_before_it_is_set():
    made = statement([line("requests", 1, "1")] * (MOST_LINES + 1))
    with pytest.raises(InvalidRequest, match="5,001 lines, a PDF at most 5,000") as raised:
        to_pdf(made, issuer=Issuer())
    assert raised.value.code == "statement_too_long"


def test_without_the_extra_it_says_what_to_install():
    program = [sys.executable, "-c", _WITHOUT_TYPST]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert told.startswith("pdf_not_installed format ")
    assert "pip install 'roost[pdf]'" in told
