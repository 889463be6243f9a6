"""Everything about an uploaded file that is decided without ONNX Runtime."""

import mmap
from dataclasses import dataclass
from pathlib import Path

from roost_runtimes.check_graph import check_graph
from roost_runtimes.check_parse import check_ir_version, opsets_of, parse
from roost_runtimes.check_signature import Signature, read_signature
from roost_runtimes.check_tensors import ADDRESS_MARKER
from roost_runtimes.check_verdict import Rejected


@dataclass(frozen=True, slots=True)
class Inspected:
    signature: Signature
    opset: dict[str, int]
    """Version by domain; the empty domain goes by `ai.onnx`."""
    ir_version: int


def inspect_file(path: Path) -> Inspected:
    """Raises Rejected. Neither the bytes nor the parsed model outlive this call."""
    data = _mapped(path)
    model = parse(memoryview(data))
    check_ir_version(model)
    opsets = opsets_of(model.opset_import, "the model")
    check_graph(model, opsets)
    if data.find(ADDRESS_MARKER) >= 0:
        raise Rejected("external_data", "the file names memory of the program that loads it")
    return Inspected(
        signature=read_signature(model.graph),
        opset={domain or "ai.onnx": version for domain, version in opsets.items()},
        ir_version=int(model.ir_version),
    )


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The file's bytes, without a copy of them."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return b""  # nothing that could be mapped
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
