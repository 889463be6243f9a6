"""A sample request for a model, built from its signature, and the curl line that sends it."""

import json
import shlex
from typing import Any

SAMPLE_LIMIT = 64
"""Most numbers that a line for pasting may hold; larger bodies go through a file."""


def sample_body(signature: dict[str, Any]) -> dict[str, Any]:
    """An Open Inference Protocol request of zeros; dimensions of any length are 1."""
    return {"inputs": [_tensor(tensor) for tensor in signature["inputs"]]}


def _tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [1 if n < 0 else n for n in tensor["shape"]]
    datatype = tensor["datatype"]
    zero: Any = {"BOOL": False, "BYTES": ""}.get(datatype, 0.0 if datatype.startswith(("FP", "BF")) else 0)
    return {"name": tensor["name"], "datatype": datatype, "shape": shape, "data": [zero] * _count(shape)}


def _count(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def curl_line(*, model: str, predict_url: str, signature: dict[str, Any]) -> str:
    """A line for a POSIX shell in which ROOST_API_KEY is set; a large body is left to `roost predict --sample`."""
    body = sample_body(signature)
    call = f'curl -s {shlex.quote(predict_url)} -H "Authorization: Bearer $ROOST_API_KEY"'
    call += " -H 'Content-Type: application/json'"
    if sum(_count(tensor["shape"]) for tensor in body["inputs"]) > SAMPLE_LIMIT:
        return f"roost predict {shlex.quote(model)} --sample | {call} --data-binary @-"
    return f"{call} --data {shlex.quote(json.dumps(body, separators=(',', ':')))}"


def needs_binary(signature: dict[str, Any]) -> bool:
    """Whether an input has a datatype that JSON cannot carry."""
    return any(tensor["datatype"] in {"FP16", "BF16"} for tensor in signature["inputs"])
