"""Names that tenants choose: DNS labels, so that they fit a URL, a Kubernetes object and a log line unescaped."""

import re

from roost_platform.domain.errors import InvalidRequest

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_name(value: str, *, field: str) -> str:
    """Return `value` if it is a DNS label (RFC 1123: lower-case letters, digits and inner hyphens, 1 to 63 long).

    Raises InvalidRequest naming `field` otherwise.
    """
    if not _LABEL.fullmatch(value):
        raise InvalidRequest(
            f"{field} must be 1 to 63 lower-case letters, digits or hyphens, and begin and end with a letter or digit",
            code="invalid_name",
            field=field,
        )
    return value
