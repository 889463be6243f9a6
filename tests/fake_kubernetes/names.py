"""The rules for names, labels and annotations."""

import re
from collections.abc import Iterator
from typing import Any

from fake_kubernetes.kinds import Kind

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ANNOTATION_BYTES = 256 * 1024


def check_metadata(meta: dict[str, Any], kind: Kind) -> list[str]:
    """What is wrong, as `field: message`."""
    return list(_wrong(meta, kind))


def _wrong(meta: dict[str, Any], kind: Kind) -> Iterator[str]:
    rule = _LABEL if kind.kind in ("Namespace", "Service") else _SUBDOMAIN
    if not rule.fullmatch(meta["name"]):
        yield f'metadata.name: Invalid value: "{meta["name"]}": must be a lowercase RFC 1123 name'
    for key, value in meta.get("labels", {}).items():
        if not _is_key(key):
            yield f'metadata.labels: Invalid value: "{key}": name part must consist of alphanumeric characters'
        if not _VALUE.fullmatch(value):
            yield f'metadata.labels: Invalid value: "{value}": a valid label must be 63 characters or less'
    annotations = meta.get("annotations", {})
    for key in annotations:
        if not _is_key(key):
            yield f'metadata.annotations: Invalid value: "{key}": name part must consist of alphanumeric characters'
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATION_BYTES:
        yield "metadata.annotations: Too long: may not be more than 262144 bytes"


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_QUALIFIED.fullmatch(name)) and (not slash or bool(_SUBDOMAIN.fullmatch(prefix)))
