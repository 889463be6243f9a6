"""Long bodies are cut up and their numbers read apart: the arrays and the refusals are those of the ordinary way."""

import json
import struct
from itertools import count

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from json_bodies import ordinary, whole
from roost_runtimes.codec import InferCodec
from roost_runtimes.errors import RequestError
from roost_runtimes.long_lists import LEAST_BYTES, cut
from shown_models import Shown, codec

COUNT = 3000
NUMBERS = [round(0.37 * i - 500, 4) for i in range(COUNT)]


def body(data=None, *, datatype="FP32", shape=None, separators=(",", ":"), indent=None, **document) -> bytes:
    data = NUMBERS if data is None else data
    tensor = {"name": "x", "datatype": datatype, "shape": shape or [len(data)], "data": data}
    text = json.dumps({"inputs": [tensor], **document}, separators=separators, indent=indent).encode()
    assert len(text) >= LEAST_BYTES
    return text


def read_apart(using: InferCodec, text: bytes) -> bool:
    return using._decode_long(text, None) is not None


FREE = codec("FP32", (-1,))


@pytest.mark.parametrize(
    "datatype", ["FP32", "FP64", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))]
)
def test_numbers_of_every_width_are_read_apart_up_to_the_ends_of_their_range(datatype: str) -> None:
    using = codec(datatype, (-1,))
    dtype = whole(using, body([1] * 5000, datatype=datatype))[1]["x"][0]
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        data = [*NUMBERS, float(limits.max), float(limits.min), float(limits.smallest_subnormal), -0.0, 3, 2**53 + 1]
        outside = [1e39, -1e39] if datatype == "FP32" else []
    else:
        ends = np.iinfo(dtype)
        data = [*([3] * 5000), int(ends.min), int(ends.max), 0, 1]
        outside = [int(ends.min) - 1, int(ends.max) + 1, 2.5, 1.0]
    text = body(data, datatype=datatype)
    assert read_apart(using, text)
    _, feeds, *_ = meaning = whole(using, text)
    assert meaning == ordinary(using, text)
    assert feeds["x"] == (dtype, (len(data),), np.array(data, dtype).tobytes())
    for one in outside:
        text = body([*data, one], datatype=datatype)
        refusal = whole(using, text)
        assert refusal[:4] == ("refused", 400, "invalid_request", "inputs[0].data")
        assert refusal == ordinary(using, text)


def test_the_nearest_double_is_found_and_then_the_nearest_single() -> None:
    hard = [
        "9007199254740993", "9007199254740992.99999999999999999999", "1.00000005960464477540", "1.000000059604644775390625",
        "7.038531e-26", "2.2250738585072011e-308", "4.9e-324", "2.4703282292062328e-324", "1e-999", "0.000001e6",
        "3.4028235677973366e38", "3.402823567797336e38", "1.7976931348623157e38", "-0", "-0.0", "1E5", "1e+5", "18446744073709551615",
        "0." + "0" * 300 + "1e300", "1" + "0" * 300 + "e-300", "8.5899345920000001e9", "123456789012345678",
    ]  # fmt: skip
    for datatype in ("FP32", "FP64"):
        using = codec(datatype, (-1,))
        for number in hard:
            text = body(datatype=datatype, shape=[COUNT + 1]).replace(b'"data":[', b'"data":[' + number.encode() + b",")
            assert whole(using, text) == ordinary(using, text), number
    text = body(shape=[COUNT + len(hard)], datatype="FP64").replace(b'"data":[', f'"data":[{",".join(hard)},'.encode())
    using = codec("FP64", (-1,))
    assert read_apart(using, text)
    wanted = [
        0.0 if number == "-0" else float(number) for number in hard
    ]  # an integer in JSON: it has no sign of its own
    assert using.decode(text, None).feeds["x"].tobytes() == np.array(wanted + NUMBERS).tobytes()


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_what_clients_send_is_read_apart(separators: tuple[str, str]) -> None:
    using = codec("FP32", (-1, 3, 500))
    nested = np.reshape(NUMBERS, (2, 3, 500)).tolist()
    texts = [
        body(shape=[2, 3, 500], separators=separators),
        body(nested, shape=[2, 3, 500], separators=separators),
        body(shape=[2, 3, 500], separators=separators, id="data: [1]", parameters={"binary_data_output": True}),
        body(shape=[2, 3, 500], separators=separators, outputs=[{"name": "x", "parameters": {"binary_data": True}}]),
    ]
    for text in texts:
        assert read_apart(using, text)
        meaning = whole(using, text)
        assert meaning == ordinary(using, text)
        assert meaning[1]["x"][2] == np.array(NUMBERS, np.float32).tobytes()


def test_lists_of_several_inputs_go_to_their_own_inputs() -> None:
    using = InferCodec(
        Shown([("ids", "INT64", (-1,)), ("few", "FP32", (-1,)), ("mask", "UINT8", (-1,)), ("b", "FP32", (-1,))])
    )
    tensors = [
        {"name": "mask", "datatype": "UINT8", "data": [i % 2 for i in range(COUNT)], "shape": [COUNT]},
        {"name": "b", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
        {"name": "ids", "datatype": "INT64", "shape": [COUNT], "data": [2**62 + i for i in range(COUNT)]},
        {"name": "few", "datatype": "FP32", "shape": [1], "data": [0.5]},
    ]
    head = orjson.dumps({"inputs": tensors})
    call = using._decode_long(head, memoryview(struct.pack("<f", 7)))
    assert call is not None
    assert {name: array.tolist() for name, array in call.feeds.items()} == {
        "mask": tensors[0]["data"], "ids": tensors[2]["data"], "few": [0.5], "b": [7.0],
    }  # fmt: skip


def test_texts_and_flags_beside_long_numbers_are_read_as_ever() -> None:
    using = InferCodec(Shown([("x", "FP32", (-1,)), ("t", "BYTES", (-1,)), ("f", "BOOL", (-1,))]))
    for words in (["a", "b"], ["a]b", '"data":[1'], ["]", "null"]):
        tensors = [
            {"name": "x", "datatype": "FP32", "shape": [COUNT], "data": NUMBERS},
            {"name": "t", "datatype": "BYTES", "shape": [2], "data": words},
            {"name": "f", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        ]
        text = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
        meaning = whole(using, text)
        assert meaning[0] == "served"
        assert meaning == ordinary(using, text)


@pytest.mark.parametrize("datatype", ["FP16", "BOOL", "BYTES"])
def test_other_datatypes_are_read_as_ever(datatype: str) -> None:
    using = codec(datatype, (-1,))
    for data in (NUMBERS, [True] * COUNT, ["word"] * COUNT, [1] * 5000):
        text = body(data, datatype=datatype, parameters={"binary_data_output": True})
        assert not read_apart(using, text)
        assert whole(using, text) == ordinary(using, text)


GOOD = body()
OPEN = GOOD.index(b'"data":[') + len(b'"data":[')
END = GOOD.rindex(b"]}]}")


def inserted(piece: bytes, place: int = OPEN) -> bytes:
    return GOOD[:place] + piece + GOOD[place:]


@pytest.mark.parametrize(
    "text",
    [
        *(inserted(one + b",") for one in (b"true", b"false", b"null", b'"1"', b"{}", b"[]", b"[1]", b"[[1]]", b'{"a":1}')),
        *(inserted(one + b",") for one in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"01", b"1.", b".5", b"+1")),
        *(inserted(one + b",") for one in (b"1e", b"0x1", b"1_0", b"--1", b"1" * 100_000, b"1" * 400, b"-" + b"9" * 30, b"")),
        *(inserted(b"," + one, END) for one in (b"true", b"null", b"", b'"', b"1e999", b"1", b"1]", b"]", b"[", b"1}")),
        *(GOOD + one for one in (b"x", b"]", b"}", b"\x00", b"\xff", b"{}", b"1", b",")),
        *(GOOD[:size] for size in (len(GOOD) - 1, len(GOOD) - 2, len(GOOD) - 4, END, END - 1, OPEN, OPEN - 1)),
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        b"\x00" + GOOD,
        GOOD.replace(b'"x"', b'"\\ud800"'),
        GOOD.replace(b'"x"', b'"\xff"'),
        GOOD.replace(b'"x"', b'"\x01"'),
        inserted(b"[" * 100_000),
        inserted(b"[" * 100_000, len(GOOD)),
        inserted(b"[" * 1020 + b"1" + b"]" * 1020 + b","),
        b"[" * 2_000_000,
        b'{"inputs":' * 100_000,
        b'{"inputs":[{"data":' + b"[" * 2_000_000,
        GOOD[:-1] + b',"inputs":' + GOOD[10:],
        GOOD.replace(b'"shape"', b'"name":"x","shape"'),
        GOOD.replace(b'"data":', b'"data":[1],"data":'),
        GOOD.replace(b'"data":', b'"data":null,"data":'),
        GOOD[:-3] + b',"data":[1]}]}',
        GOOD[:-3] + b',"parameters":{"data":[1,2]}}]}',
        GOOD.replace(b'"data":', b'"parameters":{"data":') + b"}",
        GOOD.replace(b'"data":', b'"parameters":{"data":').replace(b"]}]}", b'],"a":1},"data":null}]}'),
        GOOD[:-1] + b',"parameters":{"a":{"b":1,"b":2}}}',
        GOOD[:-1] + b',"parameters":{"data":[1,2,3]}}',
        GOOD[:-1] + b',"parameters":{"p":null}}',
        GOOD[:-1] + b',"id":null}',
        GOOD[:-1] + b',"id":"\\"data\\":[1,2]"}',
        GOOD.replace(b'{"inputs"', b'{"id":"\\"data":[1],"inputs"'),
        GOOD.replace(b'{"inputs"', b'{"id":"a"data":[1],"inputs"'),
        GOOD.replace(b'{"inputs"', b'{"data":[1],"inputs"'),
        GOOD.replace(b'{"inputs"', b'{"data":{"data":[1]},"inputs"'),
        GOOD.replace(b'"data"', b'"d\\u0061ta"'),
        GOOD.replace(b'"data":[', b'"data":[ \n'),
        GOOD.replace(b'"data":[', b'"data" \t:\r\n ['),
        GOOD.replace(b'"data":[', b'"data"\x0b:['),
        GOOD.replace(b'"data":[', b'"data":[['),
        GOOD.replace(b'"data":[', b'"data":[[').replace(b"]}]}", b"]]}]}"),
        GOOD.replace(b"[3000]", b"[2999]"),
        GOOD.replace(b"[3000]", b"[3001]"),
        GOOD.replace(b"[3000]", b"[1500,2]"),
        GOOD.replace(b"[3000]", b"[true]"),
        GOOD.replace(b"[3000]", b"null"),
        GOOD.replace(b"[3000]", b"[]"),
        GOOD.replace(b"[3000]", b"[-3000]"),
        GOOD.replace(b"[3000]", b"[" + b"1," * 70 + b"3000]"),
        GOOD.replace(b"FP32", b"FP64"),
        GOOD.replace(b'"x"', b'"y"'),
        GOOD.replace(b'[{"name"', b'[null,{"name"'),
        GOOD.replace(b'[{"name"', b'[{"data":null},{"name"'),
        GOOD.replace(b'[{"name"', b'["data",{"name"'),
        b'{"inputs":[' + b",".join([b'{"name":"x","datatype":"FP32","shape":[1],"data":[1]}'] * 300) + b"]}",
        GOOD[10:-1],
        b"[" + GOOD + b"]",
        b'"' + b"a" * LEAST_BYTES + b'"',
        b" " * LEAST_BYTES,
        b" " * LEAST_BYTES + b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}',
        b" " * LEAST_BYTES + b'{"inputs":[{"name":"x","datatype":"FP32","shape":[],"data":[1]}]}',
        b" " * LEAST_BYTES + b'{"inputs":[{"name":"x","datatype":"FP32","shape":[0],"data":[]}]}',
    ],
    ids=count(),
)  # fmt: skip
def test_the_verdict_is_that_of_the_ordinary_way(text: bytes) -> None:
    assert whole(FREE, text) == ordinary(FREE, text)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([30, 100], np.reshape(NUMBERS, (30, 100)).tolist()),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-1], NUMBERS[:99]]),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-1], [*NUMBERS[:99], [1]]]),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-1], [*NUMBERS[:98], [1, 2]]]),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-1], [*NUMBERS[:99], True]]),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-1], 5]),
        ([30, 100], [5, *np.reshape(NUMBERS, (30, 100)).tolist()[:-1]]),
        ([30, 100], [*np.reshape(NUMBERS, (30, 100)).tolist()[:-2], NUMBERS[:99], NUMBERS[:101]]),
        ([30, 100], np.reshape(NUMBERS, (100, 30)).tolist()),
        ([30, 100], [NUMBERS]),
        ([3000, 1], np.reshape(NUMBERS, (3000, 1)).tolist()),
        ([3000, 1], [[1, 2], [], *np.reshape(NUMBERS[2:], (2998, 1)).tolist()]),
        ([3000, 1], [[1, 2], *NUMBERS[2:], []]),
        ([1, 3000], [NUMBERS]),
        ([1, 3000], [[NUMBERS]]),
        ([1, 3000], [*NUMBERS[1:], [1]]),
        ([1, 1, 3000], [[NUMBERS]]),
        ([3000], np.reshape(NUMBERS, (30, 100)).tolist()),
    ],
    ids=count(),
)  # fmt: skip
def test_nested_lists_must_have_exactly_the_shape(shape: list[int], data: list) -> None:
    using = codec("FP32", (-1,) * len(shape))
    text = body(data, shape=shape)
    assert whole(using, text) == ordinary(using, text)


@given(data=st.data())
def test_no_change_of_a_few_bytes_means_something_else(data: st.DataObject) -> None:
    text = bytearray(GOOD)
    near = st.one_of(st.integers(0, OPEN + 20), st.integers(END - 20, len(GOOD) - 1), st.integers(0, len(GOOD) - 1))
    piece = st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b'"data":[', b"]", b"[", b"null", b",", b'"', b"{", b"}", b":", b"1e400", b"-", b"\\", b" ", b"true"]),
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        place = min(data.draw(near), len(text))
        text[place : place + data.draw(st.integers(0, 2))] = data.draw(piece)
    assert whole(FREE, bytes(text)) == ordinary(FREE, bytes(text))


def test_nothing_is_cut_where_nothing_may_be() -> None:
    assert cut(b'{"inputs":[]}') is None
    assert cut(b'{"a":null,"data":[1]}') is None
    assert cut(b'{"data":[1}') is None
    assert cut(b'{"data":[1],' * 65) is None
    rest, lists = cut(b'{"data": [[1],[2]] ,"data":[3]}') or (b"", [])
    assert (rest, len(lists)) == (b'{"data": null ,"data":null}', 2)


def test_a_long_body_in_any_kind_of_buffer_is_read_the_same() -> None:
    wanted = FREE.decode(GOOD, None).feeds["x"].tobytes()
    assert FREE.decode(bytearray(GOOD), None).feeds["x"].tobytes() == wanted
    assert FREE.decode(memoryview(bytearray(b"meta" + GOOD))[4:], None).feeds["x"].tobytes() == wanted
    assert FREE.decode(GOOD, str(len(GOOD))).feeds["x"].tobytes() == wanted
    with pytest.raises(RequestError):
        FREE.decode(GOOD + b"1234", str(len(GOOD)))
