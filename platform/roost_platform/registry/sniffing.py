"""What the first bytes of an upload say it is. Only a courtesy: the checker decides what is a model."""

from roost_platform.domain.errors import ModelRejected

HEAD_BYTES = 512
"""As much of the file as is looked at."""

_STARTS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an XZ file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF model"),
    (b"<", "an HTML or XML page"),
    (b"{", "a JSON document"),
    (b"[", "a JSON document"),
    (b"--", "a multipart form"),
    *((bytes((0x80, protocol)), "a Python pickle") for protocol in range(2, 6)),
)
_AT_OFFSETS = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own ORT format"),
    (8, b"{", "a safetensors file"),
    (257, b"ustar", "a tar archive"),
)
# Tags with which a serialised ModelProto can begin: fields 1 to 8 and 14, then 20, 25 and 26 with tags of two bytes.
_FIRST_TAGS = (
    *(bytes((tag,)) for tag in (0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)),
    *(bytes((tag, 0x01)) for tag in (0xA2, 0xCA, 0xD2)),
)


def refuse_other_formats(head: bytes) -> None:
    """Raise ModelRejected (not_onnx) when a file that begins with `head` cannot be an ONNX model."""
    if not head:
        raise ModelRejected("the file is empty", code="not_onnx")
    found = next((what for start, what in _STARTS if head.startswith(start)), None)
    if found is None:
        found = next((what for offset, mark, what in _AT_OFFSETS if head[offset:].startswith(mark)), None)
    if found is not None:
        raise ModelRejected(f"the file looks like {found}; upload an ONNX model", code="not_onnx")
    if not head.startswith(_FIRST_TAGS):
        raise ModelRejected("the file does not begin as an ONNX model does", code="not_onnx")
