"""What the engine and its driver say to each other: values that are JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class App:
    """One revision as Serve is to run it."""

    name: str
    prefix: str
    spec: Mapping[str, Any]
    """What `roost_runtimes.embedded.door` takes."""
    autoscaling: Mapping[str, Any]
    actor: Mapping[str, Any]
    """Resources of a replica, in Ray's words."""
    most_ongoing: int
    drain_s: float
    version: str
    """Another one means other replicas; the same keeps those that run."""


@dataclass(frozen=True, slots=True)
class SeenReplica:
    id: str
    state: str
    """Serve's: STARTING, RUNNING, STOPPING …"""
    worker: str
    """Id of its process; empty while there is none."""
    node: str
    address: str
    """Where it takes requests itself (host:port); empty where it does not, or not now."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An application of Serve's, as Serve says."""

    status: str
    messages: Sequence[str]
    deployments: Sequence[str]
    """Their statuses; empty until Serve routes to it."""
    wanted: int
    """Replicas."""
    replicas: Sequence[SeenReplica]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        return cls(**{**told, "replicas": [SeenReplica(**replica) for replica in told["replicas"]]})
