"""What makes a model, named on a command line as `module:callable`."""

import importlib
from collections.abc import Callable

from roost_runtimes.model import Model

ModelFactory = Callable[..., Model]

ONNX = "roost_runtimes.onnx_model:OnnxModel"
"""The factory where none is named."""


def load_factory(reference: str) -> ModelFactory:
    """The callable behind `module:attribute`; it makes a Model from (path, name=, version=, baked=)."""
    module, _, attribute = reference.partition(":")
    factory: ModelFactory = getattr(importlib.import_module(module), attribute)
    return factory
