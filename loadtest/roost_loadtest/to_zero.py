"""Back to zero: whether a model slept again when its load was over. Pure."""

from collections.abc import Iterator, Sequence

from roost_loadtest.criterion import Criterion
from roost_loadtest.policy import GRACE_S, Policy, policies
from roost_loadtest.record import Record, Replicas, Second

SLACK_S = 6.0
"""Two of the autoscaler's ticks, and the second between two looks at it."""


def zero_criteria(record: Record) -> Iterator[Criterion]:
    """One per model, where the plan asks for it."""
    if not record.plan.aims.back_to_zero:
        return
    told = policies(record.platform)
    for target in dict.fromkeys(str(stream.target) for stream in record.plan.streams):
        yield _zero(record, target, told.get(target))


def longest_s(policy: Policy) -> float:
    """So long a model without load may be awake: the stable window, what delays a lower wish, then grace or retention."""
    return policy.window_s + policy.scale_down_delay_s + max(GRACE_S, policy.retention_s) + SLACK_S


def _zero(record: Record, target: str, policy: Policy | None) -> Criterion:
    id_, title = "back_to_zero", "back to zero replicas"
    if policy is None:
        return Criterion(id_, title, None, unit="s", target=target, detail="the platform did not tell its policy")
    if policy.min_scale:
        detail = f"min-scale {policy.min_scale} keeps it awake"
        return Criterion(id_, title, None, unit="s", target=target, detail=detail)
    limit = longest_s(policy)
    idle = _idle_since(record, target)
    asleep = _asleep_since(record.after, target)
    took = None if asleep is None else max(0.0, asleep - idle)
    watched = record.after[-1].second + 1 - idle if record.after else 0.0
    return Criterion(
        id_, title, took is not None and took <= limit, took, limit, "<=", "s", target=target,
        detail="after its last request" if took is not None else f"it had replicas for all {watched:.0f} s that it was watched",
    )  # fmt: skip


def _idle_since(record: Record, target: str) -> float:
    """When its load was over: the end of the plan, or later when requests were still under way."""
    busy = [
        second.second + 1.0
        for second in record.after
        if (told := second.replicas.get(target)) is not None and (told.in_flight or told.queued)
    ]
    return max([record.plan.duration_s, *busy])


def _asleep_since(after: Sequence[Second], target: str) -> float | None:
    """The second from which on it had no replica until the end; None when it had one at the end, or nobody knows."""
    asleep: float | None = None
    for second in after:
        told = second.replicas.get(target)
        if told is None:
            continue
        if replicas_of(told):
            asleep = None
        elif asleep is None:
            asleep = float(second.second)
    return asleep


def replicas_of(told: Replicas) -> int:
    """All there are, of all versions, those on their way included."""
    return (told.ready or 0) + (told.starting or 0) + (told.others or 0)
