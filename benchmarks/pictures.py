"""A picture of who answered how many of a model's calls over time, as SVG; for the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 900, 300, 50, 50, 30, 110
_COLOURS = ("#4472a8", "#d98b3a", "#5a9a68", "#b0525b", "#8a6bb0")

Moment = tuple[float, str]
"""Seconds, and what happened."""


def shares_picture(
    file: Path, seconds: Sequence[float], counts: Sequence[Mapping[int, float]], moments: Sequence[Moment]
) -> None:
    """Stacked shares, second by second. `counts[i]`: calls by version from `seconds[i]` to the next one; nothing where 0."""
    versions = sorted({version for each in counts for version in each})
    length = max(seconds[-1], 1.0)

    def x(second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * second / length

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for begin, end, each in zip(seconds, seconds[1:], counts, strict=False):
        total, below = sum(each.values()), 0.0
        for version in versions if total else ():
            share = each.get(version, 0.0) / total
            if share:
                parts.append(
                    f'<rect x="{x(begin):.1f}" y="{y(below + share):.1f}" width="{x(end) - x(begin) + 0.3:.1f}"'
                    f' height="{y(below) - y(below + share):.1f}" fill="{_COLOURS[versions.index(version) % len(_COLOURS)]}"/>'
                )
            below += share
    parts += [
        f'<text x="{_LEFT - 6}" y="{y(share) + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    parts += [
        f'<text x="{x(second):.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{second} s</text>'
        for second in range(0, int(length) + 1, 10)
    ]
    for number, (second, what) in enumerate(moments):
        at = 12 + 12 * (number % 3)
        parts.append(
            f'<line x1="{x(second):.0f}" x2="{x(second):.0f}" y1="{at + 4}" y2="{y(0):.0f}" stroke="#222" stroke-dasharray="3 3"/>'
        )
        parts.append(f'<text x="{x(second) + 3:.0f}" y="{at}">{what}</text>')
    for place, version in enumerate(versions):
        left = _LEFT + 90 * place
        parts.append(
            f'<rect x="{left}" y="{_TOP + 6}" width="10" height="10" fill="{_COLOURS[place % len(_COLOURS)]}" stroke="#fff"/>'
        )
        parts.append(f'<text x="{left + 14}" y="{_TOP + 15}" fill="#fff">version {version}</text>')
    file.write_text("\n".join([*parts, "</svg>\n"]), "utf-8")
