"""The dashboards as files: what the generator writes, whole as Grafana wants them, and given to Grafana on a cluster."""

import json
import re
import subprocess
import sys
from pathlib import Path

import _jsonnet
import kubernetes_validate
import pytest
import yaml

from dashboard_files import DASHBOARDS, FOLDER, GENERATOR, board, panels, targets
from manifest_objects import MANIFESTS, built

UNITS = {"bytes", "cps", "none", "percentunit", "reqps", "s"}
"""Grafana's names of those that are used here (packages/grafana-data/src/valueFormats/categories.ts). Money has none: its
currency is in the legend."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
BELOW_ZERO = {"Spare capacity for bursts"}
VARIABLES = {"datasource", "tenant", "model"}
METRICS = (MANIFESTS.parent / "docs" / "metrics.md").read_text("utf-8")
every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def test_what_is_kept_is_what_the_generator_writes(tmp_path: Path):
    subprocess.run([sys.executable, str(GENERATOR), str(tmp_path)], check=True)
    written = {file.name: file.read_text("utf-8") for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text("utf-8") for file in FOLDER.glob("*.json")}
    assert written == kept, "run: python manifests/monitoring/grafana"
    assert kept.keys() == {f"{name}.json" for name in DASHBOARDS}


@every_dashboard
def test_the_frame_is_whole(name: str):
    dashboard = board(name)
    assert dashboard["uid"] == f"roost-{name}"
    assert dashboard["title"].startswith("Roost / ")
    assert dashboard["description"].endswith(".")
    assert (dashboard["tags"], dashboard["editable"], dashboard["timezone"]) == (["roost"], False, "utc")
    assert dashboard["schemaVersion"] >= 36, "Grafana 9 and later know data sources by type and uid"
    assert "id" not in dashboard, "Grafana numbers dashboards itself"
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == ("dashboards", ["roost"], True, True)
    source, *chosen = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    for variable in chosen:
        assert variable["datasource"] == SOURCE
        assert re.fullmatch(r"label_values\(roost_\w+({.+})?, (tenant|model)\)", variable["query"]["query"])
        assert variable.get("allValue") == (".+" if variable["includeAll"] else None)
    assert {variable["name"] for variable in chosen} <= VARIABLES
    assert len({variable["name"] for variable in chosen}) == len(chosen)


@every_dashboard
def test_panels_have_ids_of_their_own_and_lie_beside_each_other(name: str):
    everything = board(name)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    titles = [(panel["type"], panel["title"]) for panel in everything]
    assert len(set(titles)) == len(titles)


@every_dashboard
def test_panels_say_what_they_show_in_which_unit_and_where_it_gets_bad(name: str):
    for panel in panels(board(name)):
        assert panel["type"] in {"stat", "table", "timeseries"}
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == SOURCE
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, panel["title"]
        if panel["type"] == "timeseries":
            least = None if panel["title"] in BELOW_ZERO else 0
            assert defaults.get("min") == least, "a line's height means something"
            assert panel["options"]["legend"]["showLegend"] is True
        thresholds = defaults.get("thresholds")
        if thresholds is not None:
            first, *marks = thresholds["steps"]
            assert thresholds["mode"] == "absolute"
            assert first["value"] is None
            assert [mark["value"] for mark in marks] == sorted({mark["value"] for mark in marks}) != []
            assert len({step["color"] for step in (first, *marks)}) == len(marks) + 1
            assert first["color"] == ("red" if marks[-1]["color"] in {"green", "#EAB839"} else "green"), panel["title"]


def test_some_panels_have_thresholds():
    """Or the rules about them would say nothing."""
    found = [
        panel
        for name in DASHBOARDS
        for panel in panels(board(name))
        if "thresholds" in panel["fieldConfig"]["defaults"]
    ]
    assert len(found) > 20


@every_dashboard
def test_queries_ask_the_chosen_source_and_their_series_have_names(name: str):
    declared = {variable["name"] for variable in board(name)["templating"]["list"]}
    for panel, target in targets(board(name)):
        assert target["datasource"] == SOURCE
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= declared | {"__rate_interval"}
        assert (target["instant"], target["range"]) in {(False, True), (True, False)} or panel["type"] == "table"
        assert target["legendFormat"] not in {"", "__auto"}
        assert target["expr"].count("(") == target["expr"].count(")")
    for panel in panels(board(name)):
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]


@every_dashboard
def test_queries_ask_for_series_that_somebody_tells(name: str):
    documented = set(re.findall(r"^\| `(\w+)` \|", METRICS, re.MULTILINE))
    rules = "\n".join(file.read_text("utf-8") for file in MANIFESTS.glob("monitoring/rules/*.yaml"))
    recorded = set(re.findall(r"record: (\S+)", rules))
    for _, target in targets(board(name)):
        without = re.sub(r'"[^"]*"', "", target["expr"])
        asked = set(re.findall(r"(?<![\w:])roost_\w+(?![\w:])", without))
        assert {re.sub(r"_(bucket|count|sum)$", "", one) for one in asked} <= documented, target["expr"]
        assert set(re.findall(r"[a-z_]+:[a-z_0-9]+:[a-z0-9_]+", without)) <= recorded, target["expr"]


def test_on_a_cluster_grafanas_sidecar_finds_them():
    """One ConfigMap each, with the label that it looks for, small enough for Kubernetes."""
    objects = built(MANIFESTS / "components" / "dashboards")
    assert {one["metadata"]["name"] for one in objects} == {f"roost-dashboard-{name}" for name in DASHBOARDS}
    for one in objects:
        kubernetes_validate.validate(one, "1.36", strict=True)
        assert (one["kind"], one["metadata"]["namespace"]) == ("ConfigMap", "roost")
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"]["grafana_folder"] == "Roost"
        ((file, text),) = one["data"].items()
        assert json.loads(text) == board(Path(file).stem.removeprefix("roost-"))
        assert len(text.encode()) < 2**20 - 2**14


def test_the_mixin_holds_every_dashboard_rule_and_alert():
    """As those who build their monitoring with Jsonnet take it."""
    asked = "local m = import 'mixin.libsonnet'; [m.grafanaDashboards, m.prometheusRules, m.prometheusAlerts]"
    folder = MANIFESTS / "monitoring"
    dashboards, rules, alerts = json.loads(_jsonnet.evaluate_snippet("test", asked, jpathdir=[str(folder)]))
    assert dashboards == {f"roost-{name}.json": board(name) for name in DASHBOARDS}
    for name, found in (("rules", rules), ("alerts", alerts)):
        files = [file for file in sorted(folder.glob(f"{name}/*.yaml")) if file.name != "triton.yaml"]
        assert found == {"groups": [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]}
