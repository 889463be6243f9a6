"""The local engine: revisions as processes of this machine, woken by forking, put to sleep by Knative's rules."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import RevisionKey, Service, ServiceKey, ServiceStatus
from roost_platform.engines.local.budget import Budget, Capacity, ReplicaLimits
from roost_platform.engines.local.clocks import Clocks
from roost_platform.engines.local.figures import Numbered, figures_of
from roost_platform.engines.local.held import Held
from roost_platform.engines.local.leases import Lease, LocalSlot
from roost_platform.engines.local.pulse import PULSE_S
from roost_platform.engines.local.replica import Replica
from roost_platform.engines.local.runner import Runner
from roost_platform.engines.local.starting import Fetch, Locate, RunnerSettings
from roost_platform.engines.local.zygote import (
    MissingRuntime,
    Spawner,
    Zygote,
    runtime_command,
    say_isolation,
    zygote_environment,
)
from roost_platform.engines.port import REPORT_HELD_S, Engine, EngineFigures, OnUsage, RevisionFigures, tell_nobody

logger = logging.getLogger(__name__)

TICK_S = 2.0
"""Knative's autoscaler tick."""
REPORT_S = 1.0
SWEEP_S = 0.1
"""How often deadlines are looked at: a request is at most this much late."""

KEEP_S = 0.5
"""A replica keeps its room for so long at least, or until the next tick: two busy models for which there is not room
enough take turns, and do not wake each other's for every call."""

DEFAULT_RUNTIMES: Mapping[str, str] = {"onnx-cpu": "roost_runtimes.onnx_model:OnnxModel"}
"""Runtime name → what makes its models, as `module:callable` for the zygote's command line."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    capacity: Capacity
    spares: int = 4
    """Processes kept forked ahead; each holds about 4 MiB."""
    queue_depth: int = 10_000
    """Requests that may wait for one revision, as in Knative's activator."""
    start_timeout_s: float = 120.0
    """How long a replica may take to become ready."""
    drain_s: float = 30.0
    """How long what is in flight may take when the engine or a model is stopped."""
    limits: ReplicaLimits = field(default_factory=ReplicaLimits)
    """What one replica may take at most."""
    tick: bool = True
    """Off where a test makes time pass itself, by `tick`, `report` and `check_pulses`."""
    runtimes: Mapping[str, str] = field(default_factory=lambda: DEFAULT_RUNTIMES)


class LocalEngine(Engine):
    """See the port for the promises."""

    def __init__(
        self,
        *,
        locate: Locate,
        fetch: Fetch | None = None,
        settings: LocalSettings,
        on_usage: OnUsage = tell_nobody,
        clock: Callable[[], float] = time.monotonic,
        clocks: Clocks | None = None,
    ) -> None:
        """`fetch` is asked when `locate` knows no file; None = what is not here is nowhere. `on_usage`: see the port.

        `clock` is the autoscaler's; `clocks` say for how long and when replicas were held.
        """
        self._clock = clock
        self._held = Held(on_usage=on_usage, clocks=clocks or Clocks())
        self._locate = locate
        self._fetch = fetch or _fetch_nothing
        self._settings = settings
        self._budget = Budget(settings.capacity)
        self._runner_settings = RunnerSettings(
            queue_depth=settings.queue_depth,
            start_timeout_s=settings.start_timeout_s,
            cores=len(os.sched_getaffinity(0)),
            limits=settings.limits,
        )
        self._zygotes: dict[str, Zygote] = {}
        self._runners: dict[RevisionKey, Runner] = {}
        self._services: dict[ServiceKey, Service] = {}
        self._past_activations = 0  # of revisions that are gone: the counter must not run back
        self._awake: dict[Runner, None] = {}
        self._starving: dict[Runner, None] = {}
        self._numbered = Numbered()
        self._closing: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for name, factory in self._settings.runtimes.items():
            self._zygotes[name] = Zygote(
                runtime_command(factory), spares=self._settings.spares, environment=zygote_environment()
            )
        for name, zygote in self._zygotes.items():
            await zygote.start()
            say_isolation(name, zygote.in_force)
        self._loops.append(self._loop.create_task(self._every(SWEEP_S, self.sweep)))
        if self._settings.tick:
            self._loops.append(self._loop.create_task(self._every(REPORT_S, self.report)))
            self._loops.append(self._loop.create_task(self._every(TICK_S, self.tick)))
            self._loops.append(self._loop.create_task(self._every(PULSE_S, self.check_pulses)))
            self._loops.append(self._loop.create_task(self._every(REPORT_HELD_S, self.report_held)))

    async def stop(self) -> None:
        for runner in list(self._runners.values()):
            self._close(runner)
        self._services.clear()
        while self._closing:
            await asyncio.wait(self._closing)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for zygote in self._zygotes.values():
            await zygote.stop()
        self._held.end()

    async def apply(self, service: Service) -> None:
        before = self._services.get(service.key)
        self._services[service.key] = service
        reachable = {target.revision for target in service.traffic if target.percent > 0}
        wanted = {RevisionKey(service.key, r.name): r for r in service.revisions}
        # Only this service's own: looking through the runners of all would make a start with many models quadratic.
        for revision in before.revisions if before else ():
            if (key := RevisionKey(service.key, revision.name)) not in wanted:
                self._close(self._runners[key])
        for key, revision in wanted.items():
            runner = self._runners.get(key)
            if runner is None:
                runner = self._runners[key] = Runner(
                    key,
                    revision,
                    service.scaling,
                    reachable=key.name in reachable,
                    zygote=self._zygote(revision.runtime),
                    locate=self._locate,
                    fetch=self._fetch,
                    budget=self._budget,
                    make_room=self._make_room,
                    on_awake=self._wake,
                    on_freed=self._freed,
                    on_idle=self._idle,
                    held=self._held,
                    settings=self._runner_settings,
                    clock=self._clock,
                )
            else:
                runner.update(revision, service.scaling, reachable=key.name in reachable)
            if not revision.proven or service.scaling.min_scale or runner.active:
                self._wake(runner)
                runner.tick()

    async def delete(self, key: ServiceKey) -> None:
        self._services.pop(key, None)
        closing = [self._close(runner) for k, runner in list(self._runners.items()) if k.service == key]
        if closing:
            await asyncio.wait(closing)

    def status(self, key: ServiceKey) -> ServiceStatus:
        service = self._services.get(key)
        if service is None:
            return ServiceStatus(key, ())
        return ServiceStatus(key, tuple(self._runners[RevisionKey(key, r.name)].status() for r in service.revisions))

    def figures_of(self, key: ServiceKey) -> dict[str, RevisionFigures]:
        service = self._services.get(key)
        revisions = service.revisions if service is not None else ()
        return {r.name: figures_of(self._runners[RevisionKey(key, r.name)]) for r in revisions}

    def output(self, revision: RevisionKey) -> list[OutputLine]:
        runner = self._runners.get(revision)
        return runner.output.lines() if runner else []

    def lease(self, revision: RevisionKey, deadline: float) -> Lease:
        runner = self._runners.get(revision)
        if runner is None:
            raise NotFound("there is no such revision")
        return Lease(runner, deadline)

    def take_slot(self, revision: RevisionKey, deadline: float) -> LocalSlot | None:
        runner = self._runners.get(revision)
        if runner is None or runner.waiters:
            return None
        replica = runner.take_slot()
        if replica is None:
            return None
        runner.arrived()
        return LocalSlot(replica, deadline)

    def figures(self) -> EngineFigures:
        runners = self._runners.values()
        return EngineFigures(
            revisions={runner.key: figures_of(runner) for runner in self._awake},
            activations=self._past_activations + sum(runner.activations for runner in runners),
            restarts={(r.key, reason): n for r in runners for reason, n in r.setbacks.restarts.items()},
            failed_starts={(r.key, reason): n for r in runners for reason, n in r.setbacks.failed_starts.items()},
            replicas=self._numbered.look(self._awake),
            cores=len(os.sched_getaffinity(0)),
            spares={name: zygote.spares for name, zygote in self._zygotes.items()},
        )

    # Time passing: the loops call these; a test may.

    def tick(self) -> None:
        """One autoscaler decision for every revision that is not asleep."""
        for runner in list(self._awake):
            runner.tick()
            if not runner.active:
                del self._awake[runner]

    def report(self) -> None:
        """Close a second of measuring for every revision that is not asleep."""
        now = self._clock()
        for runner in list(self._awake):
            if runner.scaler.report(now):
                runner.tick()

    def sweep(self) -> None:
        """Enforce the deadlines of what waits or runs."""
        now = self._loop.time()
        for runner in list(self._awake):
            runner.check_deadlines(now)

    def check_pulses(self) -> None:
        """Look whether what serves still answers."""
        for runner in list(self._awake):
            runner.check_pulses()

    def report_held(self) -> None:
        """Tell what every replica held since the last time."""
        self._held.report()

    async def _every(self, seconds: float, what: Callable[[], None]) -> None:
        # Half a second off the clock's whole ones: two reports must not fall into one bucket of the autoscaler.
        offset = math.floor(self._clock()) + 0.5 - self._clock()
        due = self._loop.time() + (offset % seconds)
        while True:
            now = self._loop.time()
            if now < due:  # also after a sleep: timers of some loops are up to a millisecond early
                await asyncio.sleep(due - now)
                continue
            while due <= now:
                due += seconds
            try:
                what()
            except Exception:
                logger.exception("engine_loop_failed", extra={"loop": what.__name__})

    # What runners ask of the machine.

    def _wake(self, runner: Runner) -> None:
        self._awake[runner] = None

    def _freed(self) -> None:
        """Room was given back: whoever lacks some tries again."""
        for runner in self._take_starving():
            runner.converge()

    def _idle(self, replica: Replica) -> None:
        """A replica has nothing to do: its room may go to those who have no replica at all."""
        if self._starving and self._loop.time() - replica.ready_since >= KEEP_S:
            for runner in self._take_starving():
                if runner.ready:
                    self._starving[runner] = None
                else:
                    runner.converge()

    def _take_starving(self) -> list[Runner]:
        """Those that lack room; each joins again when it still finds none."""
        starving, self._starving = self._starving, {}
        return [runner for runner in starving if runner.starved]

    def _make_room(self, hungry: Runner) -> None:
        """Put idle replicas of others to sleep, longest idle first, until one of `hungry` would fit.

        Their room comes back when their processes have gone; `_freed` then lets the hungry one try again.
        """
        self._starving[hungry] = None
        memory, replicas = self._budget.lacking(hungry.size)
        idle: list[tuple[float, Runner, Replica]] = []
        for runner in self._awake:
            memory -= runner.leaving * runner.size
            replicas -= runner.leaving
            if runner is not hungry:
                idle += [(replica.idle_since, runner, replica) for replica in runner.idle_replicas()]
        for _, runner, replica in sorted(idle, key=lambda entry: entry[0]):
            if memory <= 0 and replicas <= 0:
                return
            runner.sleep_idle(replica)
            logger.info("replica_evicted", extra={"revision": str(runner.key), "for": str(hungry.key)})
            memory -= runner.size
            replicas -= 1

    def _zygote(self, runtime: str) -> Spawner:
        return self._zygotes.get(runtime) or MissingRuntime(runtime)

    def _close(self, runner: Runner) -> asyncio.Task[None]:
        self._runners.pop(runner.key, None)
        self._past_activations += runner.activations
        task = self._loop.create_task(self._drain(runner))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _drain(self, runner: Runner) -> None:
        await runner.close(drain_s=self._settings.drain_s)
        self._awake.pop(runner, None)
        self._starving.pop(runner, None)


async def _fetch_nothing(_digest: str) -> NoReturn:
    raise Unavailable("the model's file is missing", code="artifact_missing")
