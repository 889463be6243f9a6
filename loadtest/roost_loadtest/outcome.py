"""From a record to all that is made of it: the verdict in three forms, and the report. Beside the record, in its folder."""

import json
import sys
from pathlib import Path

from roost_loadtest.junit import to_junit
from roost_loadtest.record import Record
from roost_loadtest.report.html import to_html
from roost_loadtest.summary import to_markdown
from roost_loadtest.verdict import judge

RECORD = "record.json"


def write(folder: Path, *, as_json: bool = False) -> int:
    """Print the verdict, and return its exit status: 0 passed, 1 failed, 2 the run proves nothing.

    Raises OSError, and ValueError, KeyError or TypeError for a record that this release cannot read.
    """
    record = Record.from_json((folder / RECORD).read_text(encoding="utf-8"))
    verdict = judge(record)
    summary = to_markdown(record, verdict)
    for name, text in {
        "verdict.json": verdict.to_text(),
        "junit.xml": to_junit(verdict),
        "summary.md": summary,
        "report.html": to_html(record, verdict),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    sys.stdout.write(json.dumps(verdict.to_json(), indent=2) + "\n" if as_json else summary)
    return verdict.exit_code
