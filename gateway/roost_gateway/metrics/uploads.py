"""How the checks of uploads ended."""

from collections.abc import Mapping

from roost_gateway.metrics.page import Page, Writer, labels_of


class UploadFigures(Writer):
    def __init__(self, checks: Mapping[str, int]) -> None:
        """`checks` is read at each scrape: by result, `ok` or the code of the refusal."""
        self._checks = checks

    def write(self, page: Page) -> None:
        page.counter(
            "roost_upload_checks_total",
            "Uploaded files that were checked",
            ((labels_of(result=result), count) for result, count in self._checks.items()),
        )
