"""Long lists of numbers in a JSON body: cut out of the text and read by simdjson, with no Python object per number.

The text with `null` in place of every `data` list is small and goes the ordinary way; the lists become arrays at once.
This way says yes or nothing: whatever looks odd is None here, and the ordinary way has the verdict and the words for it.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from roost_runtimes.datatypes import Datatype, Kind
from roost_runtimes.model import Array

try:
    import simdjson
except ImportError:  # there is no wheel for this Python: every body goes the ordinary way
    simdjson = None  # type: ignore[assignment]

LEAST_BYTES = 1 << 12
"""A shorter body is read sooner the ordinary way."""
MOST_BYTES = 1 << 25
"""simdjson counts the elements of a list only up to 2^24, which a longer body could hold; and it takes up to 14 bytes of
address space for every byte of text."""

_LIST = re.compile(rb'"data"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}(\[{1,64})')
_MOST_LISTS = 64
_LONG_ROWS = 16
"""Rows shorter than this on average are looked at sooner the ordinary way."""


class Span(NamedTuple):
    """Where a list stands in its text."""

    start: int
    end: int


class Numbers:
    """A list of numbers, flat or nested, as the client wrote it; not looked at before an array is made of it."""

    __slots__ = ("_text",)

    def __init__(self, text: memoryview) -> None:
        self._text = text

    def array(self, datatype: Datatype, shape: Sequence[int], count: int) -> Array | None:
        """The numbers as 64-bit ones, flat; None when the text is not `count` numbers nested like `shape`, or flat."""
        unsigned = datatype.name == "UINT64"
        code = {Kind.FLOAT: "d", Kind.INTEGER: "u" if unsigned else "i"}.get(datatype.kind)
        if code is None or not count or not shape:
            return None
        try:
            data: Any = simdjson.Parser().parse(self._text)
            # It flattens whatever nesting it finds. Numbers are all that it takes, so that every bracket is a list's.
            lists = _count_lists(data, shape, count)
            if np.count_nonzero(np.frombuffer(self._text, np.uint8) == ord("[")) != lists:
                return None
            values: Array = np.frombuffer(data.as_buffer(of_type=code), {"d": "f8", "u": "u8", "i": "i8"}[code])
        except (TypeError, ValueError, RuntimeError, MemoryError):
            return None
        return values if len(values) == count else None


def spans(text: bytes) -> list[Span]:
    """Where lists called `data` seem to stand, in order.

    One may be something else (a part of a string, another object's member) and end elsewhere: what is left when it is
    replaced tells, because a whole value was only exchanged for another when the text and the list are both well-formed.
    """
    found: list[Span] = []
    position = 0
    while len(found) <= _MOST_LISTS and (match := _LIST.search(text, position)):
        start, depth = match.start(1), len(match[1])
        position = text.find(b"]" * depth, start) + depth
        if position < depth + start:
            break
        found.append(Span(start, position))
    return found


def skeleton(text: bytes, found: Sequence[Span]) -> bytes | None:
    """The text with null in place of these lists; None when there is another null, which could be taken for one."""
    ends = [(0, 0), *found, (len(text), len(text))]
    rest = b"null".join(text[before[1] : after[0]] for before, after in pairwise(ends))
    return rest if rest.count(b"null") == len(found) else None


def cut(text: bytes) -> tuple[bytes, list[Numbers]] | None:
    """The skeleton of this text, and the lists that were taken out of it; None when that cannot be done safely."""
    if simdjson is None:
        return None
    found = spans(text)
    if not 0 < len(found) <= _MOST_LISTS:
        return None
    rest = skeleton(text, found)
    if rest is None:
        return None
    view = memoryview(text)
    return rest, [Numbers(view[start:end]) for start, end in found]


def _count_lists(data: Any, shape: Sequence[int], count: int) -> int:
    """How many lists this is when it is flat or nested like `shape`; 0 when it is not, or has too many to look at."""
    if len(data) == count and (len(shape) == 1 or type(data[0]) is not simdjson.Array):
        return 1
    level, lists = [data], 1
    for length in shape[:-1]:
        if any(type(one) is not simdjson.Array or len(one) != length for one in level):
            return 0
        lists += len(level) * length
        if lists * _LONG_ROWS > count:
            return 0
        level = [row for one in level for row in one]
    if any(type(row) is not simdjson.Array or len(row) != shape[-1] for row in level):
        return 0
    return lists
