"""From a URL path to what it asks for. Pure; results for well-formed paths are remembered."""

import re
from dataclasses import dataclass
from enum import Enum

from roost_platform.domain.errors import NotFound

PREFIX = "/t/"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ALIAS = r"(?!(?:infer|ready)(?:/|$))[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATH = re.compile(
    rf"/t/(?P<tenant>{_LABEL})"
    rf"(?P<inner>/?|/v2/?|/v2/health/(?:live|ready)|/v2/models|/v1/models"
    rf"|/v2/models/(?P<model>{_LABEL})(?:/versions/(?P<version>[1-9][0-9]{{0,8}}|{_ALIAS}))?(?P<what>/infer|/ready)?"
    rf"|/v1/models/(?P<v1model>{_LABEL})(?P<verb>:predict)?)"
)
_REMEMBERED = 10_000


class Ask(Enum):
    ALIVE = "alive"
    SERVER = "server"
    LIVE = "live"
    READY = "ready"
    MODELS = "models"
    V1_MODELS = "v1_models"
    METADATA = "metadata"
    MODEL_READY = "model_ready"
    V1_MODEL = "v1_model"
    INFER = "infer"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `inner` is the path as the replica knows it, without the tenant."""

    ask: Ask
    tenant: str
    inner: str
    model: str = ""
    version: int | str | None = None
    """Its number or an alias."""


class Paths:
    """Parses paths; a busy client's path is parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, Target] = {}

    def parse(self, path: str) -> Target:
        """Raises NotFound for a path that is none of ours."""
        target = self._known.get(path)
        if target is None:
            target = _parse(path)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[path] = target
        return target


_FIXED = {
    "": Ask.ALIVE,
    "/": Ask.ALIVE,
    "/v2": Ask.SERVER,
    "/v2/": Ask.SERVER,
    "/v2/health/live": Ask.LIVE,
    "/v2/health/ready": Ask.READY,
    "/v2/models": Ask.MODELS,
    "/v1/models": Ask.V1_MODELS,
}


def _parse(path: str) -> Target:
    match = _PATH.fullmatch(path)
    if match is None:
        raise NotFound("no such path")
    tenant, inner = match["tenant"], match["inner"]
    if inner in _FIXED:
        return Target(_FIXED[inner], tenant, inner)
    if match["v1model"]:
        ask = Ask.INFER if match["verb"] else Ask.V1_MODEL
        return Target(ask, tenant, inner, match["v1model"])
    ask = {"/infer": Ask.INFER, "/ready": Ask.MODEL_READY, None: Ask.METADATA}[match["what"]]
    named = match["version"]
    if named is None or named.isdigit():
        return Target(ask, tenant, inner, match["model"], int(named) if named else None)
    known = inner.replace(f"/versions/{named}", "")  # replicas know no aliases
    return Target(ask, tenant, known, match["model"], named)
