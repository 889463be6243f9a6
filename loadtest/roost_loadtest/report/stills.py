"""Each chart as a picture in the file itself: for paper, and where no script runs. Pure.

Coordinates are whole numbers and lines have few points: dozens of pictures are to stay small beside the data.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from roost_loadtest.report.chart import Chart, Line, Mark
from roost_loadtest.report.figures import milliseconds, moment
from roost_loadtest.report.scale import Scale, times
from roost_loadtest.report.timeline import Values

_WIDTH, _HEIGHT = 1440, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 124, 16, 34, 44
_POINTS = 300
NINES = (
    (0.0, "0 %"),
    (0.30103, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
)
"""What is written under a percentile plot."""


def still(chart: Chart, *, step: int, length: float, marks: Iterable[Mark] = (), numbered: bool = False) -> Markup:
    """`length` seconds wide; `numbered` writes the events' numbers above them."""
    scale = Scale.over(*chart.reach, log=chart.log)
    xs: Sequence[float] = chart.xs or [step * n for n in range(max(len(line.values) for line in chart.lines))]
    end = chart.xs[-1] if chart.xs else length
    drawing = _Drawing(scale, end or 1.0, step)
    parts: list[Markup] = [
        *(drawing.band(*band) for band in chart.bands),
        *drawing.grid(chart),
        *(drawing.lines(chart.lines, xs)),
        *(drawing.level(level.value) for level in chart.levels),
        *(() if chart.xs else drawing.marks(marks, numbered=numbered)),
    ]
    label = escape(f"{chart.title}. {chart.says}")
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join(parts)
    )


class _Drawing:
    def __init__(self, scale: Scale, end: float, step: int) -> None:
        self._scale = scale
        self._end = end
        self._step = step

    def x(self, value: float) -> int:
        return _LEFT + round(min(max(value / self._end, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT))

    def y(self, value: float) -> int:
        return _HEIGHT - _BOTTOM - round(self._scale.share(value) * (_HEIGHT - _TOP - _BOTTOM))

    def grid(self, chart: Chart) -> Iterator[Markup]:
        for tick in self._scale.ticks(whole=chart.unit == "count"):
            text = milliseconds(tick) if chart.unit == "ms" else f"{tick:,g}"
            y = self.y(tick)
            yield Markup('<path class="grid" d="M{} {}H{}"/>').format(_LEFT, y, _WIDTH - _RIGHT)
            yield Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 12, y + 8, text)
        below = [(at, text) for at, text in NINES if at <= self._end] if chart.xs else (
            [(float(at), moment(at)) for at in times(self._end)]
        )  # fmt: skip
        for at, text in below:
            anchor = "end" if self.x(at) > _WIDTH - 60 else "middle"
            yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                self.x(at), _HEIGHT - 10, anchor, text
            )

    def band(self, start: float, end: float) -> Markup:
        left, width = self.x(start), max(2, self.x(end) - self.x(start))
        return Markup('<rect class="band" x="{}" y="{}" width="{}" height="{}"/>').format(
            left, _TOP, width, _HEIGHT - _TOP - _BOTTOM
        )

    def level(self, value: float) -> Markup:
        return Markup('<path class="level" d="M{} {}H{}"/>').format(_LEFT, self.y(value), _WIDTH - _RIGHT)

    def marks(self, marks: Iterable[Mark], *, numbered: bool) -> Iterator[Markup]:
        found = sorted(marks, key=lambda each: each.at)
        for kind, of_load in (("step", True), ("event", False)):
            xs = dict.fromkeys(self.x(mark.at) for mark in found if (mark.number is None) is of_load)
            if xs:
                path = "".join(f"M{x} {_TOP}V{_HEIGHT - _BOTTOM}" for x in xs)
                yield Markup('<path class="{}" d="{}"/>').format(kind, path)
        free = 0
        for mark in found if numbered else ():
            x = self.x(mark.at)
            if mark.number is not None and x >= free:
                yield Markup('<text class="number" x="{}" y="24" text-anchor="middle">{}</text>').format(x, mark.number)
                free = x + 34

    def lines(self, lines: Sequence[Line], xs: Sequence[float]) -> Iterator[Markup]:
        stacked = stack(lines)
        for line, values in reversed(list(zip(lines, stacked, strict=True))):
            points = _thinned(xs, values)
            path = "".join(self._path(run, stepped=line.look == "steps") for run in points)
            if line.look == "bars":
                yield Markup('<path class="bars {}" d="{}"/>').format(line.colour, self._bars(points))
            elif path:
                if line.fill:
                    area = "".join(self._area(run, stepped=line.look == "steps") for run in points)
                    yield Markup('<path class="area {}" d="{}"/>').format(line.colour, area)
                classes = " ".join(filter(None, ("line", line.colour, line.dash, "wide" if line.wide else "")))
                yield Markup('<path class="{}" d="{}"/>').format(classes, path)

    def _path(self, points: Sequence[tuple[float, float]], *, stepped: bool) -> str:
        """Relative and whole, so that a point takes five characters."""
        x, y = self.x(points[0][0]), self.y(points[0][1])
        parts = [f"M{x} {y}"]
        for (_, before), (at, value) in pairwise(points):
            new_x, new_y = self.x(at), self.y(value)
            if stepped and value == before:
                continue
            parts.append(f"h{new_x - x}v{new_y - y}" if stepped else f"l{new_x - x} {new_y - y}")
            x, y = new_x, new_y
        if stepped:
            parts.append(f"H{self.x(points[-1][0] + self._step)}")
        elif len(points) == 1:
            parts.append("h3")
        return "".join(parts)

    def _area(self, points: Sequence[tuple[float, float]], *, stepped: bool) -> str:
        bottom = _HEIGHT - _BOTTOM
        return f"{self._path(points, stepped=stepped)}V{bottom}H{self.x(points[0][0])}Z"

    def _bars(self, points: Iterable[Sequence[tuple[float, float]]]) -> str:
        width = max(3, self.x(self._step) - _LEFT - 2)
        every = (point for run in points for point in run)
        return "".join(f"M{self.x(at)} {self.y(v)}h{width}V{_HEIGHT - _BOTTOM}h-{width}z" for at, v in every if v)


def stack(lines: Sequence[Line]) -> list[Values]:
    """What is drawn: bars stand on those of the lines before them, all else is as it is."""
    found: list[Values] = []
    below: list[float] = [0.0] * max((len(line.values) for line in lines), default=0)
    for line in lines:
        if line.look != "bars":
            found.append(line.values)
            continue
        below = [under + (value or 0.0) for under, value in zip(below, line.values, strict=True)]
        found.append(tuple(below))
    return found


def _thinned(xs: Sequence[float], values: Values) -> list[list[tuple[float, float]]]:
    """Runs of known points; of several that fall together, the highest."""
    every = -(-len(values) // _POINTS) or 1
    runs: list[list[tuple[float, float]]] = [[]]
    for start in range(0, len(values), every):
        known = [value for value in values[start : start + every] if value is not None]
        if known:
            runs[-1].append((xs[start], max(known)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
