"""Knative's controllers of Services, Configurations and Routes: what they make, and what they say about it."""

from collections.abc import Callable
from typing import Any

from fake_knative.conditions import TRUE, Condition, condition_of, false, living_set, unknown, written
from fake_kubernetes import FakeKubernetes, Refused

Object = dict[str, Any]
SERVING = "serving.knative.dev"
SERVICE, CONFIGURATION = f"Service.{SERVING}", f"Configuration.{SERVING}"
REVISION, ROUTE = f"Revision.{SERVING}", f"Route.{SERVING}"
_SERVICE_LABEL, _CONFIGURATION_LABEL = f"{SERVING}/service", f"{SERVING}/configuration"
_STATE_LABEL = f"{SERVING}/routingState"
_GENERATION_LABEL = f"{SERVING}/configurationGeneration"
Program = Callable[[Object, list[Object]], None]
"""Makes the ingress send a route's traffic as these targets say."""


def reconcile_service(api: FakeKubernetes, service: Object, program: Program) -> None:
    """The whole chain of one Service; a chain of real controllers gets there in the same steps."""
    if "deletionTimestamp" in service["metadata"]:
        return
    _make(api, _configuration_of(service))
    configuration = _reconcile_configuration(api, service)
    if _name_taken(api, configuration):
        routes = false(
            "RevisionNameTaken",
            f'The revision name "{configuration["spec"]["template"]["metadata"]["name"]}" is taken by a conflicting Revision, '
            "so traffic will not be migrated",
        )
        _say(api, service, configuration, None, routes)
        return
    _make(api, _route_of(service))
    route = _reconcile_route(api, service, program)
    routes = condition_of(route, "Ready")
    if routes.status == "True" and _targets(route["spec"]) != _targets(route["status"]):
        routes = unknown("TrafficNotMigrated", "Traffic is not yet migrated to the latest revision.")
    _say(api, service, configuration, route, routes)


def hosts_of(service: Object, tag: str) -> list[str]:
    """Every name by which the cluster-local ingress knows a tag of a service; the tag may be empty."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    short = f"{tag}-{name}" if tag else name
    return [f"{short}.{namespace}.svc.cluster.local", f"{short}.{namespace}.svc", f"{short}.{namespace}"]


def _configuration_of(service: Object) -> Object:
    meta = service["metadata"]
    labels = {**meta.get("labels", {}), _SERVICE_LABEL: meta["name"], f"{SERVING}/serviceUID": meta["uid"]}
    notes = {k: v for k, v in meta.get("annotations", {}).items() if k != f"{SERVING}/rolloutDuration"}
    notes[f"{SERVING}/routes"] = meta["name"]
    return _owned(service, "Configuration", labels, notes, {"template": service["spec"]["template"]})


def _route_of(service: Object) -> Object:
    meta = service["metadata"]
    targets = [
        target if target.get("revisionName") else {**target, "configurationName": meta["name"]}
        for target in service["spec"]["traffic"]
    ]
    labels = {**meta.get("labels", {}), _SERVICE_LABEL: meta["name"]}
    return _owned(service, "Route", labels, dict(meta.get("annotations", {})), {"traffic": targets})


def _owned(service: Object, kind: str, labels: Object, notes: Object, spec: Object) -> Object:
    meta = service["metadata"]
    owner = {"apiVersion": service["apiVersion"], "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": service["apiVersion"],
        "kind": kind,
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": notes,
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": spec,
    }


def _make(api: FakeKubernetes, wish: Object) -> None:
    """Create it, or put right what differs."""
    meta, kind = wish["metadata"], f"{wish['kind']}.{SERVING}"
    found = api.get(kind, meta["name"], meta["namespace"])
    if found is None:
        api.create(wish)
        return

    def change(thing: Object) -> None:
        thing["spec"] = wish["spec"]
        thing["metadata"]["labels"], thing["metadata"]["annotations"] = meta["labels"], meta["annotations"]

    if any(found["metadata"].get(f, {}) != meta[f] for f in ("labels", "annotations")) or found["spec"] != wish["spec"]:
        api.edit(kind, meta["name"], meta["namespace"], change, manager="controller")


def _reconcile_configuration(api: FakeKubernetes, service: Object) -> Object:
    meta = service["metadata"]
    configuration = api.get(CONFIGURATION, meta["name"], meta["namespace"])
    assert configuration is not None
    status: Object = {k: v for k, v in configuration.get("status", {}).items() if k.startswith("latest")}
    latest, ready = _latest_revision(api, configuration)
    if latest is not None:
        name = latest["metadata"]["name"]
        status["latestCreatedRevisionName"] = name
        of_revision = condition_of(latest, "Ready")
        ready = unknown("") if status.get("latestReadyRevisionName") != name else TRUE
        if of_revision.status == "True":
            status["latestReadyRevisionName"], ready = name, TRUE
        elif of_revision.status == "False":
            ready = false("RevisionFailed", f'Revision "{name}" failed with message: {of_revision.message}.')
    status["observedGeneration"] = configuration["metadata"]["generation"]
    status["conditions"] = written({"Ready": ready}, configuration.get("status", {}))
    return api.set_status(CONFIGURATION, meta["name"], meta["namespace"], status)


def _latest_revision(api: FakeKubernetes, configuration: Object) -> tuple[Object | None, Condition]:
    """The revision of the configuration's generation, made if need be; else why there is none."""
    meta, template = configuration["metadata"], configuration["spec"]["template"]
    name = template.get("metadata", {}).get("name") or f"{meta['name']}-{meta['generation']:05d}"
    found = api.get(REVISION, name, meta["namespace"])
    if _name_taken(api, configuration):
        message = f'Revision creation failed with message: revisions.{SERVING} "{name}" already exists.'
        return None, false("RevisionFailed", message)
    if found is not None:
        return found, TRUE
    labels = {**template.get("metadata", {}).get("labels", {}), _STATE_LABEL: "pending"}
    labels |= {key: meta["labels"][key] for key in (_SERVICE_LABEL, f"{SERVING}/serviceUID")}
    labels |= {_CONFIGURATION_LABEL: meta["name"], _GENERATION_LABEL: str(meta["generation"])}
    labels[f"{SERVING}/configurationUID"] = meta["uid"]
    owner = {
        "apiVersion": configuration["apiVersion"],
        "kind": "Configuration",
        "name": meta["name"],
        "uid": meta["uid"],
    }
    revision = {
        "apiVersion": configuration["apiVersion"],
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": dict(template.get("metadata", {}).get("annotations", {})),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"],
    }
    try:
        return api.create(revision), TRUE
    except Refused as refused:
        return None, false("RevisionFailed", f"Revision creation failed with message: {refused.message}.")


def _name_taken(api: FakeKubernetes, configuration: Object) -> bool:
    """Whether the template's own name belongs to a revision of another owner, or of another template."""
    meta, template = configuration["metadata"], configuration["spec"]["template"]
    name = template.get("metadata", {}).get("name")
    found = api.get(REVISION, name, meta["namespace"]) if name else None
    if found is None:
        return False
    ours = any(owner["uid"] == meta["uid"] for owner in found["metadata"].get("ownerReferences", ()))
    same = (
        found["metadata"]["labels"].get(_GENERATION_LABEL) == str(meta["generation"])
        or found["spec"] == template["spec"]
    )
    return not (ours and same)


def _reconcile_route(api: FakeKubernetes, service: Object, program: Program) -> Object:
    """Traffic moves when every target is ready, and not before: until then the old routes stay."""
    meta = service["metadata"]
    route = api.get(ROUTE, meta["name"], meta["namespace"])
    assert route is not None
    status: Object = {k: v for k, v in route.get("status", {}).items() if k in ("traffic", "url", "address")}
    assigned, targets = _assigned(api, service, route)
    if assigned.status == "True":
        status["traffic"] = targets
        status["address"] = {"url": f"http://{hosts_of(service, '')[0]}"}
        program(service, targets)
    status["url"] = f"http://{hosts_of(service, '')[0]}"
    parts = {"AllTrafficAssigned": assigned, "CertificateProvisioned": Condition("True", "TLSNotEnabled")}
    ingress = (
        TRUE if assigned.status == "True" else unknown("IngressNotConfigured", "Ingress has not yet been reconciled.")
    )
    status["observedGeneration"] = route["metadata"]["generation"]
    conditions = living_set({**parts, "IngressReady": ingress})
    status["conditions"] = written(conditions, route.get("status", {}))
    _label_revisions(api, route, status.get("traffic", []))
    return api.set_status(ROUTE, meta["name"], meta["namespace"], status)


def _assigned(api: FakeKubernetes, service: Object, route: Object) -> tuple[Condition, list[Object]]:
    targets: list[Object] = []
    deferred: Condition | None = None
    for target in route["spec"]["traffic"]:
        resolved, trouble = _resolve(api, service, target)
        if trouble is not None and (deferred is None or trouble.status == "False"):
            deferred = trouble
        if len(f"{target.get('tag', '')}-{service['metadata']['name']}") > 63:
            deferred = false("ErrorConfig", "Invalid domain name: the label must be no more than 63 characters")
        entry = {k: v for k, v in target.items() if k in ("tag", "percent", "latestRevision")} | {
            "revisionName": resolved
        }
        if target.get("tag"):
            entry["url"] = f"http://{hosts_of(service, target['tag'])[0]}"
        targets.append(entry)
    return (deferred, []) if deferred is not None else (TRUE, targets)


def _resolve(api: FakeKubernetes, service: Object, target: Object) -> tuple[str, Condition | None]:
    """The revision that a target means, and what keeps it from being one."""
    name, namespace = target.get("revisionName"), service["metadata"]["namespace"]
    if not name:
        configuration = api.get(CONFIGURATION, service["metadata"]["name"], namespace)
        assert configuration is not None
        name = configuration["status"].get("latestReadyRevisionName")
        if not name:
            return "", _nothing_ready(configuration)
    revision = api.get(REVISION, name, namespace)
    if revision is None or "deletionTimestamp" in revision["metadata"]:
        return name, false("RevisionMissing", f'Revision "{name}" referenced in traffic not found.')
    owner = revision["metadata"]["labels"].get(_SERVICE_LABEL, "")
    if owner != service["metadata"]["name"]:
        where = f'Revision "{name}" belongs to Service "{owner}", not Service "{service["metadata"]["name"]}".'
        return name, false("RevisionNotOwned", where)
    ready = condition_of(revision, "Ready").status
    if ready == "False":
        return name, false("RevisionMissing", f'Revision "{name}" failed to become ready.')
    return name, None if ready == "True" else unknown("RevisionMissing", f'Revision "{name}" is not yet ready.')


def _nothing_ready(configuration: Object) -> Condition:
    where = f'Configuration "{configuration["metadata"]["name"]}"'
    if condition_of(configuration, "Ready").status == "False":
        return false("RevisionMissing", f"{where} does not have any ready Revision.")
    return unknown("RevisionMissing", f"{where} is waiting for a Revision to become ready.")


def _label_revisions(api: FakeKubernetes, route: Object, serving: list[Object]) -> None:
    """`active` is what a route names or serves, `reserve` what it does not; autoscaling goes by it."""
    meta = route["metadata"]
    names = {t.get("revisionName") for t in (*route["spec"]["traffic"], *serving)}
    for revision in api.objects(REVISION, meta["namespace"]):
        labels = revision["metadata"]["labels"]
        if labels.get(_SERVICE_LABEL) != meta["labels"][_SERVICE_LABEL]:
            continue
        state = "active" if revision["metadata"]["name"] in names else "reserve"
        fresh = labels.get(_STATE_LABEL) == "pending" and condition_of(revision, "Ready").status == "Unknown"
        if labels.get(_STATE_LABEL) != state and not (state == "reserve" and fresh):

            def change(thing: Object, state: str = state) -> None:
                thing["metadata"]["labels"][_STATE_LABEL] = state

            api.edit(REVISION, revision["metadata"]["name"], meta["namespace"], change, manager="controller")


def _targets(of: Object) -> list[tuple[Any, ...]]:
    return [(t.get("tag"), t.get("percent")) for t in of.get("traffic", ())]


def _say(api: FakeKubernetes, service: Object, configuration: Object, route: Object | None, routes: Condition) -> None:
    status: Object = {k: v for k, v in configuration["status"].items() if k.startswith("latest")}
    old = service.get("status", {})
    source = route["status"] if route is not None else old
    status |= {key: source[key] for key in ("traffic", "url", "address") if key in source}
    status["observedGeneration"] = service["metadata"]["generation"]
    parts = {"ConfigurationsReady": condition_of(configuration, "Ready"), "RoutesReady": routes}
    status["conditions"] = written(living_set(parts), old)
    api.set_status(SERVICE, service["metadata"]["name"], service["metadata"]["namespace"], status)
