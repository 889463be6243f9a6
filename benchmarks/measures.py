"""All measures, by the names that `--only` takes."""

from bench import Measure
from measures_codec import codec
from measures_idle import asleep, replicas
from measures_metering import metering
from measures_neighbour import neighbour
from measures_rate import half_load, slow, tensor, throughput
from measures_upload import upload
from measures_wake import crowd, wake
from models import BINARY, JSON

MEASURES: dict[str, Measure] = {
    "wake tiny": Measure(lambda bench, rotation: wake(bench, rotation, "tiny")),
    "wake cnn": Measure(lambda bench, rotation: wake(bench, rotation, "cnn")),
    "wake mlp": Measure(lambda bench, rotation: wake(bench, rotation, "mlp"), rotations=3),
    "crowd": Measure(crowd),
    "throughput tiny c16": Measure(lambda bench, rotation: throughput(bench, rotation, "tiny", 16)),
    "throughput tiny c64": Measure(lambda bench, rotation: throughput(bench, rotation, "tiny", 64)),
    "throughput cnn c16": Measure(lambda bench, rotation: throughput(bench, rotation, "cnn", 16), rotations=3),
    "metering": Measure(metering),
    "slow model": Measure(slow, rotations=3),
    "half load": Measure(half_load),
    "tensor json": Measure(lambda bench, rotation: tensor(bench, rotation, JSON), rotations=3),
    "tensor binary": Measure(lambda bench, rotation: tensor(bench, rotation, BINARY), rotations=3),
    "codec": Measure(lambda bench, _: codec(bench)),
    "asleep": Measure(asleep, rotations=3),
    "replicas": Measure(replicas, rotations=3),
    "upload": Measure(lambda bench, rotation: upload(bench, rotation, "cnn")),
    "neighbour": Measure(neighbour),
}
"""In this order: what wakes models comes first, and before the next they are asleep again."""
