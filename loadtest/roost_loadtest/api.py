"""The few things that a run asks the platform before it begins: whose model this is, and what its inputs are."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from roost_loadtest.record import Target

_TIMEOUT_S = 30.0


class NotThere(Exception):
    """Nobody answers at the URL."""


class SaidNo(Exception):
    """The platform refused; the text says what and why."""


def key_for(tenant: str, environment: Mapping[str, str]) -> str:
    """ROOST_API_KEY_ACME for the tenant acme, else ROOST_API_KEY; empty when there is neither."""
    own = "ROOST_API_KEY_" + tenant.upper().replace("-", "_")
    return environment.get(own) or environment.get("ROOST_API_KEY", "")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def get(url: str, path: str, key: str) -> dict[str, Any]:
    """A JSON object. Raises NotThere and SaidNo."""
    request = Request(url.rstrip("/") + path, headers=bearer(key))  # noqa: S310 - http or https, checked with the plan
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            document = json.load(answer)
    except HTTPError as error:
        raise SaidNo(f"GET {path}: {error.code} {_reason(error)}") from None
    except (URLError, OSError) as error:
        raise NotThere(f"nobody answers at {url}: {getattr(error, 'reason', error)}") from None
    except ValueError:
        raise SaidNo(f"GET {path}: the answer is no JSON") from None
    if not isinstance(document, dict):
        raise SaidNo(f"GET {path}: the answer is no JSON object")
    return document


def tenant_of(url: str, model: str, key: str) -> str:
    """The tenant whose key this is, who has this model. Raises NotThere and SaidNo."""
    return str(get(url, f"/api/v1/models/{model}", key)["tenant"])


def inputs_of(url: str, target: Target, key: str) -> list[dict[str, Any]]:
    """Inputs as `GET /v2/models/M` has them. Raises NotThere and SaidNo."""
    inputs = get(url, target.path.removesuffix("/infer"), key).get("inputs")
    if not isinstance(inputs, list):
        raise SaidNo(f"{target} tells no inputs: give --payload FILE")
    return inputs


def _reason(error: HTTPError) -> str:
    try:
        document = json.load(error)
        return f"{document['error']} ({document['code']})"
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
