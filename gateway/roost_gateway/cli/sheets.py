"""Tables for spreadsheets: CSV on standard output, figures in base units."""

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What a spreadsheet would run as a formula: names that a tenant chose cannot begin so, other words might.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """One record a row, after a header; what a row does not have is empty."""
    writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in columns} for row in rows)


def _cell(value: Any) -> Any:
    """Numbers and decimal strings stay what they are."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal()
