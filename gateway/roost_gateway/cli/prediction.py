"""What Knative's autoscaler would have done with the load of a run: written into its record, beside what was done."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from roost_gateway.planning.records import latencies, mean_s
from roost_platform.autoscaling.simulate import Load, follow
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, ScalingPolicy

_NOTHING = Load(0.0, 0.0)
_SLICES = 10
"""Of a second, in which requests are taken to have come in equal parts."""


def predict_in(folder: Path) -> None:
    """Add the prediction to the record of a folder. Raises OSError and what `add_prediction` does."""
    file = folder / "record.json"
    file.write_text(json.dumps(add_prediction(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")


def add_prediction(record: dict[str, Any]) -> dict[str, Any]:
    """The record with `platform["prediction"][target] = [[second, replicas wanted], …]`, for each target whose policy it has.

    The decisions are those of the autoscaler itself, fed with the observed load: how many requests came in each second, and
    how many were in flight. Raises KeyError, TypeError or ValueError for what is not a record.
    """
    platform = record.get("platform", {})
    predicted = {}
    for target, options in platform.get("scaling", {}).items():
        policy = _policy(options)
        if policy is not None:
            seconds = list(_loads(record, target))
            predicted[target] = _predicted(policy, seconds, _serving(record, target))
    return record | {"platform": platform | {"prediction": predicted}}


def _policy(options: Mapping[str, Any]) -> ScalingPolicy | None:
    """None for one that this autoscaler does not decide by."""
    try:
        policy = ScalingPolicy.from_json(options)
    except InvalidRequest:
        return None
    return policy if policy.autoscaler is Autoscaler.KPA else None


def _predicted(policy: ScalingPolicy, seconds: list[tuple[int, Load]], serving: Mapping[int, str]) -> list[list[int]]:
    """Each revision has an autoscaler of its own: what gets the traffic begins as one that nobody asked for before."""
    curves = {}
    for name in set(serving.values()) or {""}:
        own = (load if serving.get(second, "") == name else _NOTHING for second, load in seconds)
        curves[name] = follow(own, policy=policy)
    return [[second, curves[serving.get(second, "")][at][0]] for at, (second, _) in enumerate(seconds)]


def _serving(record: Mapping[str, Any], target: str) -> dict[int, str]:
    """By second, the revisions that had the traffic; of those that nobody looked at, the ones before."""
    told = {
        each["second"]: (each["replicas"].get(target) or {}).get("serving", "")
        for each in chain(record["seconds"], record["after"])
    }
    now = next((name for name in told.values() if name), "")
    names = {}
    for second in range(max(told, default=-1) + 1):
        now = names[second] = told.get(second) or now
    return names


def _loads(record: Mapping[str, Any], target: str) -> Iterator[tuple[int, Load]]:
    """Each second of the run and after it, with the load of this target."""
    share = _shares(record, target)
    alone = all(target in _names(stream["target"]) for stream in record["plan"]["streams"])
    seconds = {each["second"]: each for each in chain(record["seconds"], record["after"])}
    busy = _busy(record["seconds"]) if alone else {}
    for second in range(max(seconds, default=-1) + 1):
        each = seconds.get(second, {})
        told = each.get("replicas", {}).get(target) or {}
        requests = each.get("sent", 0) * share.get(second, 0.0)
        if alone:
            in_flight = busy.get(second, 0.0)
        elif told.get("in_flight") is not None:
            in_flight = float(told["in_flight"])
        else:
            in_flight = each.get("in_flight", 0) * share.get(second, 0.0)
        yield second, Load(requests, in_flight if requests or in_flight > 0 else 0.0)


def _busy(seconds: list[dict[str, Any]]) -> dict[int, float]:
    """Mean requests in flight in each second, by the latencies of those that came in it and before."""
    busy: defaultdict[int, float] = defaultdict(float)
    for each in seconds:
        counts = latencies(each["latency"])
        mean, part = mean_s(counts), counts.total() / _SLICES
        for index in range(_SLICES if counts else 0):
            at = each["second"]
            start = at + (index + 0.5) / _SLICES
            while at < start + mean:
                busy[at] += part * (min(start + mean, at + 1) - max(start, at))
                at += 1
    return busy


def _shares(record: Mapping[str, Any], target: str) -> dict[int, float]:
    """The part of each second's requests that the plan has for this target."""
    of_target: defaultdict[int, float] = defaultdict(float)
    of_all: defaultdict[int, float] = defaultdict(float)
    for stream in record["plan"]["streams"]:
        for each in record["seconds"]:
            rate = rate_at(stream["shape"]["knots"], each["second"] + 0.5)
            of_all[each["second"]] += rate
            if target in _names(stream["target"]):
                of_target[each["second"]] += rate
    return {second: of_target[second] / total for second, total in of_all.items() if total}


def _names(target: Mapping[str, Any]) -> tuple[str, str]:
    """As a record names a model, and one version of it; the model's policy decides about all of them."""
    model = f"{target['tenant']}/{target['model']}"
    return model, f"{model}@{target['version']}"


def rate_at(knots: list[list[float]], at: float) -> float:
    """Of a shape: straight pieces between knots of (second, rate)."""
    for (a, low), (b, high) in pairwise(knots):
        if a <= at < b:
            return low + (high - low) * (at - a) / (b - a)
    return 0.0
