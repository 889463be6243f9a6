"""Bringing Debian's Prometheus for the tests: where that cannot be, nothing fails, and whoever reads the skips is told why."""

import shutil
import subprocess
import sys
from pathlib import Path

import prometheus_fetch


def fetched_with(programs: dict[str, str], folder: Path) -> tuple[str, list[str]]:
    """What it says where only these programs are, given as shell scripts; and what is in its folder then."""
    script = folder / "tests" / "prometheus_fetch.py"
    script.parent.mkdir()
    shutil.copy(prometheus_fetch.__file__, script)
    there = folder / "bin"
    there.mkdir()
    for name, text in programs.items():
        (there / name).write_text(f"#!/bin/sh\n{text}\n")
        (there / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, script], env={"PATH": str(there)}, capture_output=True, text=True, check=True
    )
    kept = folder / ".work" / "prometheus"
    return done.stdout.strip(), sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())


def test_without_apt_the_reason_is_kept(tmp_path: Path):
    reason = "there is no Prometheus here, and no apt-get to fetch Debian's"
    assert fetched_with({}, tmp_path) == (reason, ["why-not"])


def test_an_apt_that_finds_nothing_is_no_failure(tmp_path: Path):
    programs = {"apt-get": "echo no network >&2; exit 100", "dpkg-deb": "exit 1"}
    assert fetched_with(programs, tmp_path) == (
        "there is no Prometheus here, and apt finds none to download",
        ["why-not"],
    )


def test_what_apt_brings_is_unpacked_once_its_own_lists_are_there(tmp_path: Path):
    """The machine's lists are empty, as in most containers."""
    unpack = (
        'to="$3/usr/bin"; /bin/mkdir -p $to; for p in prometheus promtool; do echo > $to/$p; /bin/chmod +x $to/$p; done'
    )
    apt = 'case "$*" in *Dir::State*download*) echo > prometheus_1_all.deb;; *update*) ;; *) exit 100;; esac'
    said, files = fetched_with({"apt-get": apt, "dpkg-deb": unpack}, tmp_path)
    assert files == ["usr/bin/prometheus", "usr/bin/promtool"]
    assert said == str(tmp_path / ".work" / "prometheus" / "usr" / "bin" / "prometheus")


def test_nothing_is_fetched_where_it_is_installed(tmp_path: Path):
    said, files = fetched_with({"prometheus": "", "promtool": "", "apt-get": "exit 1"}, tmp_path)
    assert (said, files) == (str(tmp_path / "bin" / "prometheus"), [])
