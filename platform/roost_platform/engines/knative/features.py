"""What a cluster's Knative allows: its ConfigMaps' data read into a frozen value, and what that means for Roost's wishes.

Knative's webhook refuses a template that uses a field whose feature is off, so such fields are left out, or the revision
is not offered to the cluster at all. Either way the operator is told which flag to turn on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Revision, RevisionStatus
from roost_platform.engines.knative.settings import KnativeSettings

NODE_SELECTOR = "kubernetes.podspec-nodeselector"
TOLERATIONS = "kubernetes.podspec-tolerations"
RUNTIME_CLASS = "kubernetes.podspec-runtimeclassname"
EMPTY_DIR = "kubernetes.podspec-volumes-emptydir"

_ON = ("enabled", "allowed")


class Reason(NamedTuple):
    """Why the cluster cannot give all that is asked."""

    reason: str
    """One CamelCase word for programs."""
    message: str
    """A sentence for the operator, with what to change."""
    refused: bool
    """True: the revision must not be applied. False: it runs, without what the message names."""


@dataclass(frozen=True, slots=True)
class Features:
    """A cluster's answers; the defaults are Knative's own, true of a cluster that nobody changed."""

    node_selector: bool = False
    tolerations: bool = False
    runtime_class: bool = False
    empty_dir: bool = True
    max_timeout_s: int = 600
    """Most seconds a revision may allow one request (`max-revision-timeout-seconds`)."""
    max_container_concurrency: int = 1000
    """Highest container-concurrency (`container-concurrency-max-limit`)."""
    zero_container_concurrency: bool = True
    """Whether a revision may leave its concurrency unlimited (`allow-container-concurrency-zero`)."""
    max_scale_limit: int = 0
    """Highest max-scale (`max-scale-limit`); 0 = no limit."""

    @classmethod
    def read(
        cls,
        features: Mapping[str, str],
        defaults: Mapping[str, str] | None = None,
        autoscaler: Mapping[str, str] | None = None,
    ) -> Self:
        """The `data` of `config-features`, `config-defaults` and `config-autoscaler`, as Knative reads them: what is
        absent or unreadable has Knative's default.
        """
        usual, limits = cls(), {**(defaults or {}), **(autoscaler or {})}
        return cls(
            node_selector=_flag(features, NODE_SELECTOR),
            tolerations=_flag(features, TOLERATIONS),
            runtime_class=_flag(features, RUNTIME_CLASS),
            empty_dir=features.get(EMPTY_DIR, "enabled").lower() not in ("disabled", "allowed"),
            max_timeout_s=_number(limits, "max-revision-timeout-seconds", usual.max_timeout_s),
            max_container_concurrency=_number(
                limits, "container-concurrency-max-limit", usual.max_container_concurrency
            ),
            zero_container_concurrency=limits.get("allow-container-concurrency-zero", "true").lower() == "true",
            max_scale_limit=_number(limits, "max-scale-limit", usual.max_scale_limit),
        )

    def check(self, scaling: ScalingPolicy) -> None:
        """Raises InvalidRequest, naming the option, for a policy that this cluster's limits do not let through."""
        for option, message in self._over(scaling):
            raise InvalidRequest(message, code="invalid_scaling_policy", field=option)

    def reasons(self, revision: Revision, scaling: ScalingPolicy, settings: KnativeSettings) -> tuple[Reason, ...]:
        """What of this revision's wishes the cluster does not give; empty when it gives all."""
        return tuple(_missing(self, revision, settings)) + tuple(
            Reason("LimitedByCluster", f"{message}; the limit is used until then", refused=False)
            for _, message in self._over(scaling)
        )

    def hinted(self, status: RevisionStatus, revision: Revision, settings: KnativeSettings) -> RevisionStatus:
        """The status; where no node takes the revision's pods, with what the cluster left out of their template."""
        if status.reason != "Unschedulable":
            return status
        hints = [reason.message for reason in _missing(self, revision, settings)]
        return replace(status, message="; ".join((status.message, *hints)))

    def _over(self, scaling: ScalingPolicy) -> Iterable[tuple[str, str]]:
        slots, scale = scaling.container_concurrency, max(scaling.max_scale, scaling.min_scale)
        if scaling.timeout_s > self.max_timeout_s:
            yield _at_most("timeout", self.max_timeout_s, "max-revision-timeout-seconds in config-defaults")
        if slots > self.max_container_concurrency:
            setting = "container-concurrency-max-limit in config-defaults"
            yield _at_most("container-concurrency", self.max_container_concurrency, setting)
        if not slots and not self.zero_container_concurrency:
            hint = "its operator may set allow-container-concurrency-zero in config-defaults"
            yield "container-concurrency", f"container-concurrency must be at least 1 on this cluster ({hint})"
        if self.max_scale_limit and scale > self.max_scale_limit:
            yield _at_most("max-scale", self.max_scale_limit, "max-scale-limit in config-autoscaler")


def _missing(features: Features, revision: Revision, settings: KnativeSettings) -> Iterable[Reason]:
    gpu = revision.runtime.endswith("-gpu")
    if not features.empty_dir:
        yield _disabled(EMPTY_DIR, "replicas keep their model in an emptyDir volume", refused=True)
    if runtime_class_of(revision, settings) and not features.runtime_class:
        # Left out, the replica would run with less isolation than the operator asked for, or without its GPU.
        yield _disabled(RUNTIME_CLASS, "replicas are to run in a RuntimeClass", refused=True)
    if gpu and settings.gpu_node_selector and not features.node_selector:
        yield _disabled(NODE_SELECTOR, "GPU replicas are to be bound to labelled nodes", refused=False)
    if gpu and settings.gpu_tolerations and not features.tolerations:
        yield _disabled(TOLERATIONS, "GPU replicas are to tolerate their nodes' taints", refused=False)


def runtime_class_of(revision: Revision, settings: KnativeSettings) -> str:
    """The RuntimeClass of the revision's pods; empty = the cluster's default."""
    return (revision.runtime.endswith("-gpu") and settings.gpu_runtime_class) or settings.runtime_class


def _at_most(option: str, limit: int, setting: str) -> tuple[str, str]:
    return option, f"{option} must be at most {limit} on this cluster (its operator may raise {setting})"


def _disabled(flag: str, wish: str, *, refused: bool) -> Reason:
    rest = "until then nothing is deployed" if refused else "until then they go without"
    return Reason(
        "FeatureDisabled", f'{wish}: set {flag}: "enabled" in Knative\'s config-features; {rest}', refused=refused
    )


def _flag(data: Mapping[str, str], name: str) -> bool:
    return data.get(name, "").lower() in _ON


def _number(data: Mapping[str, str], name: str, default: int) -> int:
    text = data.get(name, "").strip()
    return int(text) if text.isdecimal() else default
