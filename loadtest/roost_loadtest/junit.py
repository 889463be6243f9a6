"""A verdict as JUnit XML, which every CI reads: each criterion is a test case."""

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from roost_loadtest.criterion import Criterion, shown
from roost_loadtest.verdict import Result, Verdict


def to_junit(verdict: Verdict) -> str:
    """An invalid run has errors, a failed one failures; what decides nothing is skipped."""
    targets = ", ".join(verdict.run["targets"])
    suites = ET.Element("testsuites", name="roost loadtest")
    seconds = f"{verdict.run['duration_s']:.3f}"
    _suite(suites, f"validity of the run against {targets}", verdict.validity, seconds=seconds, kind="error")
    # What an invalid run seems to show is no failure of the platform.
    judged = verdict.result is not Result.INVALID
    _suite(suites, targets, verdict.criteria, seconds=seconds, kind="failure" if judged else "skipped")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(parent: ET.Element, name: str, found: Iterable[Criterion], *, seconds: str, kind: str) -> None:
    suite = ET.SubElement(parent, "testsuite", name=_plain(name), time=seconds)
    counts = {"error": 0, "failure": 0, "skipped": 0}
    cases = 0
    for each in found:
        cases += 1
        case = ET.SubElement(
            suite, "testcase", classname=f"loadtest.{each.id}", name=_plain(" ".join(filter(None, (each.title, each.where)))), time="0"
        )  # fmt: skip
        text = sentence(each)
        if each.passed is None:
            counts["skipped"] += 1
            ET.SubElement(case, "skipped", message=_plain(text))
        elif not each.passed:
            counts[kind] += 1
            ET.SubElement(case, kind, message=_plain(text))
        else:
            ET.SubElement(case, "system-out").text = _plain(text)
    suite.attrib |= {"tests": str(cases), "errors": str(counts["error"]), "failures": str(counts["failure"])}
    suite.set("skipped", str(counts["skipped"]))


def sentence(each: Criterion) -> str:
    """What was measured against what: `230 ms, at most 100 ms: …`."""
    words = {"<=": "at most", ">=": "at least", "==": "exactly"}
    parts = [shown(each.measured, each.unit)]
    if each.limit is not None:
        parts.append(f"{words[each.relation]} {shown(each.limit, each.unit)}")
    return ", ".join(parts) + (f": {each.detail}" if each.detail else "")


def _plain(text: str) -> str:
    """Without what XML 1.0 cannot hold, in whatever way it is written."""
    return "".join(c if c in "\t\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
