"""Names of everything that the Knative engine makes: legal, stable, and never the same for two things.

Knative makes Kubernetes Services of its own in a tenant's namespace, and they must not meet either: `<service>`,
`<tag>-<service>`, `<knative revision>` and `<knative revision>-private`. So a model whose name looks like one of these
(`v1-iris`, `g2-iris`, `iris-00001-abc123`) takes a hashed name, as do names that are too long or begin with a digit
(Knative wants DNS labels of RFC 1035).
"""

import re
from hashlib import sha256

from roost_platform.domain.services import Revision, Service, ServiceKey
from roost_platform.engines.knative.settings import KnativeSettings

MANAGED_BY = "app.kubernetes.io/managed-by"
TENANT = "roost.dev/tenant"
MODEL = "roost.dev/model"
REVISION = "roost.dev/revision"
VERSION = "roost.dev/version"
SECRET_FINGERPRINT = "roost.dev/secret-fingerprint"  # noqa: S105 - the name of an annotation

_LABEL_LENGTH = 63
_SERVICE_LENGTH = 46
"""Leaves 17 characters for `-00001-abc123` behind it (nine digits at most) and for a tag before it."""
_TAG_LENGTH = _LABEL_LENGTH - _SERVICE_LENGTH - 1
_MOST_GENERATIONS = 10**9

_HASHED = r"m-.*-[0-9a-f]{12}"
_TAGGED = r"(v\d+|g\d+|t[0-9a-f]{12})-.*"
_REVISION_LIKE = r".*-\d{5,}-[0-9a-f]{6}(-private)?"
_TAKEN = re.compile(f"{_HASHED}|{_TAGGED}|{_REVISION_LIKE}")
_RFC_1035 = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def namespace_of(tenant: str, settings: KnativeSettings) -> str:
    """The tenant's namespace: a DNS label that is no other tenant's and none of those that Roost stands on."""
    name = settings.namespace_prefix + tenant
    taken = (
        settings.system_namespace,
        settings.serving_namespace,
        settings.ingress_namespace,
        settings.dns_namespace,
        settings.monitoring_namespace,
    )
    if len(name) <= _LABEL_LENGTH and name not in taken and not re.fullmatch(_HASHED, tenant):
        return name
    return settings.namespace_prefix + _hashed(tenant, _LABEL_LENGTH - len(settings.namespace_prefix))


def service_name(model: str) -> str:
    """The Knative Service of a model, unique in its tenant's namespace: at most 46 characters, RFC 1035."""
    if len(model) <= _SERVICE_LENGTH and _RFC_1035.fullmatch(model) and not _TAKEN.fullmatch(model):
        return model
    return _hashed(model, _SERVICE_LENGTH)


def secret_name(model: str) -> str:
    """The Secret that holds the service's secret under the key `secret`."""
    return f"{service_name(model)}-secret"


def generation_of(revision: str) -> int:
    """The number at the end of a revision's name: 3 of `iris-00003`; 0 without one."""
    digits = re.search(r"\d*$", revision)
    return int(digits.group() or 0) if digits else 0


def revision_name(service: str, generation: int, template_hash: str) -> str:
    """A Knative revision's name of its Service's, the generation and six hexadecimal digits of the template's hash."""
    return f"{service}-{generation % _MOST_GENERATIONS:05d}-{template_hash[:6]}"


def tags_of(service: Service) -> dict[str, str]:
    """The tag of each revision, by Roost's name of it: `v<version>` for the preferred one of a version (the newest that
    was proven, else the newest) and `v<version>-g<generation>` for the others.
    """
    tags: dict[str, str] = {}
    given: set[str] = set()
    for revision in sorted(service.revisions, key=_preference, reverse=True):
        plain = f"v{revision.version}"
        tag = f"{plain}-g{generation_of(revision.name)}" if plain in given else plain
        if tag in given or len(tag) > _TAG_LENGTH:
            tag = f"t{_digest(f'{revision.version}/{revision.name}')[:12]}"
        given |= {plain, tag}
        tags[revision.name] = tag
    return tags


def host_of(tag: str, key: ServiceKey, settings: KnativeSettings) -> str:
    """The Host that the cluster-local ingress knows the tagged revision by."""
    return f"{tag}-{service_name(key.model)}.{namespace_of(key.tenant, settings)}.svc.{settings.cluster_domain}"


def label_value(text: str) -> str:
    """`text` where a label may hold it (63 characters at most), else a shorter form of its own."""
    return text if len(text) <= _LABEL_LENGTH else _hashed(text, _LABEL_LENGTH)


def tenant_labels(tenant: str) -> dict[str, str]:
    """Labels of whatever belongs to a tenant."""
    return {MANAGED_BY: "roost", TENANT: tenant}


def service_labels(key: ServiceKey) -> dict[str, str]:
    """Labels of whatever belongs to a model."""
    return tenant_labels(key.tenant) | {MODEL: key.model}


def revision_labels(key: ServiceKey, revision: Revision) -> dict[str, str]:
    """Labels of a revision's template, and so of its pods."""
    return service_labels(key) | {REVISION: label_value(revision.name), VERSION: str(revision.version)}


def _preference(revision: Revision) -> tuple[bool, int, str]:
    return revision.proven, generation_of(revision.name), revision.name


def _hashed(name: str, length: int) -> str:
    return f"m-{name[: length - 15].strip('-')}-{_digest(name)[:12]}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
