"""Short requests repeat each other but for their numbers: what was checked once around the `data` list is remembered.

A form is the text before and after the list of a request with one input; an id that comes first is no part of it. Another
body with the same text around its list was checked already but for that: whatever stands there that is not a proper list,
the ordinary way has the verdict.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from roost_runtimes.answers import Writer
from roost_runtimes.errors import RequestError
from roost_runtimes.long_lists import skeleton, spans
from roost_runtimes.model import Array
from roost_runtimes.tensors import Input, from_json

MOST_BYTES = 1 << 12
"""Of a body whose form is remembered, so that forms stay small."""
MOST_ID = 1024
"""Characters of an id."""
_TRIES = 32
"""So many bodies are looked at for a form."""
_DATA = b'"data":'
_ID = (b'{"id":"', b'{"id": "')


class Form(NamedTuple):
    """What all requests with the same text around their list share."""

    spec: Input
    shape: Sequence[int]
    elements: int
    rows: int
    outputs: tuple[str, ...] | None
    writer: Writer


class Forms:
    """The first forms seen, by the text before the list; later ones are not kept, so that ever new ones cost little."""

    __slots__ = ("_by_head", "_tries_left")

    def __init__(self) -> None:
        self._by_head: dict[bytes, tuple[bytes, Form]] = {}
        self._tries_left = _TRIES

    def find(self, body: bytes) -> tuple[Form, Array, str | None] | None:
        """Form, array and id of this body; None when it must be read the ordinary way."""
        if not self._by_head:
            return None
        start = body.find(_DATA) + len(_DATA)
        head, request_id = body[:start], None
        if head.startswith(_ID):
            head, request_id = _split_id(head)
        known = self._by_head.get(head)
        if known is None:
            return None
        tail, form = known
        if not body.endswith(tail):
            return None
        try:
            # Head and tail are whole around one value, so the document is well-formed if what stands between them is one.
            data = orjson.loads(body[start : len(body) - len(tail)])
            return form, from_json(form.spec, form.shape, form.elements, data, ""), request_id
        except (orjson.JSONDecodeError, RequestError):
            return None

    def may_learn(self, body: bytes) -> bool:
        """Whether `learn` is worth a call."""
        return self._tries_left > 0 and len(body) <= MOST_BYTES

    def learn(self, body: bytes, form: Form, request_id: str | None) -> None:
        """Remember the form of a body that was decoded the ordinary way, if it has one."""
        self._tries_left -= 1
        start, found = body.find(_DATA) + len(_DATA), spans(body)
        rest = skeleton(body, found) if len(found) == 1 else None
        head, its_id = body[:start], None
        if head.startswith(_ID):
            head, its_id = _split_id(head)
        if rest is None or its_id != request_id or body[start : found[0].start].strip():
            return
        try:
            replaced = orjson.loads(rest)["inputs"][0].get("data", 0)
        except orjson.JSONDecodeError:
            return
        # Only when the value that was replaced is the input's list is the text around it what the form says it is.
        if replaced is None:
            self._by_head[head] = body[found[0].end :], form


def _split_id(head: bytes) -> tuple[bytes, str | None]:
    """A text that begins with an id without it, and that id, if it is a plain one; any other is left in it."""
    start = head.index(b'"', 6) + 1
    end = head.find(b'"', start)
    word = head[start:end]
    if end - start > MOST_ID or not word.isascii() or b"\\" in word:
        return head, None
    text = word.decode("ascii")
    return (head[:start] + head[end:], text) if text.isprintable() else (head, None)
