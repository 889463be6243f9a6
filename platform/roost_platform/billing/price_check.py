"""All mistakes of a price file in one run, each with the line it is on: what `roost prices check` tells.

TOML's own reader stops at the first mistake of writing. So that all of them are told, the line at fault is left out and
the rest read again; what the file means is judged only when it could be read whole.
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from roost_platform.billing.price_file import parse, read_price_books
from roost_platform.billing.price_values import Problem, plain_key
from roost_platform.billing.prices import PriceBooks
from roost_platform.domain.errors import InvalidRequest

_MOST_REREADINGS = 50
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


@dataclass(frozen=True, slots=True)
class Finding:
    line: int | None
    """From 1; None where no line says it."""
    problem: Problem

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}" if self.line is not None else str(self.problem)

    def to_json(self) -> dict[str, Any]:
        problem = self.problem
        return {"line": self.line, "key": problem.key, "value": problem.value, "wanted": problem.wanted}


def check_prices(text: str) -> tuple[PriceBooks | None, tuple[Finding, ...]]:
    """The price list, or everything that is wrong with it, from the top of the file down."""
    written = _mistakes_of_writing(text)
    if written:
        return None, tuple(written)
    books, problems = read_price_books(tomllib.loads(text))
    places = _lines(text)
    findings = [Finding(_line_of(problem.key, places), problem) for problem in problems]
    return books, tuple(sorted(findings, key=lambda finding: finding.line or 0))


def _mistakes_of_writing(text: str) -> list[Finding]:
    found: list[Finding] = []
    lines = text.split("\n")
    for _ in range(_MOST_REREADINGS):
        try:
            parse("\n".join(lines))
        except InvalidRequest as error:
            at = _AT_LINE.search(error.message)
            line = int(at[1]) if at else None
            if found and (line is None or line > len(lines) or not lines[line - 1].strip()):
                break  # nothing is left there to leave out: it follows from one that was told
            found.append(Finding(line, Problem("", "", error.message)))
            if line is None or line > len(lines):
                break
            lines[line - 1] = ""
        else:
            break
    return found


def _lines(text: str) -> dict[str, int]:
    """Each key's line, as far as a look at the beginnings of lines tells."""
    places: dict[str, int] = {}
    tables: Counter[str] = Counter()
    where = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line.rstrip()):
            where = _path_of(header[2], tables)
            if header[1] == "[[":
                tables[where] += 1
                where = f"{where}[{tables[where] - 1}]"
            places.setdefault(where, number)
        elif key := _KEY.match(line):
            path = where
            for part in _PART.findall(key[1]):
                path = f"{path}.{_bare(part)}".removeprefix(".")
                places.setdefault(path, number)
    return places


def _path_of(dotted: str, tables: Counter[str]) -> str:
    """`book.prices` as `book[1].prices`, when two [[book]] came before."""
    path = ""
    for part in _PART.findall(dotted):
        if path and tables[path]:
            path = f"{path}[{tables[path] - 1}]"
        path = f"{path}.{_bare(part)}".removeprefix(".")
    return path


def _bare(part: str) -> str:
    return plain_key(part[1:-1] if part[0] in "\"'" else part)


def _line_of(key: str, places: dict[str, int]) -> int | None:
    """The line of this key, or of the nearest one that it lies in."""
    while key:
        if key in places:
            return places[key]
        key = key[: max(key.rfind("."), key.rfind("[") if key.endswith("]") else -1, 0)]
    return None
