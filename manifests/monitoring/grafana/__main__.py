"""Writes Roost's dashboards for Grafana, each as the JSON that Grafana imports.

    python manifests/monitoring/grafana [FOLDER]

FOLDER is manifests/monitoring/dashboards unless another one is named. A test compares what is there with what this makes.
"""

import sys
from pathlib import Path

import autoscaling
import drift
import model
import money
import overview
import tenant
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent.parent / "dashboards"
BOARDS = {
    "overview": overview.made,
    "tenant": tenant.made,
    "model": model.made,
    "autoscaling": autoscaling.made,
    "money": money.made,
    "drift": drift.made,
}


def write(folder: Path) -> None:
    for name, made in BOARDS.items():
        text = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(made())
        (folder / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
