"""What the tests of held replicas share: a pod's life, and a moment shortly before a full hour."""

from dataclasses import replace

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.pod_life import PodLife
from roost_platform.engines.knative.shares import Kept

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOON = 1_700_049_600 * SECOND - 17 * SECOND
"""Seventeen seconds before a full hour."""
WHOLE = Kept(min_scale=0, proven_us=NOON - HOUR)


def pod(uid: str, **fields: object) -> PodLife:
    usual = PodLife(
        uid=uid,
        name=f"iris-{uid}",
        namespace="roost-acme",
        variant="iris-00001-abcdef",
        key=ServiceKey("acme", "iris"),
        revision="iris-00001",
        version=1,
        resource_class="cpu-2",
        born_us=NOON,
    )
    return replace(usual, **fields)
