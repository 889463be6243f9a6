"""The report in itself: what it says of a run, that nothing in it can break out, that it stays small."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pytest

from loadtest_parts import a_run
from roost_loadtest import outcome, shapes
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Generator, Record, Target
from roost_loadtest.report.html import to_html
from roost_loadtest.verdict import judge

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;]]>\u202e\x00"
HOUR = shapes.diurnal(20, 300, period_s=1800, duration_s=3600)
SHORT = shapes.steps([(20, 20), (60, 20)])


class Read(HTMLParser):
    """The text of the elements, their names and attributes."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.within: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.within.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.within[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.within[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.opened}


def page_of(record: Record) -> str:
    return to_html(record, judge(record))


def test_a_run_that_passed_says_so_first_and_everything_of_it_after():
    read = Read(page_of(a_run(events=((47.2, "acme/iris: version 2 is being deployed"),))))
    assert not read.within  # every element ends where it should
    assert read.text.startswith(
        "Passed: load test of acme/iris Roost load test ✓ Passed acme/iris Every aim that was set was met. answered 40,756"
    )
    for heading in (
        "Criteria", "Offered and achieved rate", "Latency, from when a request was due", "Replicas of acme/iris",
        "Requests in flight and queued", "Cold starts, each second", "Events", "Stretch by stretch", "Distribution",
        "The generator", "What was run", "To repeat it", "In figures",
    ):  # fmt: skip
        assert heading in read.text
    assert "✓ pass p99 from due time at 400/s 1:55-2:45" in read.text
    assert "No errors, and every request that was due was sent." in read.text
    assert "0:47 acme/iris: version 2 is being deployed" in read.text
    assert (
        "roost loadtest acme/iris --shape=steps:50x45s,200x60s,400x60s,50x45s --process=poisson --seed=1" in read.text
    )
    assert "Copyright (c) 2022 Leon Sorokin" in read.text


def test_a_run_that_failed_says_why_before_all_else():
    read = Read(page_of(a_run(shape=SHORT, stalls=(35,), error_share=0.05)))
    head = read.text[: read.text.index(" Criteria ")]
    assert "✗ Failed acme/iris" in head
    assert "failed requests : " in head
    assert "x 503" in head
    # What failed stands before what did not.
    words = re.findall(
        "[✓✗\N{EN DASH}] (pass|FAIL|open) ", read.text[: read.text.index("Whether the run proves anything")]
    )
    assert words == sorted(words, key=["FAIL", "pass", "open"].index)


def test_a_run_that_proves_nothing_says_that_and_what_to_do():
    slow = Generator(cpu=0.97, starved_s=0.8)
    text = Read(page_of(a_run(shape=SHORT, generator=slow))).text
    assert text.startswith("Proves nothing: load test of acme/iris")
    assert "busiest generator process : 97 %, wanted ≤ 85 %" in text
    assert "Repeat the run with a generator that has more to run on" in text


@pytest.mark.parametrize("kind", ["model", "event", "error", "platform", "payload"])
def test_what_others_named_is_shown_and_cannot_run(kind: str):
    run = a_run(
        shape=SHORT, error_share=0.2,
        targets=(Target("acme", HOSTILE if kind == "model" else "iris"),),
        events=((3.0, HOSTILE),) if kind == "event" else (),
        errors=(HOSTILE,) if kind == "error" else ("503",),
    )  # fmt: skip
    if kind == "platform":
        run = replace(run, platform={**run.platform, "version": HOSTILE, "engine": HOSTILE, HOSTILE: HOSTILE})
    if kind == "payload":
        stream = replace(run.plan.streams[0], payload=HOSTILE)
        run = replace(run, plan=replace(run.plan, url=f"http://{HOSTILE}", streams=(stream,)))
    page = page_of(run)
    read = Read(page)
    # The page's own elements, and not one more: an image, or a script of another's, would be.
    assert read.names == Read(page_of(a_run(shape=SHORT, error_share=0.2, events=((3.0, "x"),)))).names - (
        set() if kind == "event" else {"ol"}
    )
    assert not [name for _, attributes in read.opened for name in attributes if name.startswith("on")]
    assert len([tag for tag, _ in read.opened if tag == "script"]) == 3
    assert "<img src=x onerror=alert(2)>" in read.text
    assert "\u202e" not in page
    assert "\x00" not in page
    json.loads(read.scripts[0])


def test_the_policy_of_the_page_allows_its_own_parts_only():
    page = page_of(a_run(shape=SHORT))
    read = Read(page)
    policy = next(a["content"] for tag, a in read.opened if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not [a for _, a in read.opened if {"src", "style"} & a.keys()]
    links = [a["href"] for _, a in read.opened if "href" in a]
    assert links == ["https://github.com/leeoniya/uPlot"]


@pytest.mark.parametrize("targets", [1, 3, 12])
def test_an_hour_stays_small(targets: int):
    many = tuple(Target("acme", f"model-{n}") for n in range(targets))
    run = a_run(shape=HOUR, targets=many, samples=20, events=tuple((n * 36.0, f"event {n}") for n in range(100)))
    assert len(page_of(run).encode()) < 250 * 1024


def test_a_run_without_a_second_and_one_of_errors_alone_are_whole_pages():
    nothing = replace(a_run(shape=SHORT), seconds=(), billing=(), service=Histogram(), generator=Generator())
    text = Read(page_of(nothing)).text
    assert "Nothing was recorded." in text
    assert "Less was sent than was planned, as when a run is interrupted." in text
    failing = Read(page_of(a_run(shape=SHORT, error_share=1.0, predict=False)))
    assert "Errors, each second" in failing.text
    assert "p99 of the whole run none" in failing.text
    assert "Latency, from when" not in failing.text  # of which there is nothing to draw


def test_a_password_in_the_url_is_not_shown():
    run = a_run(shape=SHORT)
    page = page_of(replace(run, plan=replace(run.plan, url="https://me:secret@roost.test/base")))
    assert "secret" not in page
    assert "https://roost.test/base" in page


def test_the_report_lies_beside_the_record(tmp_path, capsys):
    record = a_run(shape=SHORT, aims=Aims(p99_s=9), samples=5)
    (tmp_path / outcome.RECORD).write_text(record.to_json(), encoding="utf-8")
    outcome.write(tmp_path)
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert written == page_of(Record.from_json(record.to_json()))


def test_a_report_is_made_without_locust():
    """It would patch the process for gevent."""
    script = "import sys; import roost_loadtest.report.html; print({'locust', 'gevent'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_the_chart_library_has_its_licence_beside_it():
    folder = resources.files("roost_loadtest.report").joinpath("uplot")
    assert "MIT License" in folder.joinpath("LICENSE").read_text("utf-8")
    assert "uPlot (v1.6.32)" in folder.joinpath("uPlot.iife.min.js").read_text("utf-8")[:80]
