"""What the status API says of a model, as the record keeps it, and what is worth telling of the change. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roost_loadtest.record import Replicas

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PodAutoscaler:
    """What Knative's own objects say of one revision; `revision` is Roost's name of it, as a label holds it."""

    revision: str
    wanted: int | None
    ready: int | None
    starting: int | None


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """How often each revision has come up from zero: counters of the gateway that answers, which start anew with it."""

    counted: dict[str, int] = field(default_factory=dict)

    def since(self, before: "ColdStarts") -> int:
        return sum(max(0, count - before.counted.get(name, 0)) for name, count in self.counted.items())

    def and_before(self, before: "ColdStarts") -> "ColdStarts":
        """The larger of both, so that the sum never runs back: of several gateways, another may answer each time."""
        names = self.counted.keys() | before.counted.keys()
        return ColdStarts({name: max(self.counted.get(name, 0), before.counted.get(name, 0)) for name in names})


def serving_of(status: Document) -> tuple[str, ...]:
    return tuple(sorted(share["revision"] for share in status["traffic"] if share["percent"] > 0))


def cold_starts_of(status: Document, version: int | None) -> ColdStarts:
    return ColdStarts(
        {
            revision["name"]: int(revision["load"]["cold_starts"])
            for revision in _asked(status, version)
            if revision.get("load")
        }
    )


def replicas_of(
    status: Document,
    version: int | None,
    *,
    cold_starts: int | None,
    autoscalers: Sequence[PodAutoscaler] = (),
) -> Replicas:
    """Of the version asked for, else of the revisions with traffic; `others` are all the rest.

    What Knative's own objects say goes before what the gateway says of them.
    """
    told = {scaler.revision: scaler for scaler in autoscalers}
    asked = _asked(status, version)
    serving = serving_of(status)
    names = {r["name"] for r in asked} if version is not None else set(serving) or {r["name"] for r in asked}
    ours = [_merged(r, told.get(r["name"])) for r in status["revisions"] if r["name"] in names]
    rest = [_merged(r, told.get(r["name"])) for r in status["revisions"] if r["name"] not in names]
    loads = [each["load"] for each in ours if each["load"]]
    return Replicas(
        wanted=_sum(each["wanted"] for each in ours),
        ready=_sum(each["ready"] for each in ours),
        queued=_sum(load["queued"] for load in loads),
        in_flight=_sum(load["in_flight"] for load in loads),
        panic=_any(load["panicking"] for load in loads),
        cold_starts=cold_starts,
        starting=_sum(each["starting"] for each in ours),
        others=sum((each["ready"] or 0) + (each["starting"] or 0) for each in rest),
        stable=_total(load["average_stable"] for load in loads),
        burst=_total(load["average_panic"] for load in loads),
        serving=",".join(serving),
    )


def _asked(status: Document, version: int | None) -> list[Document]:
    return [each for each in status["revisions"] if version is None or each["version"] == version]


def _merged(revision: Document, scaler: PodAutoscaler | None) -> dict[str, Any]:
    load = revision.get("load")
    found = {
        "load": load,
        "wanted": revision["replicas_wanted"],
        "ready": revision["replicas_ready"],
        "starting": load["replicas_starting"] if load else None,
    }
    if scaler is not None:
        own = {"wanted": scaler.wanted, "ready": scaler.ready, "starting": scaler.starting}
        found |= {name: value for name, value in own.items() if value is not None}
    return found


def _known(values: Iterator[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _sum(values: Iterator[int | None]) -> int | None:
    known = _known(values)
    return sum(known) if known else None


def _total(values: Iterator[float | None]) -> float | None:
    known = _known(values)
    return round(sum(known), 6) if known else None


def _any(values: Iterator[bool | None]) -> bool | None:
    known = _known(values)
    return any(known) if known else None


_QUIET: Document = {"panicking": False, "cold_starts": 1}
"""What a revision is taken for before it was seen: its first start woke nobody."""


def changes(target: str, before: Document, now: Document) -> Iterator[str]:
    """What a person who watched would have noticed, in words."""
    if serving_of(before) != serving_of(now):
        versions = ", ".join(f"version {share['version']} {share['percent']} %" for share in now["traffic"])
        yield f"{target}: traffic goes to {versions or 'nothing'}"
    known = {revision["name"]: revision for revision in before["revisions"]}
    for revision in now["revisions"]:
        version = f"{target}: version {revision['version']}"
        old = known.get(revision["name"])
        if old is None:
            yield f"{version} is being deployed"
        state, reason = revision["state"], revision["reason"]
        if state != (old["state"] if old is not None else "deploying"):
            yield f"{version} is {state}" + (f" ({reason})" if reason else "")
        yield from _load_changes(version, _QUIET if old is None else old.get("load"), revision.get("load"))
    if (was := before["scaling"]) != (policy := now["scaling"]):
        options = ", ".join(
            f"{name} {was.get(name)} → {value}" for name, value in policy.items() if was.get(name) != value
        )
        yield f"{target}: scaling changed: {options}"


def _load_changes(version: str, before: Document | None, now: Document | None) -> Iterator[str]:
    if before is None or now is None:
        return
    if before["panicking"] is not None and before["panicking"] != now["panicking"]:
        yield f"{version} {'begins' if now['panicking'] else 'ceases'} to panic"
    if now["cold_starts"] > before["cold_starts"]:
        yield f"{version} woke from zero"
