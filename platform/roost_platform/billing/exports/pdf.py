"""Statements to be filed: PDF, tagged for screen readers, byte for byte the same whenever and wherever it is made again.

Typst sets it (extra `pdf`), with the fonts it brings and without a date of its own. It runs in a process of its own:
a statement of 2,000 lines takes it two seconds and 250 MB, which no server should hold while it answers others.
"""

import dataclasses
import importlib.util
import subprocess
import sys
from importlib import resources

import orjson

from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.exports.sheet import Sheet, make_sheet
from roost_platform.billing.statements import Statement
from roost_platform.domain.errors import DeadlineExceeded, InvalidRequest, Unavailable

MOST_LINES = 5_000
"""Of a statement that becomes a PDF: some 120 pages, five seconds and 500 MB. Nobody reads a longer one."""
_LIMIT_S = 60.0
_HERE = resources.files("roost_platform.billing.exports")


def to_pdf(statement: Statement, *, issuer: Issuer) -> bytes:
    """Blocks for as long as it takes, a minute at most. The same statement gives the same bytes, with one version of Typst.

    Raises InvalidRequest when there are too many lines, or when the extra is not installed here; DeadlineExceeded,
    Unavailable when it cannot be made now.
    """
    if len(statement.lines) > MOST_LINES:
        raise InvalidRequest(
            f"the statement has {len(statement.lines):,} lines, a PDF at most {MOST_LINES:,}: take html or csv",
            code="statement_too_long",
            field="format",
        )
    if importlib.util.find_spec("typst") is None:
        raise InvalidRequest(
            "this Roost makes no PDFs: its operator has to add them with pip install 'roost[pdf]'",
            code="pdf_not_installed",
            field="format",
        )
    return _typeset(make_sheet(statement, issuer=issuer))


def _typeset(sheet: Sheet) -> bytes:
    job = {
        "template": _HERE.joinpath("templates", "statement.typ").read_text("utf-8"),
        "sheet": orjson.dumps(dataclasses.asdict(sheet)).decode(),
    }
    try:
        with resources.as_file(_HERE.joinpath("typesetting.py")) as program:
            ended = subprocess.run(  # noqa: S603 - our own interpreter on our own file
                # -I: neither its folder nor the environment decides what it imports.
                [sys.executable, "-I", str(program)],
                input=orjson.dumps(job),
                capture_output=True,
                check=True,
                timeout=_LIMIT_S,
                env={},
            )
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded("the PDF took too long to make", code="pdf_too_slow") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable("the PDF could not be made", code="pdf_failed", retry_after_s=30.0) from error
    return ended.stdout
