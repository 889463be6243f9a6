"""Where the command finds its keys: arguments, the environment, the saved file, the server's own key file.

The saved file is `~/.config/roost/credentials.toml`, readable by its owner only:

    ["http://127.0.0.1:8000"]
    tenant = "acme"
    key = "roost_…"
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

OPERATOR_KEY_FILE = "operator.key"
"""In the server's data folder; `roost serve` writes it on its first start."""


def tenant_key(url: str, environment: Mapping[str, str]) -> str | None:
    """The key for a tenant's commands: ROOST_API_KEY, or the one saved for this URL."""
    return environment.get("ROOST_API_KEY") or _read(credentials_path(environment)).get(url, {}).get("key")


def operator_key(environment: Mapping[str, str], *, loopback: bool) -> str | None:
    """The operator's key: ROOST_OPERATOR_KEY, or the key file in the data folder.

    The file is for this machine's own server: unless the URL is a `loopback` one, it is not read.
    """
    if key := environment.get("ROOST_OPERATOR_KEY"):
        return key
    if not loopback:
        return None
    try:
        return (Path(environment.get("ROOST_DATA", "roost-data")) / OPERATOR_KEY_FILE).read_text().strip() or None
    except OSError:
        return None


def credentials_path(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".config"
    return Path(base) / "roost" / "credentials.toml"


def save(url: str, *, tenant: str, key: str, environment: Mapping[str, str]) -> Path:
    """Keep `key` for `url`, in place of an earlier one; returns the file. Raises OSError when it cannot be written."""
    path = credentials_path(environment)
    entries = _read(path) | {url: {"tenant": tenant, "key": key}}
    # Every JSON string is a TOML basic string, so json.dumps quotes for both.
    text = "\n".join(
        f"[{json.dumps(name)}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in entry.items())
        for name, entry in entries.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {name: entry for name, entry in document.items() if isinstance(entry, dict)}
