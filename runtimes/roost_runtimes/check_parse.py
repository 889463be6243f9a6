"""From bytes to a model whose format, IR version and opsets are in range; nothing in it has been looked at further."""

from functools import cache

import onnx
from google.protobuf.message import DecodeError
from onnx import defs

from roost_runtimes.check_verdict import Rejected, field_of, shown

ONNX = ""
ONNX_ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"
"""Operators that are built into ONNX Runtime; nothing is loaded for them."""
DOMAINS = {ONNX: "ai.onnx", ONNX_ML: ONNX_ML, MICROSOFT: MICROSOFT}
"""Every operator domain that is served, with the name it goes by."""

_LARGEST_PROTOBUF = 2**31 - 1
_OLDEST_IR = 3
_OLDEST_OPSET = 7  # ONNX Runtime promises no older one; those that it opens it can get wrong without a word


def parse(data: memoryview) -> onnx.ModelProto:
    """Read a model without following any reference out of it. Raises Rejected (not_onnx, too_deep)."""
    if not data:
        raise Rejected("not_onnx", "the file is empty")
    if len(data) > _LARGEST_PROTOBUF:
        raise Rejected("not_onnx", "the file is over 2 GB, which no ONNX file without external data can be")
    if bytes(data[4:8]) == b"ORTM":
        raise Rejected(
            "not_onnx", "the file is in ONNX Runtime's own ORT format; upload the ONNX file it was made from"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if "depth" in str(error).lower() or "recursion" in str(error).lower():
            raise Rejected("too_deep", "the graphs in the file are nested too deeply") from None
        raise Rejected("not_onnx", "the file is not an ONNX model, or it is cut short") from None
    if not model.HasField("graph"):
        raise Rejected("not_onnx", "the file is not an ONNX model: it holds no graph")
    return model


def check_ir_version(model: onnx.ModelProto) -> None:
    """Raises Rejected (unsupported_ir) when the format's version is out of range."""
    newest = int(onnx.IR_VERSION)
    if not model.HasField("ir_version") or not _OLDEST_IR <= model.ir_version <= newest:
        said = f"IR version {model.ir_version}" if model.HasField("ir_version") else "no IR version"
        raise Rejected(
            "unsupported_ir", f"the file says {said}; supported are {_OLDEST_IR} to {newest}", field="ir_version"
        )


@cache
def opset_range(domain: str) -> tuple[int, int]:
    """Oldest and newest opset of a served domain."""
    if domain == ONNX:
        return _OLDEST_OPSET, int(defs.onnx_opset_version())
    if domain == ONNX_ML:
        return 1, max(schema.since_version for schema in defs.get_all_schemas() if schema.domain == ONNX_ML)
    return 1, 1


def domain_of(name: str) -> str:
    """`ai.onnx` is another spelling of the empty domain."""
    return ONNX if name == "ai.onnx" else name


def opsets_of(imports: list[onnx.OperatorSetIdProto], owner: str) -> dict[str, int]:
    """Version by domain of a model's or function's imports. Raises Rejected (unsupported_opset).

    Domains that are not served are kept, unchecked: a model may define functions in them.
    """
    opsets: dict[str, int] = {}
    for entry in imports:
        domain = domain_of(entry.domain)
        label = shown(domain or "ai.onnx")
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise Rejected(
                "unsupported_opset",
                f"{owner} imports domain {label} in two versions",
                field="opset_import",
            )
        if domain not in DOMAINS:
            continue
        oldest, newest = opset_range(domain)
        if not oldest <= entry.version <= newest:
            raise Rejected(
                "unsupported_opset",
                f"{owner} uses opset {entry.version} of {DOMAINS[domain]}; supported are {oldest} to {newest}",
                field=field_of(f"opset_import {DOMAINS[domain]}"),
            )
    if not opsets:
        oldest, newest = opset_range(ONNX)
        raise Rejected(
            "unsupported_opset",
            f"{owner} names no opset; supported are {oldest} to {newest} of ai.onnx",
            field="opset_import",
        )
    return opsets
