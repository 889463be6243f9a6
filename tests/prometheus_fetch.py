"""Debian's Prometheus for the tests: no package of PyPI or npm has it.

    python tests/prometheus_fetch.py

brings the package into `.work/prometheus` where neither Prometheus nor promtool is installed; apt downloads and checks it, and
nobody needs to be root. Where that cannot be, the reason is kept beside it: what needs Prometheus is skipped with it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".work" / "prometheus"
PROGRAMS = ("prometheus", "promtool")
_WHY_NOT = FOLDER / "why-not"
_LIMIT_S = 60


def program(name: str) -> str | None:
    """Where it is: installed, or fetched."""
    return shutil.which(name) or shutil.which(name, path=FOLDER / "usr" / "bin")


def why_not() -> str:
    """Why there is none, in words for whoever reads what was skipped."""
    if _WHY_NOT.exists():
        return _WHY_NOT.read_text("utf-8")
    return "Prometheus is not installed: apt-get install prometheus, or python tests/prometheus_fetch.py"


def fetch() -> None:
    """Bring it here, or write down why not."""
    if all(program(name) for name in PROGRAMS):
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    reason = _bring()
    if reason:
        _WHY_NOT.write_text(reason, "utf-8")


def _bring() -> str:
    """The reason why it could not be brought, or nothing."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        return f"there is no Prometheus here, and no {missing[0]} to fetch Debian's"
    with tempfile.TemporaryDirectory(prefix="roost-prometheus-") as folder:
        try:
            package = _download(Path(folder)) or _download(Path(folder), *_own_lists(Path(folder)))
            if package is None:
                return "there is no Prometheus here, and apt finds none to download"
            _run("dpkg-deb", "-x", str(package), str(FOLDER), folder=Path(folder))
        except subprocess.TimeoutExpired:
            return f"there is no Prometheus here, and apt has not brought it within {_LIMIT_S} s"
    if not all(program(name) for name in PROGRAMS):
        return "Debian's package holds no prometheus and promtool"
    return ""


def _own_lists(folder: Path) -> tuple[str, ...]:
    """Options of apt with lists of packages that are made here: the machine's may be empty, and are root's to fill."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    options = (f"Dir::State={folder}/state", f"Dir::Cache={folder}/cache", "Dir::State::status=/var/lib/dpkg/status")
    _run("apt-get", *_spelled(options), "update", folder=folder)
    return options


def _download(folder: Path, *options: str) -> Path | None:
    _run("apt-get", *_spelled(options), "download", "prometheus", folder=folder)
    return next(folder.glob("prometheus_*.deb"), None)


def _spelled(options: tuple[str, ...]) -> list[str]:
    patience = ("Acquire::http::Timeout=15", "Acquire::Retries=1")
    return ["-qq", *(part for option in (*patience, *options) for part in ("-o", option))]


def _run(*command: str, folder: Path) -> None:
    """What it says is for the person who looks; whether it worked is seen by what is there afterwards."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode:
        print(done.stderr or done.stdout, file=sys.stderr, end="")


if __name__ == "__main__":
    fetch()
    print(program("prometheus") or why_not())
