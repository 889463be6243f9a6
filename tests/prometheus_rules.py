"""The rules and alerts as objects of the Prometheus operator: prints manifests/components/alerts/prometheusrules.yaml.

    python tests/prometheus_rules.py > manifests/components/alerts/prometheusrules.yaml

A test compares the two. What is an option (Triton's names) is left out.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from manifest_objects import MANIFESTS

MONITORING = MANIFESTS / "monitoring"
OPTIONS = {"triton.yaml"}
_HEAD = "# Written by tests/prometheus_rules.py from the files of manifests/monitoring: change those.\n"


def text() -> str:
    files = [file for folder in ("rules", "alerts") for file in sorted(MONITORING.glob(f"{folder}/*.yaml"))]
    objects = [_object(file) for file in files if file.name not in OPTIONS]
    return _HEAD + yaml.safe_dump_all(objects, sort_keys=False, width=120)


def _object(file: Path) -> dict[str, Any]:
    kind = "alerts" if file.parent.name == "alerts" else "rules"
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"roost-{file.stem}-{kind}", "namespace": "roost"},
        "spec": yaml.safe_load(file.read_text("utf-8")),
    }


if __name__ == "__main__":
    sys.stdout.write(text())
