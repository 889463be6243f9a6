"""Dependencies (S34): all that is installed is locked by hash, and nothing is older than the last known hole in it."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

HERE = Path(__file__).parent.parent
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;\\]+)")
FLOORS = {
    "onnx": "1.21", "onnxruntime": "1.31.1", "protobuf": "6.33.5", "h11": "0.16", "starlette": "1.0.1", "orjson": "3.11.5",
}  # fmt: skip


def pins() -> dict[str, tuple[str, str]]:
    """Version and the lines of hashes by name."""
    found, entries = {}, re.split(r"\n(?=\S)", (HERE / "requirements.lock").read_text())
    for entry in entries:
        match = PIN.match(entry)
        if match:
            found[match["name"]] = (match["version"], entry)
    return found


def requirements() -> list[Requirement]:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["runtime"]]]


def test_every_locked_dependency_has_hashes():
    assert len(pins()) > 20
    assert [name for name, (_, entry) in pins().items() if "--hash=sha256:" not in entry] == []


def test_the_lock_holds_what_the_project_asks_for():
    for requirement in requirements():
        if requirement.name == "roost" or (requirement.marker and not requirement.marker.evaluate()):
            continue
        locked = pins().get(requirement.name.lower().replace("_", "-"))
        assert locked, f"{requirement.name} is not locked: run `make lock`"
        assert requirement.specifier.contains(locked[0]), f"{requirement} does not take {locked[0]}: run `make lock`"


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_nothing_is_older_than_the_last_known_hole_in_it(name: str, floor: str):
    locked = pins().get(name)
    assert locked is None or Version(locked[0]) >= Version(floor)
