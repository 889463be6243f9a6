"""Server-side apply and the book of owners (metadata.managedFields)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fake_kubernetes.errors import Refused
from fake_kubernetes.fields import Path, Paths, changed, decode, encode, merged, paths_of, remove
from fake_kubernetes.schemas import Schema, copied

Object = dict[str, Any]
_NOBODYS = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                *("name", "namespace", "generateName", "creationTimestamp", "uid", "resourceVersion", "generation"),
                *("managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"),
            )
        ),
    }
)


class Manager(NamedTuple):
    """Who writes; one name has a book of its own for applying, for updating, and for each subresource."""

    name: str
    operation: str
    subresource: str = ""


Book = dict[Manager, Paths]


def book_of(thing: Object) -> Book:
    return {
        Manager(entry["manager"], entry["operation"], entry.get("subresource", "")): frozenset(
            decode(entry["fieldsV1"])
        )
        for entry in thing["metadata"].get("managedFields", ())
    }


def write_book(thing: Object, book: Book, *, before: Object | None, now: str) -> None:
    """Entries that did not change keep their time."""
    times: dict[Manager, str] = {}
    if before is not None:
        old = book_of(before)
        for entry in before["metadata"].get("managedFields", ()):
            manager = Manager(entry["manager"], entry["operation"], entry.get("subresource", ""))
            if old[manager] == book.get(manager):
                times[manager] = entry["time"]
    thing["metadata"]["managedFields"] = [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": thing["apiVersion"],
            "time": times.get(manager, now),
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(paths),
        }
        | ({"subresource": manager.subresource} if manager.subresource else {})
        for manager, paths in book.items()
        if paths
    ]


def leaves(thing: Mapping[str, Any], schema: Schema, *, of_status: bool) -> Paths:
    """What a write of this object claims: all but its identity, and the status only where the status is written."""
    found = frozenset(paths_of(thing, schema)) - _NOBODYS
    if of_status:
        return frozenset(path for path in found if path[0] == "f:status")
    return frozenset(path for path in found if path[0] != "f:status")


def after_update(old: Object | None, new: Object, schema: Schema, manager: Manager) -> Book:
    """The book after a write that is not an apply: who changes a field owns it alone."""
    book = book_of(old) if old is not None else {}
    begin = old if old is not None else {"apiVersion": new["apiVersion"], "kind": new["kind"]}
    set_now, gone = changed(begin, new, schema)
    set_now -= _NOBODYS
    for other, paths in book.items():
        book[other] = paths - gone - set_now
    book[manager] = book.get(manager, frozenset()) - gone | set_now
    return book


def applied(live: Object, wish: Object, schema: Schema, manager: Manager, *, force: bool) -> tuple[Object, Book]:
    """Lay a wish over the live object: the object that results, and the book. Raises Refused 409 on conflicts."""
    book = book_of(live)
    claims = leaves(wish, schema, of_status=manager.subresource == "status")
    held = book.get(manager, frozenset())
    result = copied(merged(live, wish, schema))
    set_now, _ = changed(live, result, schema)
    conflicts = {
        other: paths & set_now & claims
        for other, paths in book.items()
        if other != manager and paths & set_now & claims
    }
    if conflicts and not force:
        raise _conflict(conflicts, live["apiVersion"])
    for other, paths in conflicts.items():
        book[other] -= paths
    book[manager] = claims
    _give_up(result, held - claims, book, schema)
    return result, book


def _give_up(result: Object, paths: Paths, book: Book, schema: Schema) -> None:
    """Remove what this manager no longer applies and nobody else owns, nor anything below it."""
    kept = [path for owned in book.values() for path in owned]
    for path in sorted(paths, key=len, reverse=True):
        if not any(other[: len(path)] == path for other in kept) and not _is_key(path, kept):
            remove(result, schema, path)


def _is_key(path: Path, kept: list[Path]) -> bool:
    """Whether a leaf is a key of a list item that somebody still owns: the item is nothing without it."""
    if len(path) < 2 or not path[-2].startswith("k:") or f'"{path[-1][2:]}":' not in path[-2]:
        return False
    return any(other[: len(path) - 1] == path[:-1] for other in kept)


def _conflict(conflicts: Mapping[Manager, Paths], api_version: str) -> Refused:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager.name}" using {api_version}',
            "field": "".join(f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]" for step in path),
        }
        for manager, paths in conflicts.items()
        for path in sorted(paths)
    ]
    text = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    return Refused(409, f"Apply failed with {count}: {text}", details={"causes": causes})
