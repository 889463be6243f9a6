"""A wish as the cluster is told it: today's settings and what the cluster allows, applied to a Service's revisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import orjson

from roost_platform.domain.services import Revision, Service
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import Document
from roost_platform.engines.knative.conditions import Trouble
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.reconcile import kept_revisions
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.template import knative_revision_name


@dataclass(frozen=True, slots=True)
class Applied:
    """The Knative Service as this gateway wrote it last."""

    digest: str
    uid: str
    generation: int


class Wish:
    """A Service, and what today's settings and the cluster's features make of its revisions."""

    def __init__(self, service: Service, *, settings: KnativeSettings, features: Features, fingerprint: str) -> None:
        self.service = service
        self.fingerprint = fingerprint
        self.features = features
        self.settings = settings
        self.refused: dict[str, Trouble] = {}
        """By Roost's name: what this cluster is not even asked for."""
        self.current: dict[str, str] = {}
        """By Roost's name: the Knative revision's."""
        for revision in service.revisions:
            trouble = self._refusal(revision)
            if trouble is not None:
                self.refused[revision.name] = trouble
            else:
                self.current[revision.name] = knative_revision_name(service, revision, settings, fingerprint, features)

    @cached_property
    def tags(self) -> Mapping[str, str]:
        return names.tags_of(self.service)

    @cached_property
    def kept(self) -> frozenset[str]:
        return frozenset(r.name for r in kept_revisions(self.service, self.settings.revisions_kept))

    def _refusal(self, revision: Revision) -> Trouble | None:
        if revision.runtime not in self.settings.images:
            return Trouble("RuntimeMissing", f"there is no image for the runtime {revision.runtime} here")
        for reason in self.features.reasons(revision, self.service.scaling, self.settings):
            if reason.refused:
                return Trouble(reason.reason, reason.message)
        return None


def digest_of(document: Document) -> str:
    return sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
