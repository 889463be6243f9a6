"""What was seen of an installation, judged. Pure functions of numbers; who looks is `looking.py`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_GIB = 1024**3
LEAST_FREE_BYTES = _GIB
LEAST_OPEN_FILES = 4096
"""A connection, its replica and their files: fewer are used up by a few hundred clients."""
LEAST_MEMORY_BYTES = 512 * 1024**2
"""The gateway, its zygotes and one small replica."""
SKEW_WARN_S, SKEW_FAIL_S = 1.0, 60.0
"""A call belongs to the month in which its answer was ready: clocks that differ put it into another one."""


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, and will hurt."""
    FAIL = "fail"
    """It does not work, or something would be lost."""
    UNKNOWN = "unknown"
    """Could not be looked at from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    verdict: Verdict
    says: str
    do: str = ""
    """What to do about it, an imperative sentence; empty when all is well."""

    def to_json(self) -> dict[str, Any]:
        return {"part": self.part, "verdict": self.verdict.value, "says": self.says, "do": self.do}


def judge_space(free_bytes: int, *, upload_bytes: int) -> Finding:
    """`upload_bytes`: the largest file that a client may send. A full disk refuses every prediction (507)."""
    says = f"{free_bytes / _GIB:.1f} GiB free in the data folder"
    if free_bytes < LEAST_FREE_BYTES:
        return Finding("store", Verdict.FAIL, says, "Free space: without it predictions are refused with 507.")
    if free_bytes < 2 * upload_bytes:
        return Finding(
            "store",
            Verdict.WARN,
            f"{says}, less than two of the largest uploads",
            "Free space, or lower ROOST_LIMIT_UPLOAD_BYTES.",
        )
    return Finding("store", Verdict.OK, says)


def judge_mode(mode: int) -> Finding:
    """`mode` of the data folder: it holds tenants' models, usage and possibly the operator's key."""
    if mode & 0o077:
        return Finding(
            "store",
            Verdict.WARN,
            f"others may enter the data folder (mode {mode & 0o777:o})",
            "Run: chmod 700 on the data folder.",
        )
    return Finding("store", Verdict.OK, "the data folder is its owner's alone")


def judge_skew(skew_s: float, *, uncertain_s: float) -> Finding:
    """Our clock less the database's, known to ± `uncertain_s`: only what lies beyond that counts."""
    beyond = max(0.0, abs(skew_s) - uncertain_s)
    if beyond < SKEW_WARN_S:
        return Finding("clock", Verdict.OK, "agrees with the database's")
    where = "ahead of" if skew_s > 0 else "behind"
    verdict = Verdict.FAIL if beyond >= SKEW_FAIL_S else Verdict.WARN
    return Finding(
        "clock",
        verdict,
        f"{abs(skew_s):.1f} s {where} the database's",
        "Synchronize the clocks of both machines (chrony, NTP).",
    )


def judge_synchronized(synchronized: bool | None) -> Finding:
    """What the kernel says; None where it does not say."""
    if synchronized is None:
        return Finding("clock", Verdict.UNKNOWN, "the kernel does not say whether the clock is synchronized")
    if not synchronized:
        return Finding(
            "clock",
            Verdict.WARN,
            "the kernel does not know its clock to be synchronized",
            "Run an NTP client (chrony, systemd-timesyncd) on the host.",
        )
    return Finding("clock", Verdict.OK, "synchronized, says the kernel")


def judge_open_files(soft: int, hard: int) -> Finding:
    """-1 is no limit (RLIM_INFINITY)."""
    if soft != -1 and soft < LEAST_OPEN_FILES:
        do = "Raise the limit of open files (LimitNOFILE= in systemd, `ulimit -n`)."
        shown = "without a hard limit" if hard == -1 else f"{hard} at most"
        return Finding("limits", Verdict.WARN, f"{soft} open files, {shown}; {LEAST_OPEN_FILES} are wanted", do)
    return Finding("limits", Verdict.OK, f"{'any number of' if soft == -1 else soft} open files")


def judge_memory(replica_bytes: int) -> Finding:
    """`replica_bytes`: what replicas of the local engine may hold together."""
    says = f"{replica_bytes / _GIB:.1f} GiB for replicas"
    if replica_bytes < LEAST_MEMORY_BYTES:
        return Finding("limits", Verdict.WARN, says, "Free memory, or set ROOST_LOCAL_MEMORY_BYTES.")
    return Finding("limits", Verdict.OK, says)


def judge_landlock(abi: int) -> Finding:
    """`abi`: the kernel's version of Landlock, 0 = none."""
    if abi < 1:
        return Finding(
            "engine",
            Verdict.WARN,
            "no Landlock: replicas can read files that are open to their user",
            "Use a kernel with Landlock (5.13 or newer, lsm=landlock).",
        )
    return Finding("engine", Verdict.OK, f"Landlock {abi} keeps replicas from files")


def judge_feature(flag: str, *, wanted: bool, allowed: bool) -> Finding:
    """`flag`: of Knative's ConfigMap `config-features`; `wanted`: whether the settings make use of it."""
    if wanted and not allowed:
        do = f"Set {flag} to enabled in the ConfigMap config-features, or leave out the setting that needs it."
        return Finding("cluster", Verdict.FAIL, f"Knative does not allow {flag}, which the settings need", do)
    return Finding("cluster", Verdict.OK, f"{flag}: {'allowed' if allowed else 'off, and not needed'}")


def failed(findings: list[Finding]) -> bool:
    return any(finding.verdict is Verdict.FAIL for finding in findings)


def judge_room(*, cores: float, wanted: float) -> Finding:
    """`wanted`: cores that each replica asks of Ray's scheduler, which starts none that does not fit."""
    if wanted > cores:
        says = f"a replica asks for {wanted:g} cores, and Ray would have {cores:g}"
        return Finding("ray", Verdict.FAIL, says, "Lower ROOST_RAY_REPLICA_CPUS; it may be a fraction.")
    return Finding("ray", Verdict.OK, f"{cores:g} cores for replicas of {wanted:g} each")
