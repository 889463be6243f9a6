"""Long lists of numbers take a quicker way; it must refuse and give exactly what the careful way does."""

import numpy as np
import orjson
import pytest

from roost_runtimes.errors import RequestError
from roost_runtimes.model import TensorSpec
from roost_runtimes.tensors import Input, from_json

COUNT = 1000


def decode(datatype: str, data: list) -> np.ndarray:
    return from_json(Input(TensorSpec("x", datatype, (-1,))), [len(data)], len(data), data, "inputs[0]")


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_floats_and_integers_become_floats(datatype: str) -> None:
    data = [0.5 * i for i in range(COUNT - 2)] + [3, 1e30]
    assert decode(datatype, data).tolist() == np.array(data, decode(datatype, [1.0]).dtype).tolist()


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
def test_integers_at_both_ends_of_their_range(datatype: str) -> None:
    limits = np.iinfo(decode(datatype, [1]).dtype)
    data = [2] * (COUNT - 2) + [int(limits.min), int(limits.max)]
    assert decode(datatype, data).tolist() == data
    for outside in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(RequestError):
            decode(datatype, [2] * COUNT + [outside])


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64", "UINT64"])
@pytest.mark.parametrize("intruder", [True, False, None, "1", [1], {}])
@pytest.mark.parametrize("filler", [2, 0], ids=["few zeros", "all zeros"])
def test_what_is_no_number_is_refused_wherever_it_stands(datatype: str, intruder: object, filler: int) -> None:
    for place in (1, COUNT // 2, COUNT - 1):
        data: list = [filler] * COUNT
        data[place] = intruder
        with pytest.raises(RequestError) as refused:
            decode(datatype, data)
        assert refused.value.field == "inputs[0]"


@pytest.mark.parametrize("datatype", ["INT32", "INT64"])
def test_a_fraction_is_no_integer(datatype: str) -> None:
    with pytest.raises(RequestError):
        decode(datatype, [2] * COUNT + [2.5])


def test_a_number_too_large_for_single_precision_is_refused() -> None:
    with pytest.raises(RequestError):
        decode("FP32", [2.0] * COUNT + [1e39])


def test_nested_lists_take_the_same_way() -> None:
    data = orjson.loads(orjson.dumps([[float(i + j) for j in range(40)] for i in range(30)]))
    spec = Input(TensorSpec("x", "FP32", (-1, 40)))
    assert from_json(spec, [30, 40], 1200, data, "inputs[0]").tolist() == data
    data[7][3] = True
    with pytest.raises(RequestError):
        from_json(spec, [30, 40], 1200, data, "inputs[0]")
