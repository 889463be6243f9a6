"""The file that a replica was told to serve, and whether it is the one that was uploaded."""

import hashlib
from pathlib import Path

from roost_runtimes.model import ModelError


def check_digest(path: Path, expected: str) -> None:
    """Raises ModelError (wrong_digest) unless the file's sha256 is `expected`: 64 hexadecimal digits, `sha256:` allowed."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"the model file cannot be read: {error.strerror}", code="not_found") from error
    if found != expected.removeprefix("sha256:").lower():
        raise ModelError(f"the model file has sha256 {found}, not the one expected", code="wrong_digest")
