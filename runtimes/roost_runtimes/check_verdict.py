"""How the checker says no: a code for programs, a sentence for people, the tensor or node at fault."""

import unicodedata

_LONGEST_NAME = 80


class Rejected(Exception):
    """The model is not acceptable. `message` holds no path and no name that the model's author did not choose."""

    def __init__(self, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


def shown(name: str) -> str:
    """A name out of a model, quoted for a sentence: short, one line, nothing that moves a terminal's cursor."""
    printable = "".join("?" if unicodedata.category(c)[0] in "CZ" and c != " " else c for c in name[:_LONGEST_NAME])
    return f"'{printable}…'" if len(name) > _LONGEST_NAME else f"'{printable}'"


def field_of(name: str) -> str:
    """The same, unquoted, for the `field` of an error."""
    return shown(name)[1:-1]
