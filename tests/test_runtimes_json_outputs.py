"""Numbers in JSON answers are the shortest text that reads back as the same number, to the last bit."""

import json

import numpy as np
import pytest

from shown_models import codec


@pytest.mark.parametrize(("datatype", "bits"), [("FP32", np.uint32), ("FP64", np.uint64)])
def test_floats_read_back_as_themselves(datatype: str, bits: type) -> None:
    using = codec(datatype, (-1,))
    dtype = using._inputs["x"].datatype.numpy
    random = np.random.default_rng(7)
    drawn = random.integers(0, np.iinfo(bits).max, 50_000, dtype=bits, endpoint=True).view(dtype)
    limits = np.finfo(dtype)
    ends = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, -0.0, 0.1, 1 / 3, 2.0**24 + 1]
    values = np.concatenate([drawn[np.isfinite(drawn)], np.array(ends, dtype)])
    call = using.decode(b'{"inputs":[{"name":"x","datatype":"%s","shape":[1],"data":[1]}]}' % datatype.encode(), None)
    text = b"".join(call.encode([values])[1]).decode()
    numbers = json.loads(text, parse_float=str, parse_int=str)["outputs"][0]["data"]
    assert np.array([dtype.type(float(number)) for number in numbers]).tobytes() == values.tobytes()
    for number, value in zip(numbers, values, strict=True):
        assert _digits(number) <= _digits(np.format_float_scientific(value, unique=True, trim="-")), number


def _digits(number: str) -> int:
    return len(number.lower().partition("e")[0].lstrip("-").replace(".", "").strip("0"))


@pytest.mark.parametrize("datatype", ["INT64", "UINT64", "INT8", "UINT8"])
def test_integers_are_written_to_the_last_digit(datatype: str) -> None:
    using = codec(datatype, (-1,))
    ends = np.iinfo(using._inputs["x"].datatype.numpy)
    values = np.array([ends.min, ends.max, 0, 1], ends.dtype)
    call = using.decode(b'{"inputs":[{"name":"x","datatype":"%s","shape":[1],"data":[1]}]}' % datatype.encode(), None)
    assert json.loads(b"".join(call.encode([values])[1]))["outputs"][0]["data"] == [int(ends.min), int(ends.max), 0, 1]
