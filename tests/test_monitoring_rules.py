"""Recording rules and alerts: well formed, each alert with its words and its runbook, tried firing and not firing.

What needs promtool is skipped where there is none and none could be fetched (`prometheus_fetch`).
"""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import prometheus_rules
from manifest_objects import MANIFESTS, built
from prometheus_fetch import program
from prometheus_server import needs_promtool

ROOT = MANIFESTS.parent
MONITORING = MANIFESTS / "monitoring"
RULES = sorted(MONITORING.glob("rules/*.yaml"))
ALERTS = sorted(MONITORING.glob("alerts/*.yaml"))
TRIALS = sorted(MONITORING.glob("tests/*.yaml"))
PROMTOOL = program("promtool")
RECORDED = re.compile(r"[a-z_]+:[a-z][a-z0-9_]*:[a-z0-9_]+")
TRITON = "triton.yaml"
"""The names in it are Triton's."""


@cache
def rules_in(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text("utf-8"))["groups"] for rule in group["rules"]]


def all_alerts() -> list[dict[str, Any]]:
    return [rule for file in ALERTS for rule in rules_in(file)]


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_are_accepted():
    promtool("check", "rules", *RULES, *ALERTS)


@needs_promtool
@pytest.mark.parametrize("trial", TRIALS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(trial: Path):
    promtool("test", "rules", trial)


def test_the_prometheus_operator_is_given_the_same_rules():
    """Names are unique, and the file is what the program prints today."""
    kept = MANIFESTS / "components" / "alerts" / "prometheusrules.yaml"
    assert kept.read_text("utf-8") == prometheus_rules.text(), "run tests/prometheus_rules.py"
    objects = built(MANIFESTS / "components" / "alerts")
    assert len({one["metadata"]["name"] for one in objects}) == len(objects) == len(RULES) + len(ALERTS) - 1
    (monitor,) = built(MANIFESTS / "components" / "monitoring")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name", 'the alerts ask for job="roost"'
    assert monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] == "roost"


def test_recorded_names_are_level_metric_operation():
    names = [rule["record"] for file in RULES if file.name != TRITON for rule in rules_in(file)]
    assert len(names) > 40
    assert [name for name in names if not RECORDED.fullmatch(name)] == []
    assert len(set(names)) == len(names)
    assert all(rule["record"].startswith("nv_inference_") for rule in rules_in(MONITORING / "rules" / TRITON))


def test_what_is_recorded_is_never_older_than_prometheus_looks_back():
    """Five minutes: a group with a longer interval would have its series come and go, and alerts on them with it."""
    groups = [group for file in [*RULES, *ALERTS] for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    assert {group.get("interval", "1m") for group in groups} <= {"1m", "2m"}
    assert len({group["name"] for group in groups}) == len(groups)


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do():
    for rule in all_alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, rule["alert"]
        page = (ROOT / rule["annotations"]["runbook_url"]).read_text("utf-8")
        assert f"`{rule['alert']}`" in page.splitlines()[2], rule["alert"]
        assert "## Look\n" in page
        assert "## Do\n" in page


def test_no_runbook_is_without_its_alert():
    used = {Path(rule["annotations"]["runbook_url"]).name for rule in all_alerts()}
    assert {file.name for file in (ROOT / "docs" / "runbooks").glob("*.md")} == used


def test_every_alert_is_tried_firing_and_not_firing():
    fires: set[str] = set()
    quiet: set[str] = set()
    for file in TRIALS:
        for trial in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for case in trial.get("alert_rule_test", ()):
                (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
            for case in trial.get("promql_expr_test", ()):
                samples = case.get("exp_samples", ())
                fires |= {name for one in samples for name in re.findall(r'alertname="(\w+)"', one["labels"])}
    names = {rule["alert"] for rule in all_alerts()}
    assert fires == names
    assert quiet == names


def test_the_document_lists_every_alert_with_its_severities_and_links_no_missing_page():
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    listed = {
        name: set(severities.split(", "))
        for name, severities in re.findall(
            r"^\| \[`(\w+)`\]\(runbooks/[a-z-]+\.md\) \| ([a-z, ]+) \|", text, re.MULTILINE
        )
    }
    alerts = all_alerts()
    assert listed == {
        name: {r["labels"]["severity"] for r in alerts if r["alert"] == name} for name in {r["alert"] for r in alerts}
    }
    for page in [ROOT / "docs" / "metrics.md", *(ROOT / "docs" / "runbooks").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_rules_read_only_series_that_somebody_tells():
    """A series of ours that a rule asks for is in the document, or recorded by another rule."""
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
    for file in [*RULES, *ALERTS]:
        for rule in rules_in(file):
            without = re.sub(r'"[^"]*"', "", rule["expr"])
            asked = set(re.findall(r"(?<![\w:])roost_\w+(?![\w:])", without))
            families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
            assert families <= documented, (file.name, families - documented)
            recorded = {name["record"] for rules in RULES for name in rules_in(rules)}
            assert set(re.findall(r"\w+:\w+:\w+", without)) <= recorded
