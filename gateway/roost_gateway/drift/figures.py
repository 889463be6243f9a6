"""Drift on the metrics page. Each gateway tells what it sampled; only the one that leads compares, and tells of that."""

from collections.abc import Callable, Mapping

from roost_gateway.drift.counting import Counting
from roost_gateway.drift.reports import VersionReport
from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.services import ServiceKey
from roost_platform.drift.store import VersionKey

MOST_FEATURES = 20
"""Of a version, those that lie farthest from their reference."""
MOST_VERSIONS = 500


class DriftFigures(Writer):
    def __init__(self, counting: Counting, *, known: Callable[[ServiceKey], bool]) -> None:
        """`known`: whether there is such a model; the series of others go."""
        self._counting = counting
        self._known = known
        self._reports: Mapping[VersionKey, VersionReport] = {}
        self._accuracy: Mapping[VersionKey, float] = {}

    def compared(self, reports: Mapping[VersionKey, VersionReport], accuracy: Mapping[VersionKey, float]) -> None:
        self._reports, self._accuracy = reports, accuracy

    def write(self, page: Page) -> None:
        self._forget()
        samples = [(_labels(key), float(count)) for key, count in self._counting.samples.items()]
        page.counter("roost_drift_samples_total", "Calls that were looked at for drift", samples)
        dropped = [
            (labels_of(tenant=key.tenant, model=key.model, reason=reason), float(count))
            for (key, reason), count in self._counting.dropped.items()
        ]
        page.counter("roost_drift_dropped_total", "Samples that could not be taken or read", dropped)
        self._write_compared(page)

    def _write_compared(self, page: Page) -> None:
        psi, ks, alarm, outside, missing = [], [], [], [], []
        for key, report in list(self._reports.items())[:MOST_VERSIONS]:
            if not self._known(key.model):
                continue
            worst = sorted(report.shifts.items(), key=lambda found: (found[0] not in report.alarms, -found[1].psi))
            for name, shift in worst[:MOST_FEATURES]:
                labels = f"{_labels(key)},{labels_of(feature=name)}"
                psi.append((labels, shift.psi))
                ks.append((labels, shift.distance))
                alarm.append((labels, float(name in report.alarms)))
            outside.append((_labels(key), report.outliers))
            missing.append((_labels(key), report.missing))
        page.gauge("roost_drift_psi", "Population stability index against the reference", psi)
        page.gauge("roost_drift_ks", "Kolmogorov-Smirnov distance to the reference", ks)
        page.gauge("roost_drift_alarm", "1 while a feature is shifted beyond chance and by enough to matter", alarm)
        page.gauge("roost_drift_outlier_ratio", "Part of the sampled rows with an outlier among the inputs", outside)
        page.gauge("roost_drift_missing_ratio", "Part of the sampled values that are no number", missing)
        right = [(_labels(key), value) for key, value in self._accuracy.items() if self._known(key.model)]
        page.gauge("roost_drift_accuracy_ratio", "Part of the answers with feedback that were right", right)

    def _forget(self) -> None:
        for key in [key for key in self._counting.samples if not self._known(key.model)]:
            del self._counting.samples[key]
        for place in [place for place in self._counting.dropped if not self._known(place[0])]:
            del self._counting.dropped[place]


def _labels(key: VersionKey) -> str:
    return labels_of(tenant=key.model.tenant, model=key.model.model, version=str(key.version))
