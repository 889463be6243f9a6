"""Requests to a model that does nothing, before there is a model: what is made on first use is then made before a wake.

In a zygote, children inherit what Python and the libraries have made; in a child, it then owns the pages that they write.
"""

from typing import Any

from roost_runtimes.codec import InferCodec

_BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0.5]}]}'


def rehearse(factory: Any, *, requests: int) -> None:
    """Read, run and answer so many, where the factory has a model for it (`smallest`). No session outlives this."""
    smallest = getattr(factory, "smallest", None)
    if smallest is None:
        return
    model = smallest()
    codec = InferCodec(model)
    for _ in range(requests):
        call = codec.decode(_BODY, None)
        call.encode(model.run(call.feeds, call.outputs))
    model.close()
