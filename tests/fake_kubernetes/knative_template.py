"""What Knative's webhook asks of a revision template: names, bounds, autoscaling annotations, fields behind features."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Template = Mapping[str, Any]
Configs = Mapping[str, Mapping[str, str]]

_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_GATED = {
    "affinity": "affinity",
    "topologySpreadConstraints": "topologyspreadconstraints",
    "hostAliases": "hostaliases",
    "nodeSelector": "nodeselector",
    "runtimeClassName": "runtimeclassname",
    "tolerations": "tolerations",
    "securityContext": "securitycontext",
    "shareProcessNamespace": "shareprocessnamespace",
    "priorityClassName": "priorityclassname",
    "schedulerName": "schedulername",
    "initContainers": "init-containers",
    "dnsPolicy": "dnspolicy",
    "dnsConfig": "dnsconfig",
    "hostIPC": "hostipc",
    "hostPID": "hostpid",
    "hostNetwork": "hostnetwork",
}
_NEVER = (
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "nodeName",
    "hostname",
    "subdomain",
)
_VOLUMES = {
    "hostPath": ("HostPath", "volumes-hostpath"),
    "csi": ("CSI", "volumes-csi"),
    "ephemeral": ("Ephemeral", "volumes-ephemeral"),
    "image": ("Image", "volumes-image"),
    "persistentVolumeClaim": ("Persistent volume claim", "persistent-volume-claim"),
    "emptyDir": ("EmptyDir", "volumes-emptydir"),
}
_RESERVED_ENVIRONMENT = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_HOUR = 3600.0


def template_mistakes(template: Template, service: str, configs: Configs) -> Iterator[str]:
    """Everything wrong with the template of a service (or configuration) of this name."""
    meta, spec = template.get("metadata", {}), template.get("spec", {})
    name = meta.get("name", "")
    if name and not _LABEL_1035.fullmatch(name):
        yield f"invalid value: not a DNS 1035 label: {name}: spec.template.metadata.name"
    elif name and not name.startswith(service + "-"):
        yield f'invalid value: "{name}" must have prefix "{service}-": spec.template.metadata.name'
    yield from _annotation_mistakes(meta.get("annotations", {}), configs["autoscaler"])
    most = int(configs["defaults"].get("max-revision-timeout-seconds", "600"))
    if not 0 <= spec["timeoutSeconds"] <= most:
        yield f"expected 0 <= {spec['timeoutSeconds']} <= {most}: spec.template.spec.timeoutSeconds"
    if not 0 <= spec["containerConcurrency"] <= 1000:
        yield f"expected 0 <= {spec['containerConcurrency']} <= 1000: spec.template.spec.containerConcurrency"
    yield from _pod_mistakes(spec, configs["features"])


def _pod_mistakes(spec: Template, features: Mapping[str, str]) -> Iterator[str]:
    at = "spec.template.spec"
    denied = [field for field, flag in _GATED.items() if field in spec and not _on(features, f"podspec-{flag}")]
    denied += [field for field in _NEVER if field in spec]
    if spec.get("automountServiceAccountToken"):
        denied.append("automountServiceAccountToken")
    if denied:
        yield "must not set the field(s): " + ", ".join(f"{at}.{field}" for field in sorted(denied))
    containers = spec.get("containers", ())
    if not containers:
        yield f"missing field(s): {at}.containers"
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", ())}
    for index, (name, volume) in enumerate(volumes.items()):
        if name not in mounted:
            yield f'volume with name "{name}" not mounted: {at}.volumes[{index}].name'
        for source, (title, flag) in _VOLUMES.items():
            if source in volume and not _on(features, f"podspec-{flag}", default=source == "emptyDir"):
                yield f"{title} volume support is disabled, but found {title} volume {name}: {at}.volumes[{index}]"
    for index, container in enumerate(containers):
        for mistake, field in _container_mistakes(container, volumes):
            yield f"{mistake}: {at}.containers[{index}].{field}"


def _container_mistakes(container: Template, volumes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not container.get("image"):
        yield "missing field(s)", "image"
    for variable in container.get("env", ()):
        if variable["name"] in _RESERVED_ENVIRONMENT:
            yield f'"{variable["name"]}" is a reserved environment variable', "env"
        if {"fieldRef", "resourceFieldRef"} & set(variable.get("valueFrom", {})):
            yield "must not set the field(s)", "env.valueFrom"
    yield from ((mistake, "ports") for mistake in _port_mistakes(container.get("ports", ())))
    probe = container.get("readinessProbe", {})
    for field in ("failureThreshold", "timeoutSeconds"):
        if probe.get(field) and not probe.get("periodSeconds"):
            yield f"{field} is disallowed when periodSeconds is zero", "readinessProbe"
    security = container.get("securityContext", {})
    if security.get("privileged") or "add" in security.get("capabilities", {}) or "seLinuxOptions" in security:
        yield "must not set the field(s)", "securityContext"
    yield from _mount_mistakes(container.get("volumeMounts", ()), volumes)


def _mount_mistakes(mounts: Sequence[Mapping[str, Any]], volumes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for mount in mounts:
        if mount["name"] not in volumes:
            yield "volumeMount has no matching volume", "volumeMounts.name"
        if mount["mountPath"].rstrip("/") in ("", "/dev", "/dev/log"):
            yield f'mountPath "{mount["mountPath"]}" is a reserved path', "volumeMounts.mountPath"


def _port_mistakes(ports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(ports) > 1:
        yield "more than one container port is set"
    for port in ports:
        if port["containerPort"] in _RESERVED_PORTS:
            yield f"invalid value: {port['containerPort']} is a reserved port"
        if port.get("name", "") not in ("", "h2c", "http1"):
            yield f"Port name {port['name']} is not allowed"
        if {"hostPort", "hostIP"} & set(port):
            yield "must not set the field(s)"


def _annotation_mistakes(notes: Mapping[str, str], autoscaler: Mapping[str, str]) -> Iterator[str]:
    at = "spec.template.metadata.annotations.autoscaling.knative.dev/"
    values = {
        key.rpartition("/")[2]: value for key, value in notes.items() if key.startswith("autoscaling.knative.dev/")
    }
    for name, value in values.items():
        rule = _RULES.get(name)
        if rule is not None and not rule(value):
            yield f"invalid value: {value}: {at}{name}"
            return
    yield from (f"{mistake}: {at}{name}" for mistake, name in _scale_mistakes(values))
    if values.get("initial-scale") == "0" and autoscaler.get("allow-zero-initial-scale", "false") != "true":
        yield f"invalid value: 0: {at}initial-scale=0 not allowed by cluster"
    kpa = values.get("class", "kpa.autoscaling.knative.dev") == "kpa.autoscaling.knative.dev"
    if kpa and values.get("metric", "rps") not in ("concurrency", "rps"):
        yield f"invalid value: {values['metric']}: {at}metric"
    deadline = notes.get("serving.knative.dev/progress-deadline")
    if deadline is not None and (seconds(deadline) is None or seconds(deadline, whole=True) is None):
        yield f"invalid value: {deadline}: spec.template.metadata.annotations.serving.knative.dev/progress-deadline"


def _scale_mistakes(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    least, most = int(values.get("min-scale", "0")), int(values.get("max-scale", "0"))
    if most and most < least:
        yield f"max-scale={most} is less than min-scale={least}", "max-scale"
    if "activation-scale" in values:
        activation = int(values["activation-scale"])
        if least > activation:
            yield f"min-scale={least} is greater than activation-scale={activation}", "activation-scale"
        elif 0 < most < activation:
            yield f"max-scale={most} is less than activation-scale={activation}", "activation-scale"
        elif activation < 2:
            yield f"activation-scale={activation} must be greater than 1", "activation-scale"


def seconds(text: str, *, whole: bool = False) -> float | None:
    """A Go duration in seconds; None when it is not one, or not in whole seconds where that is asked for."""
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        return 0.0 if text == "0" else None
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return None if whole and total != int(total) else total


def _on(features: Mapping[str, str], flag: str, *, default: bool = False) -> bool:
    value = features.get(f"kubernetes.{flag}")
    return default if value is None else value.lower() in ("enabled", "allowed")


def _number(low: float, high: float, kind: Callable[[str], float] = float) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            return low <= kind(text) <= high
        except ValueError:
            return False

    return fits


def _duration(low: float, *, whole: bool = True) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        length = seconds(text, whole=whole)
        return length is not None and low <= length <= _HOUR

    return fits


_COUNT = _number(0, 2**31 - 1, int)
_RULES: dict[str, Callable[[str], bool]] = {
    "class": lambda text: not text.endswith("autoscaling.knative.dev") or text.split(".")[0] in ("kpa", "hpa"),
    "min-scale": _COUNT,
    "max-scale": _COUNT,
    "initial-scale": _COUNT,
    "activation-scale": _COUNT,
    "target": _number(0.01, float("inf")),
    "target-utilization-percentage": _number(1, 100),
    "target-burst-capacity": lambda text: _number(0, float("inf"))(text) or text == "-1",
    "panic-window-percentage": _number(1, 100),
    "panic-threshold-percentage": _number(110, 1000),
    "window": _duration(6),
    "scale-down-delay": _duration(0),
    "scale-to-zero-pod-retention-period": _duration(0, whole=False),
    "metric-aggregation-algorithm": lambda text: text in ("linear", "weighted-exponential", "weightedExponential"),
}
