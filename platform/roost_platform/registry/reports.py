"""Verdicts that are remembered: the same bytes, uploaded again, are not judged again."""

from collections import OrderedDict

from roost_platform.registry.checking import CheckReport

_MOST = 256


class KeptReports:
    """The last ones, by digest."""

    def __init__(self) -> None:
        self._reports: OrderedDict[str, CheckReport] = OrderedDict()

    def get(self, digest: str) -> CheckReport | None:
        return self._reports.get(digest)

    def keep(self, digest: str, report: CheckReport) -> None:
        self._reports[digest] = report
        self._reports.move_to_end(digest)
        if len(self._reports) > _MOST:
            self._reports.popitem(last=False)

    def forget(self, digest: str) -> None:
        self._reports.pop(digest, None)
