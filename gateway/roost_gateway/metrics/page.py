"""The page itself, in Prometheus' classic text format.

Where a part has a few series, it is a collector of the client library. What grows with the number of models is written here,
line by line: the library takes about eight microseconds for a line, and the event loop answers calls meanwhile.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from roost_gateway.metrics.histograms import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Page:
    """Text in the making. Families are written one after the other: the head, then its series."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def counter(self, name: str, text: str, series: Iterable[tuple[str, float]]) -> None:
        """`series` gives labels, as `labels_of` writes them, and value. By custom `name` ends in _total."""
        self._family(name, "counter", text, series)

    def gauge(self, name: str, text: str, series: Iterable[tuple[str, float]]) -> None:
        self._family(name, "gauge", text, series)

    def histogram(self, name: str, text: str, series: Iterable[tuple[str, Histogram]]) -> None:
        self._head(name, "histogram", text)
        add = self._lines.append
        for labels, histogram in series:
            before = f"{labels}," if labels else ""
            count = 0
            for end, count in histogram.cumulative():
                add(f'{name}_bucket{{{before}le="{end}"}} {count}')
            add(f"{name}_count{_braced(labels)} {count}")
            add(f"{name}_sum{_braced(labels)} {histogram.total}")

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode() if self._lines else b""

    def _family(self, name: str, kind: str, text: str, series: Iterable[tuple[str, float]]) -> None:
        self._head(name, kind, text)
        self._lines += [f"{name}{_braced(labels)} {value}" for labels, value in series]

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def labels_of(**labels: str) -> str:
    """As they stand between the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Writer(ABC):
    """A part with many series."""

    @abstractmethod
    def write(self, page: Page) -> None:
        """Write what there is now. It is short: calls wait meanwhile."""


def make_page(*parts: Collector | Writer) -> Callable[[], bytes]:
    """What `/metrics` answers, made anew at each call."""
    registry = CollectorRegistry(auto_describe=False)
    writers: list[Writer] = []
    for part in parts:
        if isinstance(part, Writer):
            writers.append(part)
        else:
            registry.register(part)

    def make() -> bytes:
        page = Page()
        for writer in writers:
            writer.write(page)
        return page.text() + generate_latest(registry)

    return make
