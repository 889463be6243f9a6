"""What the API server itself fills in and refuses: namespaces, limit ranges, quotas, Pod Security, defaults of its kinds."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import kind
from fake_kubernetes.quantities import of_pod, quantity, spell
from fake_kubernetes.registry import Write
from fake_kubernetes.store import Key, Object, Store

_ENFORCE = "pod-security.kubernetes.io/enforce"
_POD_DEFAULTS: dict[str, Any] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "default",
    "schedulerName": "default-scheduler",
    "enableServiceLinks": True,
    "securityContext": {},
}
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def namespace_lifecycle(store: Store, write: Write) -> None:
    """Nothing is created in a namespace that is not there, or that is on its way out."""
    key = write.key
    if not key.kind.namespaced or write.old is not None:
        return
    namespace = store.get(Key(kind("Namespace"), "", key.namespace))
    if namespace is None:
        raise Refused(
            404, f'namespaces "{key.namespace}" not found', details={"name": key.namespace, "kind": "namespaces"}
        )
    if "deletionTimestamp" in namespace["metadata"]:
        raise _forbidden(
            key,
            f"unable to create new content in namespace {key.namespace} because it is being terminated",
            details={"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
        )


def defaults(store: Store, write: Write) -> None:
    """The defaults that a reader may meet; what Kubernetes' own kinds get beyond these is left out."""
    new, spec = write.new, write.new.get("spec", {})
    match write.key.kind.kind:
        case "Namespace":
            new.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            new.setdefault("status", {}).setdefault("phase", "Active")
            new["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = write.key.name
        case "Secret":
            new.setdefault("type", "Opaque")
        case "NetworkPolicy":
            sides = ["Ingress"] + (["Egress"] if "egress" in spec else [])
            spec.setdefault("policyTypes", sides)
            spec.setdefault("podSelector", {})
        case "LimitRange":
            for item in spec.get("limits", ()):
                if item["type"] == "Container":
                    item["default"] = {**item.get("max", {}), **item.get("default", {})}
                    wanted = {**item.get("min", {}), **item["default"], **item.get("defaultRequest", {})}
                    item["defaultRequest"] = wanted
        case "Pod" if write.old is None:
            for name, value in _POD_DEFAULTS.items():
                spec.setdefault(name, value)
            for container in spec.get("containers", ()):
                container.setdefault("imagePullPolicy", "IfNotPresent")
                container.setdefault("resources", {})
            new.setdefault("status", {"phase": "Pending", "qosClass": "Burstable"})


def pods_keep_their_spec(store: Store, write: Write) -> None:
    if write.key.kind.kind != "Pod" or write.old is None:
        return
    free = ("nodeName", "tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
    if any(
        write.old["spec"].get(n) != write.new["spec"].get(n) for n in {*write.old["spec"], *write.new["spec"]} - {*free}
    ):
        raise Refused(
            422,
            f'Pod "{write.key.name}" is invalid: spec: Forbidden: pod updates may not change fields other than '
            "`spec.containers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations`",
        )


def limit_ranges(store: Store, write: Write) -> None:
    """Containers of new pods get the defaults of the namespace, and must lie between its bounds."""
    if write.key.kind.kind != "Pod" or write.old is not None:
        return
    for limit_range in store.select(kind("LimitRange"), write.key.namespace):
        for item in limit_range["spec"]["limits"]:
            for container in write.new["spec"]["containers"] if item["type"] == "Container" else ():
                _limit(write.key, container["resources"], item)


def _limit(key: Key, resources: dict[str, dict[str, str]], item: dict[str, dict[str, str]]) -> None:
    explicit = dict(resources.get("limits", {}))
    limits = {**item.get("default", {}), **explicit}
    # A request that is not given follows an explicit limit before it follows the default.
    requests = {**item.get("defaultRequest", {}), **explicit, **resources.get("requests", {})}
    resources.update({"limits": limits, "requests": requests})
    for name, most in item.get("max", {}).items():
        if quantity(limits.get(name, most)) > quantity(most):
            raise _forbidden(key, f"maximum {name} usage per Container is {most}, but limit is {limits[name]}")
    for name, least in item.get("min", {}).items():
        if quantity(requests.get(name, least)) < quantity(least):
            raise _forbidden(key, f"minimum {name} usage per Container is {least}, but request is {requests[name]}")


def quotas(store: Store, write: Write) -> None:
    """New pods must fit into every quota of their namespace, and say how much they want of what a quota bounds."""
    if write.key.kind.kind != "Pod" or write.old is not None:
        return
    asked = of_pod(write.new)
    for quota in store.select(kind("ResourceQuota"), write.key.namespace):
        hard = {name: quantity(amount) for name, amount in quota["spec"].get("hard", {}).items()}
        unsaid = sorted(n for n in hard if n.partition(".")[2] in ("cpu", "memory") and not _says(write.new, n))
        name = quota["metadata"]["name"]
        if unsaid:
            containers = ",".join(container["name"] for container in write.new["spec"]["containers"])
            raise _forbidden(
                write.key, f"failed quota: {name}: must specify " + "; ".join(f"{n} for: {containers}" for n in unsaid)
            )
        used = usage(store, write.key.namespace)
        over = sorted(n for n, most in hard.items() if n in asked and used.get(n, Decimal(0)) + asked[n] > most)
        if over:
            raise _forbidden(
                write.key,
                f"exceeded quota: {name}, requested: {_amounts(over, asked)}, used: {_amounts(over, used)}, "
                f"limited: {_amounts(over, hard)}",
            )


def usage(store: Store, namespace: str) -> dict[str, Decimal]:
    """What the pods of a namespace count for; those that ended do not."""
    total: dict[str, Decimal] = {}
    for pod in store.select(kind("Pod"), namespace):
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            for name, amount in of_pod(pod).items():
                total[name] = total.get(name, Decimal(0)) + amount
    return total


def pod_security(store: Store, write: Write) -> None:
    """The `restricted` profile, where the namespace enforces it."""
    if write.key.kind.kind != "Pod" or write.old is not None:
        return
    labels = store.must_get(Key(kind("Namespace"), "", write.key.namespace))["metadata"].get("labels", {})
    violations = list(_violations(write.new["spec"])) if labels.get(_ENFORCE) == "restricted" else []
    if violations:
        version = labels.get(_ENFORCE + "-version", "latest")
        raise _forbidden(write.key, f'violates PodSecurity "restricted:{version}": ' + ", ".join(violations))


def _violations(spec: Object) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"host namespaces ({name}=true)"
    for volume in spec.get("volumes", ()):
        if not _VOLUMES & set(volume):
            yield f'restricted volume types (volume "{volume["name"]}")'
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        where = f'container "{container["name"]}" must set securityContext'
        own = container.get("securityContext", {})
        for wrong, should in _container_violations(own, {**spec.get("securityContext", {}), **own}):
            yield f"{wrong} ({where}.{should})"


def _container_violations(own: Object, effective: Object) -> Iterator[tuple[str, str]]:
    """What is wrong and what it should be; some fields may be set on the pod as well."""
    if own.get("privileged"):
        yield "privileged", "privileged=false"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation != false", "allowPrivilegeEscalation=false"
    if "ALL" not in own.get("capabilities", {}).get("drop", ()):
        yield "unrestricted capabilities", 'capabilities.drop=["ALL"]'
    if not effective.get("runAsNonRoot"):
        yield "runAsNonRoot != true", "runAsNonRoot=true"
    if effective.get("runAsUser") == 0:
        yield "runAsUser=0", "runAsUser"
    if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile", 'seccompProfile.type to "RuntimeDefault" or "Localhost"'


def _says(pod: Object, counted: str) -> bool:
    side, _, name = counted.partition(".")
    return all(name in container.get("resources", {}).get(side, {}) for container in pod["spec"]["containers"])


def _amounts(names: list[str], amounts: dict[str, Decimal]) -> str:
    return ",".join(f"{name}={spell(amounts.get(name, Decimal(0)))}" for name in names)


def _forbidden(key: Key, message: str, details: dict[str, Any] | None = None) -> Refused:
    text = f'{key.kind.resource} "{key.name}" is forbidden: {message}'
    return Refused(403, text, details={"name": key.name, "kind": key.kind.plural, **(details or {})})


BUILT_IN = (namespace_lifecycle, defaults, pods_keep_their_spec, limit_ranges, pod_security, quotas)
