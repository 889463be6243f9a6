"""What a model takes and gives: tensors by name, with Open Inference Protocol datatypes and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `datatype` is an OIP name (FP32, INT64, BYTES …); -1 in `shape` means any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_json(self) -> dict[str, Any]:
        return {"inputs": [t.to_json() for t in self.inputs], "outputs": [t.to_json() for t in self.outputs]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Signature":
        def tensors(key: str) -> tuple[Tensor, ...]:
            return tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"])) for t in document[key])

        return cls(inputs=tensors("inputs"), outputs=tensors("outputs"))
