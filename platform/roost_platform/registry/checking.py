"""The checker as the platform sees it: a throw-away process that is started on a file and must answer in one line.

This process never parses a model itself. Whatever happens to the other one (a crash, a limit, silence, nonsense on its
output) becomes a refusal of the model, and the process and all it started are gone when `check` returns.
"""

import asyncio
import json
import logging
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost_platform.domain.errors import ModelRejected, Unavailable
from roost_platform.domain.signatures import Signature
from roost_platform.registry.finishing import to_the_end

logger = logging.getLogger(__name__)

_LONGEST_ANSWER = 64 * 1024
_LEAST_FILE_BYTES = 64 * 1024**2
_CODE = re.compile(r"[a-z_]{1,40}")
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


@dataclass(frozen=True, slots=True)
class _Ended:
    status: int
    answer: bytes
    errors: bytes
    too_late: bool = False


class Checker:
    """Starts checks, a few at a time."""

    def __init__(self, *, python: str = sys.executable, limits: CheckLimits | None = None, at_once: int = 2) -> None:
        self._python = python
        self._limits = limits or CheckLimits()
        self._turn = asyncio.Semaphore(at_once)
        self._build_key: str | None = None

    async def check(self, path: Path, bake_dir: Path) -> CheckReport:
        """Judge the file at `path`; `bake_dir` is an empty folder for what is baked from it.

        Raises ModelRejected with the checker's code, or with load_crashed, out_of_memory, too_slow when it could not
        end; Unavailable when no checker can be started here.
        """
        async with self._turn:
            ended = await self._run(*self._arguments(path, bake_dir))
        if b"sandbox_unavailable" in ended.errors:
            logger.warning("checker_not_sandboxed")
        return _report(_verdict(ended))

    async def build_key(self) -> str:
        """What baked models go under on this machine. Raises Unavailable when no checker can be started here."""
        if self._build_key is None:
            verdict = _verdict(await self._run("--build-key"))
            key = verdict.get("build_key")
            if not isinstance(key, str) or not _BUILD_KEY.fullmatch(key):
                raise Unavailable("the model checker does not work on this machine", code="checker_broken")
            self._build_key = key
        return self._build_key

    def _arguments(self, path: Path, bake_dir: Path) -> list[str]:
        limits = self._limits
        return [
            str(path.absolute()),
            f"--bake-dir={bake_dir.absolute()}",
            f"--memory-bytes={limits.memory_bytes}",
            f"--cpu-seconds={limits.cpu_s}",
            f"--file-bytes={4 * path.stat().st_size + _LEAST_FILE_BYTES}",
        ]

    async def _run(self, *arguments: str) -> _Ended:
        with tempfile.TemporaryDirectory(prefix="roost-check-") as folder:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(self._python, "-I", "-m", "roost_runtimes.check", *arguments),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    cwd=folder,
                    env=_environment(folder),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable("no model checker can be started right now", retry_after_s=5) from error
            try:
                self._limit(process.pid)
                return await self._listen(process)
            finally:
                await to_the_end(_end(process))

    def _limit(self, pid: int) -> None:
        """The same limits from outside, for the time before the process sets them itself."""
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (self._limits.memory_bytes,) * 2)
            resource.prlimit(pid, resource.RLIMIT_CPU, (self._limits.cpu_s, self._limits.cpu_s + 2))
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))

    async def _listen(self, process: asyncio.subprocess.Process) -> _Ended:
        assert process.stdout is not None
        assert process.stderr is not None
        answer, errors = bytearray(), bytearray()
        try:
            async with asyncio.timeout(self._limits.wall_s):
                await asyncio.gather(_take(process, process.stdout, answer), _keep(process.stderr, errors))
                status = await process.wait()
        except TimeoutError:
            return _Ended(0, b"", b"", too_late=True)
        if len(answer) > _LONGEST_ANSWER:
            return _Ended(0, b"", b"")
        return _Ended(status, bytes(answer), bytes(errors))


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours goes along: the environment may hold secrets."""
    return {
        "PATH": os.defpath,
        "HOME": folder,
        "TMPDIR": folder,
        "LC_ALL": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


async def _take(process: asyncio.subprocess.Process, stream: asyncio.StreamReader, into: bytearray) -> None:
    """Read to the end, or until it is more than any verdict: then the process is not heard further, but killed."""
    while piece := await stream.read(_LONGEST_ANSWER):
        into += piece
        if len(into) > _LONGEST_ANSWER:
            with suppress(ProcessLookupError):
                process.kill()
            return


async def _keep(stream: asyncio.StreamReader, into: bytearray) -> None:
    """Read to the end, so that the writer is never held up; keep the first 64 kB."""
    while piece := await stream.read(_LONGEST_ANSWER):
        into += piece[: max(_LONGEST_ANSWER - len(into), 0)]


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()  # the dead write no more: this only empties and closes the pipes


def _verdict(ended: _Ended) -> dict[str, Any]:
    """The answer as JSON, or what its absence means."""
    if ended.too_late or ended.status == -signal.SIGXCPU:
        raise ModelRejected("checking the model takes longer than is allowed", code="too_slow")
    if ended.status == 0:
        with suppress(ValueError):
            document = json.loads(ended.answer)
            if isinstance(document, dict):
                return document
    if b"No module named" in ended.errors and not ended.answer:
        raise _no_runtime()
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


def _refusal(verdict: dict[str, Any]) -> ModelRejected | Unavailable:
    code, message, field = verdict.get("code"), verdict.get("message"), verdict.get("field")
    if code == "runtime_missing":
        return _no_runtime()
    if not isinstance(code, str) or not _CODE.fullmatch(code) or not isinstance(message, str):
        return _crashed()
    return ModelRejected(message[:1000], code=code, field=field[:200] if isinstance(field, str) else None)


def _crashed() -> ModelRejected:
    return ModelRejected("the checker crashed on this model", code="load_crashed")


def _no_runtime() -> Unavailable:
    return Unavailable(
        "no ONNX runtime is installed beside the gateway: install roost[runtime]", code="runtime_missing"
    )
