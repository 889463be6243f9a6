"""Models that are only looked at: signatures for codecs to read."""

from roost_runtimes.codec import InferCodec
from roost_runtimes.model import Model, TensorSpec


class Shown(Model):
    """A model that is only looked at."""

    platform = "test"

    def __init__(self, inputs, outputs=None):
        self.name, self.version = "m", "3"
        self.inputs = [TensorSpec(*spec) for spec in inputs]
        self.outputs = self.inputs if outputs is None else [TensorSpec(*spec) for spec in outputs]

    def run(self, feeds, outputs=None, control=None):
        return list(feeds.values())

    def warm_up(self):
        pass


def codec(datatype="FP32", shape=(-1, 4)) -> InferCodec:
    return InferCodec(Shown([("x", datatype, shape)]))
