"""The store seen from inside: for controllers that run in the test, and for the test itself. No HTTP, no faults."""

from collections.abc import Callable
from typing import Any

from fake_kubernetes.deletion import collect, delete
from fake_kubernetes.kinds import kind
from fake_kubernetes.registry import Registry, Write
from fake_kubernetes.schemas import copied
from fake_kubernetes.store import Key, Object, Store


class Inside:
    """Kinds by name, `Service.serving.knative.dev` where a group is needed. Objects are given as copies."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._store.version

    def objects(self, name_of_kind: str, namespace: str = "") -> list[Object]:
        return copied(self._store.select(kind(name_of_kind), namespace))

    def get(self, name_of_kind: str, name: str, namespace: str = "") -> Object | None:
        return copied(self._store.get(Key(kind(name_of_kind), namespace, name)))

    def create(self, thing: Object, *, manager: str = "controller") -> Object:
        """Raises Refused, as a client would be."""
        meta = thing["metadata"]
        group = thing["apiVersion"].rpartition("/")[0]
        of = kind(f"{thing['kind']}.{group}" if group else thing["kind"])
        write = Write(Key(of, meta.get("namespace", ""), meta.get("name", "")), None, copied(thing))
        created = copied(self._registry.create(write, manager))
        self.settle()
        return created

    def edit(
        self,
        name_of_kind: str,
        name: str,
        namespace: str,
        change: Callable[[Object], Any],
        *,
        subresource: str = "",
        manager: str = "kubectl-edit",
    ) -> Object:
        """Change an object as somebody with kubectl would: `change` gets a copy and changes it in place."""
        key = Key(kind(name_of_kind), namespace, name)
        thing = copied(self._store.must_get(key))
        change(thing)
        edited = self._registry.update(Write(key, None, thing, subresource), manager)
        self.settle()
        return copied(edited)

    def set_status(self, name_of_kind: str, name: str, namespace: str, status: Object) -> Object:
        """Replace the status; nothing is written when it is the same."""

        stored = self._store.must_get(Key(kind(name_of_kind), namespace, name))
        if stored.get("status") == status:
            return copied(stored)

        def change(thing: Object) -> None:
            thing["status"] = status

        return self.edit(name_of_kind, name, namespace, change, subresource="status", manager="controller")

    def remove(self, name_of_kind: str, name: str, namespace: str = "", **options: Any) -> None:
        """Delete as a client would, and let the garbage collector run."""
        delete(self._store, Key(kind(name_of_kind), namespace, name), options)
        self.settle()

    def settle(self) -> None:
        """What the controllers of a cluster do on their own: collect garbage, give each namespace its account."""
        collect(self._store)
        for namespace in self._store.select(kind("Namespace")):
            name = namespace["metadata"]["name"]
            key = Key(kind("ServiceAccount"), name, "default")
            if "deletionTimestamp" not in namespace["metadata"] and self._store.get(key) is None:
                meta = {"name": "default", "namespace": name}
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
                self._registry.create(Write(key, None, account), "controller")
