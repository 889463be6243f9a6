"""Statements as documents: `render` makes one in any form, `render_all` puts several into one file.

    json         the statement itself, in canonical bytes         one statement
    csv          one record per line, no total record             any number
    html         a page for people, one file, nothing loaded      one
    pdf          the same to be filed, byte-identical each time   one
    cloudevents  one event per statement                          any number
    focus        FOCUS 1.2, for cost management tools             any number

Pure: the same statement gives the same bytes. Money is a decimal string in all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from roost_platform.billing.exports.cloudevents import to_cloudevent, to_cloudevents
from roost_platform.billing.exports.csv import to_csv
from roost_platform.billing.exports.focus import to_focus
from roost_platform.billing.exports.html import to_html
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.exports.json import canonical, encoded, from_json, to_json
from roost_platform.billing.exports.pdf import to_pdf
from roost_platform.billing.statements import Statement
from roost_platform.domain.errors import InvalidRequest

__all__ = ["Form", "Issuer", "Rendered", "from_json", "render", "render_all", "to_json"]

_ROOST = Issuer()


class Form(StrEnum):
    JSON = "json"
    CSV = "csv"
    HTML = "html"
    PDF = "pdf"
    CLOUDEVENTS = "cloudevents"
    FOCUS = "focus"


@dataclass(frozen=True, slots=True)
class Rendered:
    body: bytes
    media_type: str
    """With its charset where it is text."""
    filename: str
    """What to save it as."""


_CSV = "text/csv; charset=utf-8"


def render(statement: Statement, form: Form | str, *, issuer: Issuer = _ROOST) -> Rendered:
    """A PDF takes a process and up to seconds: call this in a thread. Raises what `to_pdf` does."""
    name = statement.id
    match Form(form):
        case Form.JSON:
            return Rendered(canonical(statement), "application/json", f"{name}.json")
        case Form.HTML:
            return Rendered(to_html(statement, issuer=issuer).encode(), "text/html; charset=utf-8", f"{name}.html")
        case Form.PDF:
            return Rendered(to_pdf(statement, issuer=issuer), "application/pdf", f"{name}.pdf")
        case Form.CLOUDEVENTS:
            event = encoded(to_cloudevent(statement, issuer=issuer))
            return Rendered(event, "application/cloudevents+json", f"{name}.cloudevent.json")
        case several:
            return render_all([statement], several, name=name, issuer=issuer)


def render_all(statements: Iterable[Statement], form: Form | str, *, name: str, issuer: Issuer = _ROOST) -> Rendered:
    """Several statements in one file, called `name` and what its form adds. Raises InvalidRequest for a form for one."""
    match Form(form):
        case Form.CSV:
            return Rendered(to_csv(*statements).encode(), _CSV, f"{name}.csv")
        case Form.FOCUS:
            return Rendered(to_focus(*statements, issuer=issuer).encode(), _CSV, f"{name}.focus.csv")
        case Form.CLOUDEVENTS:
            events = to_cloudevents(*statements, issuer=issuer)
            return Rendered(events, "application/cloudevents-batch+json", f"{name}.cloudevents.json")
        case one:
            raise InvalidRequest(
                f"{one} holds one statement; several go into csv, focus or cloudevents", field="format"
            )
