"""Knative Serving's admission webhook: its defaults, and the rules that reach beyond a schema.

It reads `config-defaults`, `config-features` and `config-autoscaler` of the namespace knative-serving, as they are then.
"""

import re
from collections.abc import Iterator
from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import kind
from fake_kubernetes.knative_template import template_mistakes
from fake_kubernetes.registry import Write
from fake_kubernetes.store import Key, Object, Store

_GROUP = "serving.knative.dev"
LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_RESOURCES = {
    "requests": {"cpu": "revision-cpu-request", "memory": "revision-memory-request"},
    "limits": {"cpu": "revision-cpu-limit", "memory": "revision-memory-limit"},
}


def config_map(store: Store, name: str) -> dict[str, str]:
    found = store.get(Key(kind("ConfigMap"), "knative-serving", name))
    data: dict[str, str] = found.get("data", {}) if found is not None else {}
    return data


def knative_webhook(store: Store, write: Write) -> None:
    """Defaults first, then validation, as the two webhooks are called."""
    if write.key.kind.group != _GROUP or write.subresource:
        return
    new, spec = write.new, write.new.setdefault("spec", {})
    defaults = config_map(store, "config-defaults")
    match write.key.kind.kind:
        case "Service" | "Configuration":
            _default_template(spec.get("template", {}), defaults)
        case "Revision" if write.old is None:
            _default_revision(spec, defaults)
    if write.key.kind.kind in ("Service", "Route"):
        _default_traffic(write)
    mistakes = list(_mistakes(store, write))
    if mistakes:
        text = ", ".join(mistakes)
        hook = f"validation.webhook.{_GROUP}"
        raise Refused(400, f'admission webhook "{hook}" denied the request: validation failed: {text}')
    if write.key.kind.kind == "Service":
        _sign(write, new)


def _default_template(template: Object, defaults: dict[str, str]) -> None:
    _default_revision(template.setdefault("spec", {}), defaults)


def _default_revision(spec: Object, defaults: dict[str, str]) -> None:
    if not spec.get("timeoutSeconds"):
        spec["timeoutSeconds"] = int(defaults.get("revision-timeout-seconds", "300"))
    start = int(defaults.get("revision-response-start-timeout-seconds", "300"))
    if "responseStartTimeoutSeconds" not in spec and 0 < start < spec["timeoutSeconds"]:
        spec["responseStartTimeoutSeconds"] = start
    spec.setdefault("containerConcurrency", int(defaults.get("container-concurrency", "0")))
    spec.setdefault("enableServiceLinks", False)
    containers = spec.get("containers", [])
    writable = {volume["name"] for volume in spec.get("volumes", ()) if "emptyDir" in volume}
    for container in containers:
        container.setdefault("name", "user-container")
        _default_resources(container.setdefault("resources", {}), defaults)
        if len(containers) == 1 or "readinessProbe" in container:
            _default_probe(container.setdefault("readinessProbe", {}))
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in writable:
                mount["readOnly"] = True


def _default_resources(resources: Object, defaults: dict[str, str]) -> None:
    for side, names in _RESOURCES.items():
        for name, option in names.items():
            if option in defaults:
                resources.setdefault(side, {}).setdefault(name, defaults[option])


def _default_probe(probe: Object) -> None:
    if not {"tcpSocket", "httpGet", "exec", "grpc"} & set(probe):
        probe["tcpSocket"] = {"port": 0}
    probe.setdefault("successThreshold", 1)
    if probe.get("periodSeconds"):
        probe.setdefault("failureThreshold", 3)
        probe.setdefault("timeoutSeconds", 1)


def _default_traffic(write: Write) -> None:
    spec = write.new["spec"]
    if not spec.get("traffic") and write.key.kind.kind == "Service":
        spec["traffic"] = [{"percent": 100, "latestRevision": True}]
    for target in spec.get("traffic", ()):
        target.setdefault("latestRevision", "revisionName" not in target)
        target.setdefault("percent", 0)


def _mistakes(store: Store, write: Write) -> Iterator[str]:
    new, old = write.new, write.old
    name = new["metadata"]["name"]
    if write.key.kind.kind != "Revision" and not LABEL_1035.fullmatch(name):
        yield f"not a DNS 1035 label: {name}: metadata.name"
    match write.key.kind.kind:
        case "Service" | "Configuration":
            for key in new["metadata"].get("annotations", {}):
                if key.startswith("autoscaling.knative.dev"):
                    yield (
                        f'invalid key name "{key}": metadata.annotations\nautoscaling annotations must be put under '
                        '"spec.template.metadata.annotations" to work'
                    )
            configs = {n: config_map(store, f"config-{n}") for n in ("defaults", "features", "autoscaler")}
            template = new["spec"].get("template", {})
            yield from template_mistakes(template, name, configs)
            if old is not None:
                yield from _name_mistakes(old["spec"].get("template", {}), template)
        case "Revision" if old is not None and old["spec"] != new["spec"]:
            yield "Immutable fields changed (-old +new): spec"
    if write.key.kind.kind in ("Service", "Route"):
        yield from _traffic_mistakes(new["spec"].get("traffic", []), service=write.key.kind.kind == "Service")


def _name_mistakes(old: Object, new: Object) -> Iterator[str]:
    """A template that brings its own name must change it whenever anything else changes."""
    name = new.get("metadata", {}).get("name")
    if name and name == old.get("metadata", {}).get("name") and old != new:
        yield "Saw the following changes without a name change (-old +new): spec.template.metadata.name"


def _traffic_mistakes(traffic: list[dict[str, Any]], *, service: bool) -> Iterator[str]:
    tags: set[str] = set()
    for index, target in enumerate(traffic):
        at = f"spec.traffic[{index}]"
        pinned = bool(target.get("revisionName"))
        if target.get("latestRevision") is pinned:
            yield f'may not set revisionName "{target.get("revisionName", "")}" when latestRevision is {str(pinned).lower()}: {at}.latestRevision'
        if service and "configurationName" in target:
            yield f"must not set the field(s): {at}.configurationName"
        if not 0 <= target["percent"] <= 100:
            yield f"expected 0 <= {target['percent']} <= 100: {at}.percent"
        if "url" in target:
            yield f"must not set the field(s): {at}.url"
        tag = target.get("tag")
        if tag:
            if not LABEL_1035.fullmatch(tag):
                yield f"invalid value: not a DNS 1035 label: {tag}: {at}.tag"
            if tag in tags:
                yield f'Multiple definitions for "{tag}": {at}.tag'
            tags.add(tag)
    total = sum(target["percent"] for target in traffic)
    if total != 100:
        yield f"Traffic targets sum to {total}, want 100: spec.traffic"


def _sign(write: Write, new: Object) -> None:
    notes = new["metadata"].setdefault("annotations", {})
    old = write.old["metadata"].get("annotations", {}) if write.old is not None else {}
    for name in ("creator", "lastModifier"):
        notes[f"{_GROUP}/{name}"] = old.get(f"{_GROUP}/{name}", "roost")
