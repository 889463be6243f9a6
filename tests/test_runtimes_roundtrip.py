"""Tensors survive the way through the codec, and noise does not get in."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roost_runtimes.datatypes import DATATYPES
from roost_runtimes.errors import RequestError
from roost_runtimes.tensors import to_binary
from shown_models import codec


def arrays(datatype: str):
    shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    if datatype == "BYTES":
        return hnp.arrays(np.dtype(object), shapes, elements=st.text(max_size=8), fill=st.nothing())
    elements = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
    return hnp.arrays(DATATYPES[datatype].numpy, shapes, elements=elements)


@given(data=st.data(), datatype=st.sampled_from(sorted(DATATYPES)), as_binary=st.booleans())
def test_every_tensor_survives_the_round_trip(data, datatype, as_binary):
    array = data.draw(arrays(datatype))
    as_binary = as_binary or datatype == "FP16"
    using = codec(datatype, (-1,) * array.ndim)
    one = {"name": "x", "datatype": datatype, "shape": array.shape}
    if as_binary:
        raw = bytes(to_binary(array))
        head = orjson.dumps(
            {
                "inputs": [one | {"parameters": {"binary_data_size": len(raw)}}],
                "parameters": {"binary_data_output": True},
            }
        )
        call = using.decode(head + raw, str(len(head)))
    else:
        call = using.decode(orjson.dumps({"inputs": [one | {"data": array.tolist()}]}), None)
    decoded = call.feeds["x"]
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)
    _, pieces = call.encode([decoded])
    output = orjson.loads(pieces[0])["outputs"][0]
    assert output["shape"] == list(array.shape)
    if as_binary:
        assert bytes(pieces[1]) == raw
    else:
        np.testing.assert_array_equal(np.array(output["data"], array.dtype).reshape(array.shape), array)


@given(body=st.binary(max_size=200), header=st.none() | st.text(max_size=4) | st.integers(0, 220).map(str))
def test_noise_is_refused_and_never_crashes(body, header):
    using = codec("FP32", (2, -1, -1))
    with pytest.raises(RequestError):
        using.decode(body, header)
