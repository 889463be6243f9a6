"""Engines, made from the gateway's settings."""

from collections.abc import Callable
from pathlib import Path

from roost_gateway.engine_settings import LocalSettings
from roost_platform.engines.local.budget import Capacity, ReplicaLimits, machine_capacity
from roost_platform.engines.local.engine import LocalEngine
from roost_platform.engines.local.engine import LocalSettings as EngineSettings


def local_engine(settings: LocalSettings, locate: Callable[[str], tuple[Path, bool]]) -> LocalEngine:
    """Processes of this machine; `locate` gives an artifact's file by digest, and whether it is baked."""
    return LocalEngine(locate=locate, settings=_local_settings(settings))


def _local_settings(settings: LocalSettings) -> EngineSettings:
    capacity = machine_capacity(memory_share=settings.memory_share, replicas_per_core=settings.replicas_per_core)
    if settings.memory_bytes is not None:
        capacity = Capacity(settings.memory_bytes, capacity.replicas)
    return EngineSettings(
        capacity=capacity,
        spares=settings.spares,
        queue_depth=settings.queue_depth,
        start_timeout_s=settings.start_timeout_s,
        drain_s=settings.drain_s,
        limits=ReplicaLimits(
            memory_factor=settings.replica_memory_factor,
            memory_slack_bytes=settings.replica_memory_slack_bytes,
            answer_bytes=settings.answer_bytes,
        ),
    )
