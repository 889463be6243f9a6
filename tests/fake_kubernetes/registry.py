"""Writes as the API server does them: what one may change, who owns it then, admission, generation, finalizers.

decode ─▶ identity and subresource ─▶ book of owners ─▶ admission ─▶ schema ─▶ generation ─▶ stored, if it differs
"""

import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.names import check_metadata
from fake_kubernetes.ownership import Book, Manager, after_update, applied, write_book
from fake_kubernetes.schemas import check, copied, prune, without_nulls
from fake_kubernetes.store import Key, Object, Store

_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass
class Write:
    """One write on its way: admission may change `new`, or raise Refused."""

    key: Key
    old: Object | None
    new: Object
    subresource: str = ""
    dry_run: bool = False
    strict: bool = False
    warnings: list[str] = field(default_factory=list)


Admission = Callable[[Store, Write], None]


class Registry:
    def __init__(self, store: Store, admissions: Sequence[Admission]) -> None:
        self._store = store
        self._admissions = admissions

    def create(self, write: Write, manager: str) -> Object:
        """`write.key.name` may be empty when there is a generateName."""
        new = self._decoded(write)
        meta = new["metadata"]
        if not write.key.name and meta.get("generateName"):
            meta["name"] = meta["generateName"] + secrets.token_hex(3)[:5]
            write.key = write.key._replace(name=meta["name"])
        if meta.get("resourceVersion"):
            raise Refused(500, "resourceVersion should not be set on objects to be created")
        if self._store.get(write.key) is not None:
            raise Refused(
                409,
                f'{write.key.kind.resource} "{write.key.name}" already exists',
                reason="AlreadyExists",
                details={"name": write.key.name, "kind": write.key.kind.plural},
            )
        _birth(write)
        return self._commit(write, after_update(None, new, write.key.kind.schema, Manager(manager, "Update")))

    def update(self, write: Write, manager: str) -> Object:
        """`write.new` in place of the old object, as far as the (sub)resource goes. Raises Refused 409 when it is of
        another resourceVersion; the version may be left out of objects that are not custom.
        """
        write.old = old = self._store.must_get(write.key)
        new = self._decoded(write)
        version = new["metadata"].get("resourceVersion", "")
        if not version and write.key.kind.custom:
            raise _invalid(write.key, ["metadata.resourceVersion: Invalid value: 0: must be specified for an update"])
        _check_version(write.key, old, version)
        if new["metadata"].get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise Refused(409, f"Precondition failed: UID in precondition: {new['metadata']['uid']}")
        _keep_identity(write)
        book = after_update(old, new, write.key.kind.schema, Manager(manager, "Update", write.subresource))
        return self._commit(write, book)

    def apply(self, write: Write, manager: str, *, force: bool) -> Object:
        """Server-side apply of `write.new`; creates what is not there."""
        wish = self._decoded(write)
        if "managedFields" in wish["metadata"]:
            raise Refused(400, "metadata.managedFields must be nil")
        who = Manager(manager, "Apply", write.subresource)
        old = self._store.get(write.key)
        if old is None:
            if write.subresource:
                self._store.must_get(write.key)
            if wish["metadata"].get("uid"):
                raise Refused(
                    409, "uid mismatch: the provided object specified a uid, and no existing object was found"
                )
            begin = {"apiVersion": wish["apiVersion"], "kind": wish["kind"], "metadata": {}}
            _, book = applied(begin, wish, write.key.kind.schema, who, force=force)
            _birth(write)
            return self._commit(write, book)
        write.old = old
        _check_version(write.key, old, wish["metadata"].pop("resourceVersion", ""))
        write.new, book = applied(old, wish, write.key.kind.schema, who, force=force)
        _keep_identity(write)
        return self._commit(write, book)

    def _decoded(self, write: Write) -> Object:
        """What arrived, without nulls and without what the schema does not know."""
        kind = write.key.kind
        write.new = new = without_nulls(copied(write.new))
        if not isinstance(new, dict) or new.get("kind") != kind.kind or new.get("apiVersion") != kind.api_version:
            raise Refused(400, f"the object provided is not a {kind.kind} of {kind.api_version}")
        meta = new.setdefault("metadata", {})
        if meta.get("name", write.key.name) != write.key.name:
            raise Refused(400, "the name of the object does not match the name on the URL")
        if meta.setdefault("namespace", write.key.namespace) != write.key.namespace:
            raise Refused(400, "the namespace of the provided object does not match the namespace sent on the request")
        if not kind.namespaced:
            del meta["namespace"]
        unknown = [f'unknown field "{name}"' for name in prune(kind.schema, new)]
        if unknown and write.strict:
            raise Refused(
                400,
                f"{kind.kind} in version {kind.version!r} cannot be handled: strict decoding error: "
                + ", ".join(unknown),
            )
        write.warnings += unknown
        mistyped = [f"{wrong.field}: {wrong.message}" for wrong in check(kind.schema, new) if not wrong.missing]
        if mistyped and kind.custom:
            raise _invalid(write.key, mistyped)
        if mistyped:
            raise Refused(400, f"{kind.kind} cannot be handled as a {kind.kind}: " + ", ".join(mistyped))
        return new

    def _commit(self, write: Write, book: Book) -> Object:
        key, old, new = write.key, write.old, write.new
        for admission in self._admissions:
            admission(self._store, write)
        wrong = [f"{wrong.field}: {wrong.message}" for wrong in check(key.kind.schema, new)]
        wrong = wrong or check_metadata(new["metadata"], key.kind)
        if wrong:
            raise _invalid(key, wrong)
        if old is not None and key.kind.counts_generations and not write.subresource and _spec(old) != _spec(new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        write_book(new, book, before=old, now=now())
        if old is not None:
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if new == old:
                return old
        if write.dry_run:
            new["metadata"].setdefault("resourceVersion", "0")
            return new
        stored = self._store.put(key, new)
        return self._store.remove(key) if _is_over(key, new["metadata"]) else stored


def now(*, after_s: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _birth(write: Write) -> None:
    meta = write.new["metadata"]
    meta["name"] = write.key.name
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generation"):
        meta.pop(name, None)
    if write.key.kind.counts_generations:
        meta["generation"] = 1
    if write.key.kind.has_status:
        write.new.pop("status", None)


def _keep_identity(write: Write) -> None:
    """What nobody changes by a write, and the other half of an object with a status subresource."""
    old, new = write.old, write.new
    assert old is not None
    if write.subresource == "status":
        status = new.get("status")
        write.new = new = copied(old)
        new.pop("status", None)
        if status is not None:
            new["status"] = status
        return
    for name in _KEPT:
        new["metadata"].pop(name, None)
        if name in old["metadata"]:
            new["metadata"][name] = old["metadata"][name]
    if write.key.kind.has_status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copied(old["status"])


def _is_over(key: Key, meta: Object) -> bool:
    """Whether this write took the last finalizer of an object that was deleted and waits for nothing else."""
    waits = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds") or key.kind.kind == "Namespace"
    return "deletionTimestamp" in meta and not waits


def _spec(thing: Object) -> dict[str, Any]:
    return {name: value for name, value in thing.items() if name not in ("metadata", "status")}


def _check_version(key: Key, old: Object, version: str) -> None:
    if version not in ("", old["metadata"]["resourceVersion"]):
        raise Refused(
            409,
            f'Operation cannot be fulfilled on {key.kind.resource} "{key.name}": the object has been modified; please '
            "apply your changes to the latest version and try again",
            details={"name": key.name, "kind": key.kind.plural},
        )


def _invalid(key: Key, wrong: Sequence[str]) -> Refused:
    resource = f"{key.kind.kind}.{key.kind.group}" if key.kind.group else key.kind.kind
    return Refused(422, f'{resource} "{key.name}" is invalid: ' + ", ".join(wrong))
