"""Statements set as documents: under the issuer's name, one PDF at a time."""

import asyncio
from pathlib import Path

from billing_documents import everything
from roost_gateway.money.documents import Documents
from roost_platform.billing.exports import Form, Issuer


def _children() -> int:
    return sum(len(task.joinpath("children").read_text().split()) for task in Path("/proc/self/task").iterdir())


async def test_documents_are_issued_in_the_name_of_the_operator():
    documents = Documents(Issuer(name="Acme Cloud", event_source="/acme/bills", region="fsn1"))
    html = await documents.render(everything(), Form.HTML)
    assert "Acme Cloud" in html.body.decode()
    assert b'"source":"/acme/bills"' in (await documents.render(everything(), Form.CLOUDEVENTS)).body.replace(b" ", b"")
    head, first, *_ = (await documents.render(everything(), Form.FOCUS)).body.decode().splitlines()
    row = dict(zip(head.split(","), first.split(","), strict=False))
    assert row["InvoiceIssuerName"] == "Acme Cloud"
    assert "fsn1" in first.split(",")


async def test_one_pdf_is_set_at_a_time_and_other_forms_do_not_wait_for_it():
    documents = Documents(Issuer())
    before = _children()
    pdfs = [asyncio.create_task(documents.render(everything(), Form.PDF)) for _ in range(3)]
    seen = set()
    while not all(pdf.done() for pdf in pdfs):
        await documents.render(everything(), Form.JSON)
        seen.add(_children() - before)
        await asyncio.sleep(0.002)
    assert len({pdf.result().body for pdf in pdfs}) == 1
    assert max(seen) == 1, seen
