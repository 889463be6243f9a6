"""Deleting: grace for pods, finalizers, propagation to dependents, the end of namespaces.

`collect` is the garbage collector and the namespace controller in one; the server runs it soon after every write.
"""

from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import kind
from fake_kubernetes.registry import now
from fake_kubernetes.schemas import copied
from fake_kubernetes.store import Key, Object, Store, dependents

_FOREGROUND = "foregroundDeletion"


def delete(store: Store, key: Key, options: dict[str, Any]) -> Object | None:
    """Begin to delete; the object while it lingers, None when it is gone."""
    thing = store.must_get(key)
    for name, wanted in options.get("preconditions", {}).items():
        if thing["metadata"][name] != wanted:
            raise Refused(409, f"Precondition failed: {name} in precondition: {wanted}")
    policy = options.get("propagationPolicy", "Background")
    if policy == "Orphan":
        for dependent, other in list(dependents(store, thing["metadata"]["uid"])):
            _disown(store, dependent, other, thing["metadata"]["uid"])
    grace = _grace(key, thing, options)
    finalizers = list(thing["metadata"].get("finalizers", ()))
    if policy == "Foreground" and _FOREGROUND not in finalizers:
        finalizers.append(_FOREGROUND)
    if not finalizers and grace == 0 and key.kind.kind != "Namespace":
        store.remove(key)
        return None
    marked = copied(thing)
    marked["metadata"].setdefault("deletionTimestamp", now(after_s=grace))  # when its time for finishing is over
    marked["metadata"]["deletionGracePeriodSeconds"] = grace
    if finalizers:
        marked["metadata"]["finalizers"] = finalizers
    if key.kind.kind == "Namespace":
        marked["status"] = {"phase": "Terminating"}
    return thing if marked == thing else store.put(key, marked)


def _grace(key: Key, thing: Object, options: dict[str, Any]) -> int:
    """Seconds that a pod on a node gets; what no kubelet runs goes at once."""
    if key.kind.kind != "Pod" or not thing["spec"].get("nodeName"):
        return 0
    asked = options.get("gracePeriodSeconds", thing["spec"].get("terminationGracePeriodSeconds", 30))
    return min(asked, thing["metadata"].get("deletionGracePeriodSeconds", asked))


def collect(store: Store) -> None:
    """Delete what has lost its owners or its namespace, until nothing changes any more."""
    while any([_collect_dependents(store), _collect_foreground(store), _collect_namespaces(store)]):
        pass


def _collect_dependents(store: Store) -> bool:
    alive = {store.must_get(key)["metadata"]["uid"] for key in store.all_keys()}
    lost = []
    for key in store.all_keys():
        meta = store.must_get(key)["metadata"]
        owners = meta.get("ownerReferences", ())
        if owners and not any(owner["uid"] in alive for owner in owners) and "deletionTimestamp" not in meta:
            lost.append(key)
    for key in lost:
        delete(store, key, {})
    return bool(lost)


def _collect_foreground(store: Store) -> bool:
    changed = False
    for key in store.all_keys():
        thing = store.get(key)
        if thing is None or _FOREGROUND not in thing["metadata"].get("finalizers", ()):
            continue
        waiting = list(dependents(store, thing["metadata"]["uid"]))
        for dependent, other in waiting:
            if "deletionTimestamp" not in other["metadata"]:
                delete(store, dependent, {"propagationPolicy": "Foreground"})
                changed = True
        if not waiting:
            finish = copied(thing)
            finish["metadata"]["finalizers"].remove(_FOREGROUND)
            if finish["metadata"]["finalizers"] or finish["metadata"].get("deletionGracePeriodSeconds"):
                store.put(key, finish)
            else:
                store.remove(key)
            changed = True
    return changed


def _collect_namespaces(store: Store) -> bool:
    changed = False
    for namespace in store.select(kind("Namespace")):
        if "deletionTimestamp" not in namespace["metadata"]:
            continue
        name = namespace["metadata"]["name"]
        inside = store.everything(name)
        for key in inside:
            if "deletionTimestamp" not in store.must_get(key)["metadata"]:
                delete(store, key, {})
                changed = True
        if not inside and not namespace["metadata"].get("finalizers"):
            store.remove(Key(kind("Namespace"), "", name))
            changed = True
    return changed


def _disown(store: Store, key: Key, thing: Object, uid: str) -> None:
    orphan = copied(thing)
    owners = [owner for owner in orphan["metadata"]["ownerReferences"] if owner["uid"] != uid]
    orphan["metadata"]["ownerReferences"] = owners
    store.put(key, orphan)
