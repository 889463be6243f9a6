"""A rollout that judges itself: what it is, and what is to be done next. Pure: functions of counts and time.

running ─ step ─▶ running … ─ promote ─▶ promoted          each step is held until every guard has passed
   │ ▲  pause, resume                                      a guard that is violated rolls back, paused or not
   ▼ │                                                     whoever changes the traffic by hand ends it
paused ─ abort, violated ─▶ aborted, rolled back
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Self

from roost_platform.domain.comparing import Comparison
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.evidence import Counts, Verdict, bounds, judge
from roost_platform.domain.guards import Guard, Measure, parse
from roost_platform.domain.signatures import Signature

ERROR_RATE = 0.02
"""The chance that a version which is as good as the serving one is ever rolled back, over all guards and steps together;
and, half of it, that one which is over a limit is promoted."""
MOST_STEPS = 20
MOST_WAIT_S = 7 * 86_400


class RolloutState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


ACTIVE = (RolloutState.RUNNING, RolloutState.PAUSED)


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What is asked for."""

    to: int
    """The version that is to take over."""
    steps: tuple[int, ...]
    """Percents of the calls, ascending; the last is 100."""
    every_s: int
    """The least time for a step."""
    guards: tuple[Guard, ...]
    minimum: int = 100
    """Calls of each of the two versions, in each step, before anything passes."""
    comparison: Comparison = field(default_factory=Comparison)
    """What answers of the two are called alike; for a limit of disagreement."""

    @classmethod
    def of(
        cls,
        *,
        to: int,
        steps: Sequence[int],
        every_s: int,
        guard: str,
        minimum: int = 100,
        comparison: Comparison | None = None,
    ) -> Self:
        """Raises InvalidRequest naming the field."""
        ascending = all(low < high for low, high in pairwise(steps))
        if not steps or len(steps) > MOST_STEPS or not ascending or not 0 < steps[0] <= steps[-1] <= 100:
            raise InvalidRequest(f"steps are 1 to {MOST_STEPS} ascending percents from 1 to 100", field="steps")
        if not 0 <= every_s <= MOST_WAIT_S:
            raise InvalidRequest("a step lasts up to seven days", field="every_s")
        if not 1 <= minimum <= 10**9:
            raise InvalidRequest("the minimum is at least one call", field="minimum")
        whole = tuple(steps) if steps[-1] == 100 else (*steps, 100)
        if len(whole) == 1:
            raise InvalidRequest("a rollout needs a step below 100 to judge by", field="steps")
        return cls(to, whole, every_s, parse(guard), minimum, comparison or Comparison())

    @property
    def compares(self) -> bool:
        """Whether there is a limit of disagreement."""
        return any(guard.measure is Measure.DISAGREEMENT for guard in self.guards)

    @property
    def alpha(self) -> float:
        """Of each judgement, so that all together are wrong with a chance of at most ERROR_RATE (Bonferroni)."""
        return ERROR_RATE / (2 * len(self.guards) * (len(self.steps) - 1))


@dataclass(frozen=True, slots=True)
class Rollout:
    """As stored. `step` is the index of the step that it is at."""

    id: int
    plan: RolloutPlan
    start: int
    """The version that served when it began, and serves again when it is rolled back."""
    state: RolloutState
    step: int
    step_began_at: datetime
    began_at: datetime
    ended_at: datetime | None = None
    reason: str = ""
    """Why it is held, or how it ended."""

    @property
    def percent(self) -> int:
        """The share that the new version has at this step."""
        return self.plan.steps[self.step]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted in the step so far: of each guard, by its text, for the new and the serving version."""

    candidate: Mapping[str, Counts]
    serving: Mapping[str, Counts]


class Move(StrEnum):
    HOLD = "hold"
    STEP = "step"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Decision:
    move: Move
    reason: str
    numbers: Mapping[str, Any]
    """For each guard: its verdict, and of both versions the calls, the bad ones and the bounds of their share; of disagreement
    only of the new version, whose answers are compared with those of the serving one."""


def breaks(serving: Signature, candidate: Signature) -> str:
    """Why callers of the one version cannot call the other one as they do; empty when they can.

    Such a version would fail all its calls as the caller's mistakes, which say nothing about a version.
    """
    for old, new, kind in (
        (serving.inputs, candidate.inputs, "input"),
        (serving.outputs, candidate.outputs, "output"),
    ):
        before, after = {t.name: t for t in old}, {t.name: t for t in new}
        if before.keys() != after.keys():
            return f"its {kind}s are {', '.join(after) or 'none'} instead of {', '.join(before) or 'none'}"
        for name, tensor in before.items():
            if tensor.datatype != after[name].datatype:
                return f"its {kind} {name} is {after[name].datatype} instead of {tensor.datatype}"
            if kind == "input" and not _fits(tensor.shape, after[name].shape):
                return f"its input {name} has the shape {list(after[name].shape)} instead of {list(tensor.shape)}"
    return ""


def _fits(old: Sequence[int], new: Sequence[int]) -> bool:
    return len(old) == len(new) and all(b in (a, -1) for a, b in zip(old, new, strict=True))


def decide(rollout: Rollout, evidence: Evidence, now: datetime) -> Decision:
    """What an active rollout does next. One that is paused goes no step further, but is rolled back all the same."""
    plan = rollout.plan
    verdicts: dict[str, Verdict] = {}
    numbers: dict[str, Any] = {}
    for guard in plan.guards:
        candidate = evidence.candidate.get(guard.text, Counts())
        alone = guard.measure is Measure.DISAGREEMENT
        serving = None if alone else evidence.serving.get(guard.text, Counts())
        verdict = judge(candidate, serving, limit=guard.limit, alpha=plan.alpha, minimum=plan.minimum)
        verdicts[guard.text] = verdict
        numbers[guard.text] = {
            "verdict": verdict,
            "limit": guard.limit,
            "candidate": _told(candidate, plan.alpha),
        } | ({} if serving is None else {"serving": _told(serving, plan.alpha)})
    if violated := [text for text, verdict in verdicts.items() if verdict is Verdict.VIOLATED]:
        alone = all(guard.measure is Measure.DISAGREEMENT for guard in plan.guards if guard.text in violated)
        less = "" if alone else f", and version {rollout.start} does less"
        reason = f"version {plan.to} violates {', '.join(violated)}{less}"
        return Decision(Move.ROLL_BACK, reason, numbers)
    if waits := _waits(rollout, verdicts, now):
        return Decision(Move.HOLD, waits, numbers)
    if plan.steps[rollout.step + 1] == 100:
        return Decision(Move.PROMOTE, "all guards have passed in every step", numbers)
    return Decision(Move.STEP, "all guards have passed", numbers)


def _waits(rollout: Rollout, verdicts: Mapping[str, Verdict], now: datetime) -> str:
    """Why no further step is taken; empty when one is."""
    if rollout.state is RolloutState.PAUSED:
        return "it is paused"
    if shared := [text for text, verdict in verdicts.items() if verdict is Verdict.SHARED]:
        return f"both versions violate {', '.join(shared)}"
    if waiting := [text for text, verdict in verdicts.items() if verdict is not Verdict.PASSED]:
        return f"not enough evidence yet for {', '.join(waiting)}"
    if now < rollout.step_began_at + timedelta(seconds=rollout.plan.every_s):
        return "all guards have passed; the step's time is not over"
    return ""


def _told(counts: Counts, alpha: float) -> dict[str, Any]:
    low, high = bounds(counts, alpha)
    return {"calls": counts.total, "bad": counts.bad, "low": round(low, 6), "high": round(high, 6)}
