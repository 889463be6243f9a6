"""What an upload's headers say about its body: its type, and the digest it must have."""

import base64
import binascii
import re

from starlette.datastructures import Headers

from roost_platform.domain.errors import InvalidRequest, UnsupportedMedia

_TAKEN = ("application/octet-stream", "application/onnx", "application/x-onnx")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*")


def refuse_other_media(headers: Headers) -> None:
    """Raises UnsupportedMedia for a body that says it is something else than the raw file, or is encoded."""
    kind = headers.get("content-type", _TAKEN[0]).partition(";")[0].strip().lower()
    if kind not in _TAKEN:
        raise UnsupportedMedia(
            f"send the ONNX file itself as the body, as {_TAKEN[0]}; this is not a form, an archive or a document",
            field="Content-Type",
        )
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("send the file as it is, without a content encoding", field="Content-Encoding")


def expected_digest(headers: Headers) -> str | None:
    """The sha256 that the body must have, 64 hexadecimal digits, from `Content-Digest` (RFC 9530) or `X-Content-SHA256`.

    Raises InvalidRequest when a header cannot be read or the two disagree: a guard that is ignored guards nothing.
    """
    digests: set[str] = set()
    standard = ", ".join(headers.getlist("content-digest"))
    if standard:
        digests.add(_content_digest(standard))
    for value in headers.getlist("x-content-sha256"):
        if not _HEX.fullmatch(value):
            raise InvalidRequest("X-Content-SHA256 must be 64 hexadecimal digits", field="X-Content-SHA256")
        digests.add(value.lower())
    if len(digests) > 1:
        raise InvalidRequest("the digest headers contradict each other", field="Content-Digest")
    return digests.pop() if digests else None


def _content_digest(value: str) -> str:
    members: dict[str, str] = {}
    for part in value.split(","):
        match = _MEMBER.fullmatch(part)
        if match is None:
            raise InvalidRequest("Content-Digest must look like sha-256=:BASE64:", field="Content-Digest")
        members[match[1]] = match[2]
    if "sha-256" not in members:
        raise InvalidRequest("Content-Digest must hold a sha-256 member", field="Content-Digest")
    try:
        digest = base64.b64decode(members["sha-256"], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequest("Content-Digest: sha-256 must be 32 bytes in Base64", field="Content-Digest")
    return digest.hex()
