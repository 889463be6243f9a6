"""Statements for people, as one HTML file: nothing is loaded, nothing runs, and it prints well."""

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.exports.sheet import make_sheet
from roost_platform.billing.statements import Statement

_TEMPLATES = resources.files("roost_platform.billing.exports").joinpath("templates")


def to_html(statement: Statement, *, issuer: Issuer) -> str:
    """All text of the statement is escaped; the page's own policy allows its one style sheet and nothing else."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(_read("statement.html.jinja"))
    style = _read("statement.css")
    return template.render(
        sheet=make_sheet(statement, issuer=issuer),
        # Our own text, and without "<": it cannot end the element that it is in.
        style=Markup(style),  # noqa: S704
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def _read(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text("utf-8")
