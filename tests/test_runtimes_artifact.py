import hashlib
from pathlib import Path

import pytest

from roost_runtimes.artifact import check_digest
from roost_runtimes.model import ModelError


def test_the_right_file_passes_however_its_digest_is_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"bytes")
    digest = hashlib.sha256(b"bytes").hexdigest()
    for written in (digest, digest.upper(), f"sha256:{digest}"):
        check_digest(path, written)


def test_another_file_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    digest = hashlib.sha256(b"bytes").hexdigest()
    with pytest.raises(ModelError) as missing:
        check_digest(path, digest)
    path.write_bytes(b"bytez")
    with pytest.raises(ModelError) as other:
        check_digest(path, digest)
    assert (missing.value.code, other.value.code) == ("not_found", "wrong_digest")
    assert str(tmp_path) not in missing.value.message + other.value.message
