"""The report in a real browser: charts are drawn and move together, nothing is complained of, nothing is asked for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chromium_parts import CHROMIUM, Page, browser
from loadtest_parts import a_run
from roost_loadtest import shapes
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Generator, Record, Target
from roost_loadtest.report.html import to_html
from roost_loadtest.verdict import judge

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (a Debian package)")

SHORT = shapes.steps([(20, 20), (60, 20)])
HOSTILE = "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
DRAWN = """[...document.querySelectorAll(".live canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value, n) => n % 4 === 3 && value > 0);
})"""
SHOWN = "[...document.querySelectorAll('.u-legend')].map((each) => each.textContent.replace(/\\s+/g, ' ').trim())"
RANGES = """[...document.querySelectorAll(".live")].slice(0, -1).map((each) =>
  [...each.querySelectorAll(".u-legend")].length && each.querySelector(".u-over").getBoundingClientRect().toJSON())"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


def write(folder: Path, record: Record) -> Path:
    file = folder / "report.html"
    file.write_text(to_html(record, judge(record)), encoding="utf-8")
    return file


def undisturbed(page: Page, file: Path) -> None:
    assert page.complaints == []
    assert page.requests == [file.as_uri()]


def test_charts_are_drawn_and_nothing_else_is_asked_for(page, tmp_path):
    file = write(tmp_path, a_run(shape=SHORT, error_share=0.1, stalls=(30,), after_s=30))
    page.open(file)
    assert page.value(DRAWN) == [True] * 7
    assert page.value("getComputedStyle(document.querySelector('.still')).display") == "none"
    undisturbed(page, file)


def test_the_cursor_and_the_zoom_are_shared(page, tmp_path):
    file = write(tmp_path, a_run(shape=SHORT, events=((20.0, "<b>deployed</b>"),)))
    page.open(file)
    first, second = page.value(RANGES)[:2]
    page.value(f"scrollTo(0, {first['y'] - 300})")
    middle, y = first["x"] + first["width"] / 2, 300 + first["height"] / 2
    page.mouse("mouseMoved", middle - 3, y)
    page.mouse("mouseMoved", middle, y)
    page.settle()
    assert page.value("document.getElementById('at').textContent") == "0:20: 1. <b>deployed</b>"
    shown = page.value(SHOWN)
    assert shown[0].startswith("time0:20offered60") or "offered60" in shown[0].replace(" ", "")
    assert "ms" in shown[1]  # the chart below tells of the same moment

    page.mouse("mousePressed", middle, y, button="left", clickCount=1)
    page.mouse("mouseMoved", middle + first["width"] / 4, y, button="left", buttons=1)
    page.mouse("mouseReleased", middle + first["width"] / 4, y, button="left", clickCount=1)
    page.settle()
    assert page.value("document.getElementById('all').disabled") is False
    # At the left edge of every chart now is the middle of the run.
    for number, place in enumerate((first, second)):
        top = page.value(f"document.querySelectorAll('.u-over')[{number}].getBoundingClientRect().y")
        page.mouse("mouseMoved", place["x"] + 2, top + 20)
        page.settle()
        assert page.value("document.getElementById('at').textContent").startswith("0:20")

    page.value("document.getElementById('all').click()")
    page.settle()
    assert page.value("document.getElementById('all').disabled") is True
    undisturbed(page, file)


def test_a_stretch_can_be_shown(page, tmp_path):
    page.open(write(tmp_path, a_run(shape=SHORT)))
    page.value("document.querySelectorAll('[data-from]')[1].click()")
    page.settle()
    place = page.value("document.querySelector('.u-over').getBoundingClientRect().toJSON()")
    page.mouse("mouseMoved", place["x"] + 2, place["y"] + 60)
    page.settle()
    assert page.value("document.getElementById('at').textContent").startswith("0:20")


def test_hostile_names_stay_text(page, tmp_path):
    record = a_run(
        shape=SHORT, targets=(Target(HOSTILE, HOSTILE),), error_share=0.2, errors=(HOSTILE,), events=((3.0, HOSTILE),)
    )
    file = write(tmp_path, record)
    page.open(file)
    assert page.value("document.title").startswith("Failed: load test of </script>")
    assert page.value("document.images.length") == 0
    assert all(page.value(DRAWN))
    undisturbed(page, file)


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_no_width_scrolls_sideways(page, tmp_path, width):
    targets = [Target("acme", "iris"), Target("globex", "a-model-with-quite-a-long-name-for-a-phone", 12)]
    page.open(write(tmp_path, a_run(shape=SHORT, targets=targets, error_share=0.1, errors=("x" * 90,))), width=width)
    assert page.value("document.documentElement.scrollWidth") == width
    assert all(page.value(DRAWN))


def test_a_run_of_nothing_has_no_charts_and_no_complaint(page, tmp_path):
    record = replace(a_run(shape=SHORT), seconds=(), billing=(), service=Histogram(), generator=Generator())
    file = write(tmp_path, record)
    page.open(file)
    assert page.value("document.querySelectorAll('canvas').length") == 0
    undisturbed(page, file)


def test_paper_and_the_dark(page, tmp_path):
    """On paper are the still pictures, in the colours of the day."""
    page.open(write(tmp_path, a_run(shape=SHORT)))
    ground = "getComputedStyle(document.querySelector('main')).backgroundColor"
    still = "getComputedStyle(document.querySelector('.still')).display"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.ask("Emulation.setEmulatedMedia", media="", features=dark)
    page.settle()
    assert page.value(ground) == "rgb(26, 31, 28)"
    assert all(page.value(DRAWN))
    page.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    assert (page.value(ground), page.value(still)) == ("rgb(255, 255, 255)", "block")
    page.ask("Emulation.setEmulatedMedia", media="", features=[])
    assert page.pdf().startswith(b"%PDF-")
    assert page.complaints == []
