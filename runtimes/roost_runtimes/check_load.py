"""Loading a checked model in ONNX Runtime, once to bake it and once to measure it.

Two processes do it. The first opens the raw file, bakes it and compares the two on the same input; the second opens
what will be served and weighs it, with nothing else in its memory. The first is forked before the file is read and
before the sandbox forbids forking; it waits for the word. When it crashes, that is the model's doing.
"""

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from roost_runtimes.bake import LEAN_MARK, MODEL_FILE, WEIGHTS_FILE, mark_lean, open_baked, open_raw
from roost_runtimes.check_errors import out_of_memory, ran_out_of_memory, rejection_of
from roost_runtimes.check_signature import Signature
from roost_runtimes.check_verdict import Rejected

_LARGEST_PROBE = 1_000_000
"""Elements of one input, when dynamic dimensions are tried at other lengths than one."""
_BAKE_SLACK_BYTES = 16 * 1024**2
_BAKE_GROWTH = 4
"""A bake may be four times the size of the file (8-bit weights become 32-bit ones) and the slack larger; more is a
constant that was blown up."""
_LEAST_COPIED = 0.15
_LEAST_COPIED_BYTES = 4 * 1024**2
"""A session that keeps more than this of its weights to itself is tried lean."""
_AS_QUICK = 1.1
_TIMED_RUNS = 4
_SLOW_RUN_S = 0.1
_REPLICA_FLOOR_BYTES = 8 * 1024**2
"""What a replica holds besides its session: its own pages of the interpreter and of the libraries."""
_PR_SET_THP_DISABLE = 41
_TYPES: Mapping[str, Any] = {
    "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(string)": np.object_,
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One replica, as far as one run on zeros tells. `run_ms` is None when the model refuses zeros."""

    signature: Signature
    memory_bytes: int
    load_ms: float
    run_ms: float | None


def warm_up() -> None:
    """What is slow the first time."""
    _random((1,))


class Rehearsal:
    """The forked process that opens the raw file and bakes it."""

    def __init__(self, path: Path, folder: Path | None, *, before: Callable[[], None]) -> None:
        """Fork now; `before` runs first in the child (to give up what must not be there)."""
        go_read, self._go = os.pipe()
        answer, answer_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)
            os.close(answer)
            _child(path, folder, go_read, answer_write, before)
        os.close(go_read)
        os.close(answer_write)
        self._answers = os.fdopen(answer, "rb")

    def go(self) -> bool:
        """Let it go, and wait for what it writes: True when a bake lies in the folder, not compared yet.

        Raises Rejected.
        """
        os.write(self._go, b"g")
        return bool(self._next()["written"])

    def baked(self) -> bool:
        """Wait for its end: True when what it wrote gives what the raw model gives. Raises Rejected."""
        return bool(self._next()["baked"])

    def reap(self) -> None:
        """It has said all it had to say, and is gone after this."""
        os.waitpid(self._pid, 0)

    def _next(self) -> dict[str, Any]:
        answer = self._answers.readline()
        if not answer:
            _, status = os.waitpid(self._pid, 0)
            raise _crash(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
        document: dict[str, Any] = json.loads(answer)
        if "code" in document:
            raise Rejected(document["code"], document["message"], field=document["field"])
        return document


def measure(path: Path, baked: Path | None, signature: Signature) -> Measured:
    """Open what will be served and run it once on zeros. Raises Rejected; a refusal of zeros is none.

    A bake whose runs are as quick when its weights stay as they lie in their file is marked lean, and measured so.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # replicas have small pages
    usual = _Opened(lambda: open_raw(path) if baked is None else open_baked(baked, lean=False))
    chosen = usual
    if baked is not None and usual.copied_bytes > max(_LEAST_COPIED * _mapped_bytes(baked), _LEAST_COPIED_BYTES):
        best = usual.best_run_s()
        usual.close()
        chosen = _Opened(lambda: open_baked(baked, lean=True))
        if chosen.is_as_good_as(usual.outputs, best):
            mark_lean(baked)
        else:
            chosen.close()
            chosen = _Opened(lambda: open_baked(baked, lean=False))
    return Measured(
        signature=_with_shapes(signature, chosen.session, chosen.outputs),
        memory_bytes=chosen.bytes + _mapped_bytes(baked) + _REPLICA_FLOOR_BYTES,
        load_ms=round(chosen.load_s * 1e3, 3),
        run_ms=None if chosen.outputs is None else round(chosen.run_s * 1e3, 3),
    )


class _Opened:
    """A session, weighed: private memory after opening (`copied_bytes`) and after one run on zeros (`bytes`)."""

    def __init__(self, opens: Callable[[], Any]) -> None:
        ctypes.CDLL(None).malloc_trim(0)
        before = _anonymous_bytes()
        begin = time.perf_counter()
        try:
            self.session = opens()
        except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base class
            raise rejection_of(error) from None
        self.load_s = time.perf_counter() - begin
        self.copied_bytes = _anonymous_bytes() - before
        begin = time.perf_counter()
        self.outputs = _run(self.session, np.zeros)
        self.run_s = time.perf_counter() - begin
        self.bytes = max(_anonymous_bytes() - before, 0)

    def best_run_s(self) -> float | None:
        """Processor time of the quickest of a few runs on zeros; None when the model refuses them."""
        if self.outputs is None:
            return None
        took = []
        for _ in range(_TIMED_RUNS if self.run_s < _SLOW_RUN_S else 1):
            begin = time.thread_time()
            _run(self.session, np.zeros)
            took.append(time.thread_time() - begin)
        return min(took)

    def is_as_good_as(self, outputs: list[Any] | None, best_run_s: float | None) -> bool:
        """Whether it gives these outputs, and runs hardly longer than that."""
        best = self.best_run_s()
        if outputs is None or self.outputs is None or best_run_s is None or best is None:
            return False
        same = all(_close(a, b) for a, b in zip(outputs, self.outputs, strict=True))
        return same and best <= _AS_QUICK * best_run_s

    def close(self) -> None:
        del self.session


def _child(path: Path, folder: Path | None, go: int, answer: int, before: Callable[[], None]) -> None:
    """The whole life of the forked process; never returns."""

    def tell(document: dict[str, Any]) -> None:
        os.write(answer, json.dumps(document).encode() + b"\n")

    try:
        before()
        if os.read(go, 1) != b"g":
            os._exit(0)
        try:
            session, written = _bake(path, folder)
            tell({"written": written})
            tell({"baked": written and folder is not None and _same(session, folder)})
        except Rejected as error:
            tell({"code": error.code, "message": error.message, "field": error.field})
        except MemoryError:
            tell({"code": "out_of_memory", "message": out_of_memory("loading the model").message, "field": None})
    finally:
        os._exit(0)


def _bake(path: Path, folder: Path | None) -> tuple[Any, bool]:
    """A session over the raw file, and whether a bake of it lies in the folder. Raises Rejected."""
    try:
        session = open_raw(path, bake_into=folder)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base class
        if folder is None or ran_out_of_memory(error):
            raise rejection_of(error) from None
        empty(folder)  # baking can fail where loading does not
        try:
            return open_raw(path), False
        except Exception as second:  # noqa: BLE001
            raise rejection_of(second) from None
    return session, folder is not None and _small_enough(folder, path)


def _same(raw: Any, folder: Path) -> bool:
    """Whether the baked model gives what the raw one gives, on the first kind of input that the raw one takes."""
    probes: list[tuple[Callable[[tuple[int, ...]], Any], int]] = [(_random, 1), (np.zeros, 1), (_random, 32)]
    for fill, dynamic in probes:
        expected = _run(raw, fill, dynamic=dynamic)
        if expected is None:
            continue
        try:
            baked = open_baked(folder)
        except Exception:  # noqa: BLE001  whatever it is, this bake is not used
            return False
        got = _run(baked, fill, dynamic=dynamic)
        return got is not None and all(_close(a, b) for a, b in zip(expected, got, strict=True))
    return False


def _run(session: Any, fill: Callable[[tuple[int, ...]], Any], *, dynamic: int = 1) -> list[Any] | None:
    """Outputs for inputs made by `fill`; None when the model refuses them. Raises Rejected (out_of_memory)."""
    try:
        feed = {i.name: _filled(i, fill, dynamic) for i in session.get_inputs()}
        return list(session.run(None, feed))
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base class
        if ran_out_of_memory(error):
            raise out_of_memory("one run of the model on its smallest input") from None
        return None


def _filled(value: Any, fill: Callable[[tuple[int, ...]], Any], dynamic: int) -> Any:
    shape = tuple(d if isinstance(d, int) and d >= 0 else dynamic for d in value.shape)
    kind = np.dtype(_TYPES[value.type])
    if dynamic > 1 and prod(shape) > _LARGEST_PROBE:
        raise ValueError("too large to try")
    if kind.hasobject:
        return np.full(shape, "", dtype=object)
    if fill is np.zeros:
        return np.zeros(shape, kind)  # untouched pages cost nothing
    filled = fill(shape)
    return (filled * 2 if kind.kind in "iub" else filled).astype(kind)


def _random(shape: tuple[int, ...]) -> Any:
    """Numbers from 0 to 1, the same on every call."""
    return np.random.default_rng(7).random(shape)


def _close(a: Any, b: Any) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    tolerance = 1e-2 if a.dtype == np.float16 else 1e-4
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _with_shapes(signature: Signature, session: Any, outputs: list[Any] | None) -> Signature:
    """Fill in the output shapes that the file leaves out, from what one run gave or ONNX Runtime inferred."""
    inferred = [o.shape for o in session.get_outputs()]
    shapes = inferred if outputs is None else [s or [None] * o.ndim for s, o in zip(inferred, outputs, strict=True)]
    filled = tuple(
        t if t.shape is not None else t.with_shape(s) for t, s in zip(signature.outputs, shapes, strict=True)
    )
    return Signature(signature.inputs, filled)


def _small_enough(folder: Path, path: Path) -> bool:
    size = sum(f.stat().st_size for f in folder.iterdir())
    return size <= _BAKE_GROWTH * path.stat().st_size + _BAKE_SLACK_BYTES


def empty(folder: Path) -> None:
    """Remove what was baked."""
    for name in (MODEL_FILE, WEIGHTS_FILE, LEAN_MARK):
        (folder / name).unlink(missing_ok=True)


def _crash(number: int) -> Rejected:
    if number == signal.SIGXCPU:
        return Rejected("too_slow", "loading the model takes more processor time than is allowed")
    if number == signal.SIGKILL:
        return out_of_memory("loading the model")
    return Rejected("load_crashed", "ONNX Runtime crashed on this model")


def _anonymous_bytes() -> int:
    """Memory that is this process's own, whatever neighbours share its libraries and however old its mapped files are."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:  # noqa: PTH123  no Path needed for a kernel file
        return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))


def _mapped_bytes(baked: Path | None) -> int:
    """Weights that a replica maps: its own on a machine with one replica, shared with the next."""
    weights = None if baked is None else baked / WEIGHTS_FILE
    return weights.stat().st_size if weights is not None and weights.exists() else 0
