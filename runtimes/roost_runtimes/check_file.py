"""Everything about an uploaded file that is decided without ONNX Runtime."""

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
    data = path.read_bytes()
    model = parse(data)
    check_ir_version(model)
    opsets = opsets_of(model.opset_import, "the model")
    check_graph(model, opsets)
    if ADDRESS_MARKER in data:
        raise Rejected("external_data", "the file names memory of the program that loads it")
    return Inspected(
        signature=read_signature(model.graph),
        opset={domain or "ai.onnx": version for domain, version in opsets.items()},
        ir_version=int(model.ir_version),
    )
