"""How the checker says no: a code for programs, a sentence for people, the tensor or node at fault."""

_LONGEST_NAME = 80


class Rejected(Exception):
    """The model is not acceptable. `message` holds no path and no name that the model's author did not choose."""

    def __init__(self, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


def shown(name: str | bytes) -> str:
    """A name out of a model, quoted for a sentence: short, one line, nothing that moves a terminal's cursor.

    Raises Rejected for a name that is not text: protobuf hands such a one over as bytes.
    """
    if isinstance(name, bytes):
        raise Rejected("invalid_graph", "a name in the model is not UTF-8 text")
    head = name[:_LONGEST_NAME]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else "?" for c in head)
    return f"'{head}…'" if len(name) > _LONGEST_NAME else f"'{head}'"


def field_of(name: str | bytes) -> str:
    """The same, unquoted, for the `field` of an error."""
    return shown(name)[1:-1]
