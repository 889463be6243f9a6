"""Arrays to an infer answer of the Open Inference Protocol: a JSON document, and raw tensors behind it where asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from roost_runtimes.model import Array, TensorSpec
from roost_runtimes.tensors import Buffer, to_binary, to_json

JSON_HEADERS = (("content-type", "application/json"),)
Encoded = tuple[tuple[tuple[str, str], ...], list[Buffer]]
"""Headers and body pieces of an answer."""


class Writer:
    """Writes the answers of requests that ask for the same outputs in the same way."""

    __slots__ = ("_head", "_wanted")

    def __init__(self, head: Mapping[str, str], wanted: Sequence[tuple[TensorSpec, bool]]) -> None:
        """`head`: members before the outputs. `wanted`: the outputs in order, and whether each goes as binary data."""
        self._head = head
        self._wanted = wanted

    def with_id(self, request_id: str) -> "Writer":
        """The same for one request, whose id is told back."""
        return Writer({**self._head, "id": request_id}, self._wanted)

    def __call__(self, arrays: Sequence[Array]) -> Encoded:
        """The answer that holds these arrays, one for each output."""
        outputs: list[dict[str, Any]] = []
        tail: list[Buffer] = []
        for (spec, binary), array in zip(self._wanted, arrays, strict=True):
            output: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
            if binary:
                raw = to_binary(array)
                output["parameters"] = {"binary_data_size": len(raw)}
                tail.append(raw)
            else:
                output["data"] = to_json(array)
            outputs.append(output)
        document = orjson.dumps({**self._head, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        if not tail:
            return JSON_HEADERS, [document]
        headers = (
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", str(len(document))),
        )
        return headers, [document, *tail]
