"""How a model's calls find their version, beside the split: what sticks, who is a tester, and which names versions have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.names import check_name

MOST_RULES = 16
_TAKEN = ("infer", "ready")
_LIKE_A_VERSION = re.compile(r"v[0-9]+")
MOST_ALIASES = 32
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_KEPT_BACK_FAMILIES = ("content-", "k-", "knative-", "roost-", "x-roost-")
_KEPT_BACK = frozenset(
    {
        "authorization",
        "cookie",
        "host",
        "x-request-id",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
    }
    | {"proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
"""Headers that nobody is routed by: they are the gateway's or the engine's business, of one hop only, or a secret."""


class StickyBy(StrEnum):
    HEADER = "header"
    COOKIE = "cookie"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Sticky:
    """What keeps a caller at one version: a header's or a cookie's value, or the key that it calls with."""

    by: StickyBy
    name: str = ""
    """Of the header (in lower case) or cookie; empty for the key."""

    def __post_init__(self) -> None:
        if self.by is StickyBy.KEY:
            if self.name:
                raise InvalidRequest("sticking by the key needs no name", field="sticky")
        elif self.by is StickyBy.HEADER:
            _check_header(self.name, field="sticky")
        elif not _TOKEN.fullmatch(self.name.lower()):
            raise InvalidRequest("sticking by a cookie needs the cookie's name", field="sticky")


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls with this header go to this version, whatever the split says."""

    header: str
    """In lower case."""
    value: str
    version: int

    def __post_init__(self) -> None:
        _check_header(self.header, field="rules")
        if not _VALUE.fullmatch(self.value):
            raise InvalidRequest("a rule's value is 1 to 256 printable ASCII characters", field="rules")


@dataclass(frozen=True, slots=True)
class Routing:
    """All of it for one model. Equal ones route alike."""

    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = ()
    """The first that matches decides."""
    aliases: tuple[tuple[str, int], ...] = ()
    """Names of versions, sorted; usable wherever a version's number is."""

    def __post_init__(self) -> None:
        if len(self.rules) > MOST_RULES:
            raise InvalidRequest(f"a model has at most {MOST_RULES} rules", field="rules")
        if len(self.aliases) > MOST_ALIASES:
            raise InvalidRequest(f"a model has at most {MOST_ALIASES} aliases", field="alias")

    def alias(self, name: str) -> int | None:
        """The version that has this name."""
        return dict(self.aliases).get(name)

    def with_alias(self, name: str, version: int | None) -> Self:
        """With the name given to a version, or taken away. Raises InvalidRequest for what cannot be a name."""
        named = dict(self.aliases)
        named.pop(name, None)
        if version is not None:
            named[check_alias(name)] = version
        return type(self)(self.sticky, self.rules, tuple(sorted(named.items())))

    def to_json(self) -> dict[str, Any]:
        """Without what is not set."""
        document: dict[str, Any] = {}
        if self.sticky is not None:
            document["sticky"] = {"by": self.sticky.by, "name": self.sticky.name}
        if self.rules:
            document["rules"] = [{"header": r.header, "value": r.value, "version": r.version} for r in self.rules]
        if self.aliases:
            document["aliases"] = dict(self.aliases)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        sticky = document.get("sticky")
        return cls(
            sticky=None if sticky is None else Sticky(StickyBy(sticky["by"]), sticky["name"]),
            rules=tuple(Rule(**rule) for rule in document.get("rules", ())),
            aliases=tuple(sorted(document.get("aliases", {}).items())),
        )


def check_alias(name: str) -> str:
    """Raises InvalidRequest; an alias begins with a letter, so that none looks like a version's number."""
    if not check_name(name, field="alias")[0].isalpha():
        raise InvalidRequest("an alias begins with a letter", field="alias")
    if name in _TAKEN or _LIKE_A_VERSION.fullmatch(name):
        raise InvalidRequest(f"{name} cannot be an alias: it could be taken for something else", field="alias")
    return name


def _check_header(name: str, *, field: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise InvalidRequest("a header is named by its name in lower case", field=field)
    if name in _KEPT_BACK or name.startswith(_KEPT_BACK_FAMILIES):
        raise InvalidRequest(f"calls cannot be routed by the header {name}", field=field)
