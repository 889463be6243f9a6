"""Decimal text of exact numbers. Works on integers, so that no context's precision can cut a digit."""

from fractions import Fraction


def decimal_text(number: Fraction, *, most: int, least: int = 0) -> str:
    """`-1234.5`: rounded to `most` digits after the point, halves to even; zeros beyond the `least` are left out."""
    scaled = round(number * 10**most)
    digits = str(abs(scaled)).rjust(most + 1, "0")
    whole, part = digits[: len(digits) - most], digits[len(digits) - most :]
    part = part[:least] + part[least:].rstrip("0")
    return f"{'-' if scaled < 0 else ''}{whole}{'.' if part else ''}{part}"


def grouped(text: str) -> str:
    """`-1,234,567.5`: commas between thousands."""
    whole, point, part = text.partition(".")
    return f"{int(whole):,}{point}{part}" if whole != "-0" else text
