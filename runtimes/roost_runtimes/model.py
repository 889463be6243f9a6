"""The Model port: what the serving core needs of a model, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `datatype` is an Open Inference Protocol name; -1 in `shape` means any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class ModelError(Exception):
    """The model cannot be loaded, or refused or failed this input; the message is fit for a client to read.

    `code` is `model_error` (a step of the model failed), `invalid_input` (the inputs do not fit it), `out_of_memory`
    or `cancelled`.
    """

    def __init__(self, message: str, *, code: str = "model_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class RunControl:
    """A handle on one run, made before it and used from any thread. A model that cannot stop may use this class."""

    def cancel(self) -> None:
        """Ask the run to end early; it then raises ModelError with code `cancelled`. May have no effect."""


class Model(ABC):
    """One version of a model, loaded. `run` may be called from several threads at once."""

    name: str
    version: str
    platform: str
    """What runs it, in the words of the protocol's model metadata."""
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    @abstractmethod
    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, control: RunControl | None = None
    ) -> list[Array]:
        """Compute the named outputs (all, in signature order, when None) from one array per input.

        Feeds have been checked against `inputs`; they may be read-only. BYTES tensors are object arrays of str.
        Raises ModelError.
        """

    def control(self) -> RunControl:
        """A fresh handle for one run."""
        return RunControl()

    @abstractmethod
    def warm_up(self) -> None:
        """Run once on inputs of zeros. Raises ModelError when the model refuses zeros, which is no fault of it."""

    def close(self) -> None:  # noqa: B027 - most models hold nothing that the collector does not find
        """Give back what the model holds. Nothing may be called after."""
