"""The dashboards as Grafana imports them, for the tests of them."""

import json
from collections.abc import Iterator
from typing import Any

from manifest_objects import MANIFESTS

FOLDER = MANIFESTS / "monitoring" / "dashboards"
GENERATOR = MANIFESTS / "monitoring" / "grafana"
DASHBOARDS = ("autoscaling", "drift", "model", "money", "overview", "tenant")


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the rows that they stand in."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each panel with each of its queries."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel, target
