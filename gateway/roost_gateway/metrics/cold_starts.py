"""What cold starts are made of. Read from what the engine tells of its replicas, so it is the same for every engine; it is
told at least each ten seconds, and so much later it shows.
"""

from roost_gateway.metrics.histograms import COLD_S, Histogram
from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.resources import ResourceKind, ResourceUsage

PARTS = ("schedule", "pull", "load")
"""Waiting for room and a process, for the file or image, and for the model to be loaded and warm."""


class ColdStartFigures(Writer):
    """Counts each replica that a call woke, once it is ready."""

    def __init__(self) -> None:
        self._parts = {part: Histogram(COLD_S) for part in PARTS}
        self._setup: dict[str, tuple[int, int, int]] = {}  # by replica that is not ready yet

    def told(self, usage: ResourceUsage) -> None:
        """The stretches of one replica come in their order."""
        if usage.kind is not ResourceKind.REPLICA:
            return
        schedule, pull, load = self._setup.pop(usage.replica, (0, 0, 0))
        spent = (schedule + usage.schedule_us, pull + usage.pull_us, load + usage.load_us)
        if usage.cold_starts:
            for histogram, us in zip(self._parts.values(), spent, strict=True):
                histogram.observe(us / 1e6)
        elif not (usage.final or usage.active_us or usage.idle_us or usage.reserved_us):
            self._setup[usage.replica] = spent

    def write(self, page: Page) -> None:
        page.histogram(
            "roost_cold_start_part_duration_seconds",
            "What cold starts are made of",
            ((labels_of(part=part), histogram) for part, histogram in self._parts.items()),
        )
