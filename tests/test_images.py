"""The images: what their Dockerfiles promise, what their locks hold, what serving really imports."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from test_supply_chain import FLOORS, PIN

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "runtimes" / "images"
EXTRAS = {
    "onnx-cpu": ["runtime"],
    "onnx-gpu": ["runtime-gpu"],
    "gateway": ["gateway", "check", "postgres", "s3", "knative"],
}
"""What each image has of pyproject.toml, as `make lock` says it, too."""


def stages(image: str) -> list[list[str]]:
    """The instructions of each stage, from its FROM on."""
    text = (IMAGES / image / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    starts = [n for n, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def pinned(lock: Path) -> dict[str, str]:
    """The lines of each package in a lock, by its name."""
    entries = re.split(r"\n(?=\S)", lock.read_text())
    return {match["name"]: entry for entry in entries if (match := PIN.match(entry))}


def asked(extra: str) -> list[Requirement]:
    """What an extra asks for, those of Roost's own extras that it names included."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = []
    for requirement in map(Requirement, extras[extra]):
        found += [r for e in requirement.extras for r in asked(e)] if requirement.name == "roost" else [requirement]
    return found


@pytest.mark.parametrize("image", EXTRAS)
def test_the_last_stage_is_copied_together_and_starts_as_nobody(image: str):
    build, last = stages(image)
    assert build[0] == "FROM ${BASE} AS build"
    assert last[0] == "FROM ${BASE}"
    words = [line.split(maxsplit=1) for line in last]
    assert "RUN" not in [word for word, *_ in words]
    assert [rest for word, rest in words if word == "COPY"] == [
        "--from=build /compiled/ /", "--from=build /opt/roost /opt/roost",
    ]  # fmt: skip
    said = {word: rest for word, rest in words if word != "COPY"}
    assert said["USER"] == "65532:65532"
    assert said["ENTRYPOINT"].startswith('["/opt/roost/bin/python", "-m", "roost_')
    for setting in (
        "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONSAFEPATH=1", "ORT_DISABLE_TELEMETRY=1",
        "OPENBLAS_NUM_THREADS=1", "HOME=/tmp",
    ):  # fmt: skip
        assert setting in said["ENV"].split()
    assert f'org.opencontainers.image.title="roost-{image}"' in said["LABEL"]


def test_nothing_is_installed_but_wheels_by_their_hash():
    install = (IMAGES / "dependencies.sh").read_text()
    assert "--require-hashes --no-deps --only-binary=:all:" in install
    assert install.count(" $install ") == 2
    text = (IMAGES / "assemble.sh").read_text()
    assert "wheel --no-deps --no-build-isolation" in text
    assert "install --no-deps --no-index" in text


@pytest.mark.parametrize("lock", ["build.lock", *(f"{image}/requirements.lock" for image in EXTRAS)])
def test_locks_hold_hashes_and_nothing_older_than_the_last_known_hole(lock: str):
    entries = pinned(IMAGES / lock)
    assert len(entries) > 4
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []
    for name, floor in FLOORS.items():
        if name in entries:
            assert Requirement(f"x>={floor}").specifier.contains(PIN.match(entries[name])["version"]), name


@pytest.mark.parametrize("image", EXTRAS)
def test_a_lock_holds_what_its_image_asks_for(image: str):
    entries = pinned(IMAGES / image / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*map(Requirement, project["dependencies"]), *(r for extra in EXTRAS[image] for r in asked(extra))]
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate():
            entry = entries.get(requirement.name.lower())
            assert entry, f"{requirement.name} is not in the lock of {image}: run `make lock`"
            assert requirement.specifier.contains(PIN.match(entry)["version"]), f"{requirement}: run `make lock`"


def test_a_replica_carries_neither_a_web_framework_nor_what_only_checks_need_nor_keys_to_anything():
    for image in ("onnx-cpu", "onnx-gpu"):
        names = set(pinned(IMAGES / image / "requirements.lock"))
        assert not {"fastapi", "sqlalchemy", "kubernetes", "boto3", "psycopg", "onnx", "pydantic", "requests"} & names
    assert "onnxruntime" in pinned(IMAGES / "onnx-cpu" / "requirements.lock")
    assert "onnxruntime" not in pinned(IMAGES / "onnx-gpu" / "requirements.lock")  # both own one package


def test_serving_imports_nothing_that_the_runtime_image_lacks():
    """Also what is imported late: the model's class, and the command line's `serve`."""
    code = (
        "import sys, roost_runtimes.__main__, roost_runtimes.server, roost_runtimes.onnx_model, roost_runtimes.core;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"onnxruntime", "numpy", "uvicorn", "roost_runtimes"} <= imported
    assert not {"onnx", "google", "roost_gateway", "roost_platform", "fastapi", "sqlalchemy", "pydantic"} & imported


def test_only_what_the_wheel_is_made_of_is_sent_to_the_build():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {path.split("/")[0] for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert {line[1:] for line in lines if line.startswith("!")} == packages | files
