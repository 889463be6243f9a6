"""The checker as the platform sees it: a throw-away process that is started on a file and must answer in one line.

This process never parses a model itself. Whatever happens to the other one (a crash, a limit, silence, nonsense on its
output) becomes a refusal of the model, and the process and all it started are gone when `check` returns.
"""

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost_platform.domain.errors import ModelRejected, Unavailable
from roost_platform.domain.signatures import Signature
from roost_platform.registry.check_process import CheckProcesses, Ended, JobTime, check_environment
from roost_platform.registry.finishing import in_thread

logger = logging.getLogger(__name__)

_BUILD_KEY_LIMIT_S = 60.0
_LEAST_FILE_BYTES = 64 * 1024**2
_CODES = frozenset(
    {
        "external_data",
        "invalid_graph",
        "load_crashed",
        "load_failed",
        "not_onnx",
        "out_of_memory",
        "too_deep",
        "too_slow",
        "unknown_operator_domain",
        "unsupported_ir",
        "unsupported_operator",
        "unsupported_opset",
        "unsupported_type",
    }
)
"""All that the checker may say; it has read a hostile file."""
_BUILD_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """What one check may take. Its process lowers the same limits itself before it reads the file."""

    memory_bytes: int = 4 * 1024**3
    """Private memory of a process; two work on a file, one after the other."""
    cpu_s: int = 60
    """Processor time of a process."""
    wall_s: float = 120.0
    """Time from start to verdict; then everything is killed."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The verdict on a good model."""

    signature: Signature
    memory_bytes: int
    """What one replica of it is expected to hold."""
    opset: Mapping[str, int]
    """Operator set version by domain."""
    ir_version: int
    baked: bool
    """A baked model lies in the folder that was given."""
    build_key: str
    """What the baked model fits: ONNX Runtime's build and the processor."""
    load_ms: float
    run_ms: float | None
    """None when the model refuses an input of zeros."""


class Checker:
    """Starts checks, a few at a time."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        limits: CheckLimits | None = None,
        at_once: int = 2,
        idle_s: float = 60.0,
    ) -> None:
        """`idle_s`: how long what is ready for the next check is kept."""
        self._python = python
        self._limits = limits or CheckLimits()
        self._turn = asyncio.Semaphore(at_once)
        self._processes = CheckProcesses(python, idle_s=idle_s)
        self._build_key: str | None = None

    def prepare(self) -> None:
        """A file is on its way: be ready when it is there. Does not wait, raises nothing."""
        self._processes.prepare()

    async def check(self, path: Path, bake_dir: Path, spent: JobTime | None = None) -> CheckReport:
        """Judge the file at `path`; `bake_dir` is an empty folder for what is baked from it. `spent` is told how long the
        judging took, whatever came of it.

        Raises ModelRejected with the checker's code, or with load_crashed, out_of_memory, too_slow when it could not
        end; Unavailable when no checker can be started here.
        """
        job = _job(path, bake_dir, self._limits)
        async with self._turn:
            ended = await self._processes.run(job, wall_s=self._limits.wall_s, spent=spent or JobTime())
        if b"sandbox_unavailable" in ended.errors:
            logger.warning("checker_not_sandboxed")
        return _report(_verdict(ended))

    async def build_key(self) -> str:
        """What baked models go under on this machine. Raises Unavailable when no checker can be started here."""
        if self._build_key is None:
            self._build_key = await in_thread(_ask_build_key, self._python)
        return self._build_key

    def close(self) -> None:
        """End what is kept ready and whatever is being checked. It also ends with this process."""
        self._processes.close()


def _job(path: Path, bake_dir: Path, limits: CheckLimits) -> dict[str, Any]:
    """As `roost_runtimes.check_zygote` takes it."""
    lowered = {
        "memory_bytes": limits.memory_bytes,
        "cpu_seconds": limits.cpu_s,
        "file_bytes": 4 * path.stat().st_size + _LEAST_FILE_BYTES,
    }
    return {"model": str(path.absolute()), "bake_dir": str(bake_dir.absolute()), "limits": lowered}


def _ask_build_key(python: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - our own interpreter
            [python, "-I", "-m", "roost_runtimes.check", "--build-key"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_BUILD_KEY_LIMIT_S,
            env=check_environment(),
        ).stdout
        key = json.loads(answer)["build_key"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise _broken() from error
    if not isinstance(key, str) or not _BUILD_KEY.fullmatch(key):
        raise _broken()
    return key


def _verdict(ended: Ended) -> dict[str, Any]:
    """The answer as JSON, or what its absence means."""
    if ended.too_late or ended.status == -signal.SIGXCPU:
        raise ModelRejected("checking the model takes longer than is allowed", code="too_slow")
    if ended.status == 0:
        with suppress(ValueError):
            document = json.loads(ended.answer)
            if isinstance(document, dict):
                return document
    if ended.status == -signal.SIGKILL or b"bad_alloc" in ended.errors or b"MemoryError" in ended.errors:
        raise ModelRejected("checking the model takes more memory than is allowed", code="out_of_memory")
    raise _crashed()


def _report(verdict: dict[str, Any]) -> CheckReport:
    """A report only if every part is what it must be: the process that wrote it has read a hostile file."""
    if verdict.get("ok") is not True:
        raise _refusal(verdict)
    try:
        run_ms = verdict["run_ms"]
        report = CheckReport(
            signature=Signature.from_json(verdict["signature"]),
            memory_bytes=int(verdict["memory_bytes"]),
            opset={str(domain): int(version) for domain, version in verdict["opset"].items()},
            ir_version=int(verdict["ir_version"]),
            baked=verdict["baked"] is True,
            build_key=str(verdict["build_key"]),
            load_ms=float(verdict["load_ms"]),
            run_ms=None if run_ms is None else float(run_ms),
        )
        sound = _BUILD_KEY.fullmatch(report.build_key) and report.memory_bytes > 0 and report.signature.outputs
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _crashed() from error
    if not sound:
        raise _crashed()
    return report


def _refusal(verdict: dict[str, Any]) -> ModelRejected:
    code, message, field = verdict.get("code"), verdict.get("message"), verdict.get("field")
    if code not in _CODES or not isinstance(message, str):
        return _crashed()
    return ModelRejected(_shown(message, 1000), code=code, field=_shown(field, 200) if isinstance(field, str) else None)


def _shown(text: str, longest: int) -> str:
    """Words of a file may be in it: nothing that a terminal or a log would take for more than text."""
    return "".join(character if character.isprintable() else "?" for character in text[:longest])


def _crashed() -> ModelRejected:
    return ModelRejected("the checker crashed on this model", code="load_crashed")


def _broken() -> Unavailable:
    return Unavailable("the model checker does not work on this machine", code="checker_broken")
