"""Bad tensors and bad JSON (P1, P2, P5, P10, S29), V2 and V1, against a real server: refused by name, and nobody dies of it."""

import json

import pytest

from faulty_calls import Served, all_kinds, assert_refused, judge, request, serve, tensor

GOOD = request()
DEEP = 100_000
DIGITS = b"1" * 100_000


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    with serve(folder, all_kinds(folder)) as made:
        yield made


def doc(**members) -> bytes:
    return json.dumps(members).encode()


TENSORS = {
    # P1: datatype, rank, names. What the client sent · the field at fault · words that the sentence must hold.
    "other datatype": (tensor(datatype="FP64"), "inputs[0].datatype", "FP32|'FP64'"),
    "lower case": (tensor(datatype="fp32"), "inputs[0].datatype", "FP32|'fp32'"),
    "datatype a number": (tensor(datatype=1), "inputs[0].datatype", "FP32|not a string"),
    "datatype absent": (tensor(datatype=None), "inputs[0].datatype", "FP32|none"),
    "datatype of a megabyte": (tensor(datatype="F" * 2**20), "inputs[0].datatype", "FP32"),
    "lower rank": (tensor(shape=[4]), "inputs[0].shape", "[-1, 4]|[4]"),
    "higher rank": (tensor(shape=[1, 1, 4]), "inputs[0].shape", "[-1, 4]|[1, 1, 4]"),
    "other dimension": (tensor(shape=[1, 5]), "inputs[0].shape", "[-1, 4]|[1, 5]"),
    "no name": (tensor(name=None), "inputs[0].name", "name"),
    "name a number": (tensor(name=7), "inputs[0].name", "string"),
    "other name": (tensor(name="X"), "inputs[0].name", "'X'|'x'"),
    "name of a megabyte": (tensor(name="n" * 2**20), "inputs[0].name", "'x'"),
    "name with line ends": (tensor(name="x\r\nroost: 1\x1b[31m"), "inputs[0].name", "'x'"),
    # P2: shapes.
    "product is less": (tensor(data=[1, 2, 3, 4, 5]), "inputs[0].data", "[1, 4]|4 elements|5"),
    "product is more": (tensor(shape=[2, 4]), "inputs[0].data", "[2, 4]|8 elements|4"),
    "no data in a list": (tensor(data=[]), "inputs[0].data", "4 elements|0"),
    "negative": (tensor(shape=[-1, 4]), "inputs[0].shape", "-1"),
    "huge": (tensor(shape=[2**31, 2**31, 4]), "inputs[0].shape", "2147483648"),
    "largest": (tensor(shape=[2**31 - 1, 4]), "inputs[0].data", "8589934588 elements|4"),
    "over 64 bits": (tensor(shape=[2**64, 4]), "inputs[0].shape", "integer"),
    "rank 64": (tensor(shape=[1] * 64), "inputs[0].shape", "[-1, 4]"),
    "rank 65": (tensor(shape=[1] * 65), "inputs[0].shape", "65|64"),
    "rank 100,000": (tensor(shape=[1] * 100_000), "inputs[0].shape", "100000|64"),
    "floats": (tensor(shape=[1.0, 4]), "inputs[0].shape", "integer|1.0"),
    "strings": (tensor(shape=["1", 4]), "inputs[0].shape", "integer|string"),
    "booleans": (tensor(shape=[True, 4]), "inputs[0].shape", "integer|true"),
    "nulls": (tensor(shape=[None, 4]), "inputs[0].shape", "integer|null"),
    "nested shape": (tensor(shape=[[1], 4]), "inputs[0].shape", "integer|list"),
    "shape a number": (tensor(shape=4), "inputs[0].shape", "list of integers"),
    "shape an object": (tensor(shape={"0": 1}), "inputs[0].shape", "list of integers"),
    "shape absent": (tensor(shape=None), "inputs[0].shape", "list of integers"),
    "zero times too much": (tensor(shape=[0, 2**31 - 1], data=[]), "inputs[0].shape", "[-1, 4]"),
    # Data that is not what the shape says.
    "data absent": (tensor(data=None), "inputs[0].data", "list|null"),
    "data a number": (tensor(data=1), "inputs[0].data", "list|1"),
    "data a string": (tensor(data="AAAA"), "inputs[0].data", "list|string"),
    "data an object": (tensor(data={"0": 1}), "inputs[0].data", "list|object"),
    "transposed": (tensor(data=[[1], [2], [3], [4]]), "inputs[0].data", "[1, 4]"),
    "ragged": (tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7]]), "inputs[0].data", "[2, 4]"),
    "nested one time too often": (tensor(data=[[[1, 2, 3, 4]]]), "inputs[0].data", "[1, 4]"),
    "list among numbers": (tensor(data=[1, [2], 3, 4]), "inputs[0].data", "list|element 1"),
    "number among lists": (tensor(shape=[2, 4], data=[[1, 2, 3, 4], 5]), "inputs[0].data", "[2, 4]"),
    "true": (tensor(data=[1, 2, True, 4]), "inputs[0].data", "FP32|true|element 2"),
    "null": (tensor(data=[1, 2, 3, None]), "inputs[0].data", "FP32|null|element 3"),
    "a numeral": (tensor(data=["1", 2, 3, 4]), "inputs[0].data", "FP32|string|element 0"),
    "over single precision": (tensor(data=[1, 2, 3, 1e39]), "inputs[0].data", "FP32|1e+39|element 3"),
    "under single precision": (tensor(data=[-4e38, 2, 3, 4]), "inputs[0].data", "FP32|-4e+38|element 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_p1_p2_a_tensor_that_does_not_fit_is_refused_naming_field_expected_and_got(served: Served, case: str):
    sent, field, says = TENSORS[case]
    assert_refused(served.infer("one", request(sent)), field=field, says=says)


VALUES = [
    ("int8", 127, True), ("int8", -128, True), ("int8", 128, False), ("int8", -129, False), ("int8", 1.0, False),
    ("int8", 1e2, False), ("int8", True, False), ("int8", "1", False), ("int8", None, False), ("int8", 0.5, False),
    ("int64", 2**63 - 1, True), ("int64", -(2**63), True), ("int64", 2**63, False), ("int64", -(2**63) - 1, False),
    ("int64", 2**53 + 1, True), ("int64", 10**30, False), ("uint64", 2**64 - 1, True), ("uint64", -1, False),
    ("uint64", 2**64, False), ("bool", True, True), ("bool", False, True), ("bool", 0, False), ("bool", 1, False),
    ("bool", "true", False), ("bool", None, False), ("fp64", 1.7976931348623157e308, True), ("fp64", 5e-324, True),
    ("fp64", 0.1, True), ("fp64", -0.0, True), ("fp64", 2**53 + 1, True), ("fp64", False, False), ("fp64", [], False),
    ("fp16", 1.0, False), ("text", "", True), ("text", "a\0b\u2028\U0001f642", True), ("text", 1, False),
    ("text", None, False), ("text", ["a"], False), ("text", {"b64": "AA=="}, False),
]  # fmt: skip


@pytest.mark.parametrize(("model", "value", "fits"), VALUES, ids=[f"{m} {v!r}"[:30] for m, v, _ in VALUES])
@pytest.mark.parametrize("many", [1, 400], ids=["one", "among 400"])
def test_p1_a_value_is_served_exactly_or_refused(served: Served, model: str, value, fits: bool, many: int):
    name, datatype = ("text", "BYTES") if model == "text" else ("x", model.upper())
    good = {"bool": True, "text": "a"}.get(model, 7)
    data = [good] * (many - 1) + [value]
    body = request({"name": name, "datatype": datatype, "shape": [many], "data": data})
    response = served.infer(model, body)
    if not fits:
        assert_refused(response, says="" if model == "fp16" or value == [] else datatype)
        return
    (output,) = response.json()["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, [many])
    assert [(type(v), v) for v in output["data"]] == [
        (float, float(v)) if model == "fp64" else (type(v), v) for v in data
    ]


DOCUMENTS = {
    "no inputs": (doc(), "inputs"),
    "inputs null": (doc(inputs=None), "inputs"),
    "inputs an object": (doc(inputs=tensor()), "inputs"),
    "input missing": (doc(inputs=[]), "inputs"),
    "input null": (doc(inputs=[None]), "inputs[0]"),
    "input twice": (request(tensor(), tensor()), "inputs[1].name"),
    "one input too many": (request(tensor(), tensor(name="z")), "inputs[1].name"),
    "10,000 inputs": (request(*[tensor(name=f"x{n}") for n in range(10_000)]), "inputs[0].name"),
    "10,000 times the input": (request(*[tensor()] * 10_000), "inputs[1].name"),
    "unknown output": (request(outputs=[{"name": "z"}]), "outputs[0].name"),
    "output twice": (request(outputs=[{"name": "y"}, {"name": "y"}]), "outputs[1].name"),
    "10,000 outputs": (request(outputs=[{"name": f"y{n}"} for n in range(10_000)]), "outputs[0].name"),
    "outputs an object": (request(outputs={"name": "y"}), "outputs"),
    "outputs false": (request(outputs=False), "outputs"),
    "output null": (request(outputs=[None]), "outputs[0]"),
    "id a number": (request(id=5), "id"),
    "id of a megabyte": (request(id="i" * 2**20), "id"),
    "parameters a list": (request(parameters=[]), "parameters"),
    "parameter of a megabyte": (request(parameters={"p": "v" * 2**20}), "parameters"),
    "parameter's name of a megabyte": (request(parameters={"p" * 2**20: 1}), "parameters"),
    "10,000 parameters": (request(parameters={f"p{n}": n for n in range(10_000)}), "parameters"),
    "shared memory": (request(tensor(parameters={"shared_memory_region": "r"})), "inputs[0].parameters"),
    "classification": (request(outputs=[{"name": "y", "parameters": {"classification": 2}}]), "outputs[0].parameters"),
    "flag a string": (request(parameters={"binary_data_output": "yes"}), "parameters.binary_data_output"),
    "empty": (b"", None),
    "blank": (b" \r\n", None),
    "null": (b"null", None),
    "list": (b"[]", None),
    "string": (b'"inputs"', None),
    "number": (b"1", None),
    "true": (b"true", None),
    "cut": (GOOD[:-1], None),
    "bytes behind": (GOOD + b"x", None),
    "two documents": (GOOD + GOOD, None),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, None),
    "UTF-16": (GOOD.decode().encode("utf-16"), None),
    "UTF-16 little-endian": (GOOD.decode().encode("utf-16-le"), None),
    "UTF-32": (GOOD.decode().encode("utf-32"), None),
    "NUL behind": (GOOD + b"\0", None),
    "single quotes": (GOOD.replace(b'"', b"'"), None),
    "comment": (b"/* */" + GOOD, None),
    "trailing comma": (GOOD[:-1] + b",}", None),
    "not UTF-8": (GOOD.replace(b'"x"', b'"\xff"'), None),
    "overlong slash": (GOOD.replace(b'"x"', b'"\xc0\xaf"'), None),
    "encoded surrogate": (GOOD.replace(b'"x"', b'"\xed\xa0\x80"'), None),
    "lone surrogate": (GOOD.replace(b'"x"', b'"\\ud800"'), None),
    "lone surrogate in the id": (request(id="ID").replace(b"ID", b"\\udc00"), None),
    "line end in a string": (GOOD.replace(b'"x"', b'"x\n"'), None),
    "NaN": (request(tensor(data=[1, 2, 3, float("nan")])), None),
    "Infinity": (request(tensor(data=[1, 2, 3, float("-inf")])), None),
    "1e999": (GOOD.replace(b" 3,", b" " + b"1e999" + b","), None),
    "number of 100,000 digits": (GOOD.replace(b" 3,", b" " + DIGITS + b","), None),
    "fraction of 100,000 digits": (GOOD.replace(b" 3,", b" " + b"1e" + DIGITS + b","), None),
    "dimension of 100,000 digits": (GOOD.replace(b"[1, 4]", b"[%b, 4]" % DIGITS), None),
    "hexadecimal": (GOOD.replace(b" 3,", b" " + b"0x3" + b","), None),
    "leading zero": (GOOD.replace(b" 3,", b" " + b"03" + b","), None),
    "plus": (GOOD.replace(b" 3,", b" " + b"+3" + b","), None),
    "depth 100,000": (b"[" * DEEP + b"]" * DEEP, None),
    "2 MB of brackets": (b"[" * 2_000_000, None),
    "objects 100,000 deep": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, None),
    "data 100,000 deep": (GOOD.replace(b" 3,", b" " + b"[" * DEEP + b"]" * DEEP + b","), None),
    "data 1,000 deep": (request(tensor(data=["D"])).replace(b'"D"', b"[" * 1000 + b"]" * 1000), "inputs[0].data"),
    "key twice, outermost": (GOOD[:-1] + b', "inputs": []}', None),
    "key twice, in a tensor": (GOOD.replace(b'"name"', b'"name": "y", "name"'), None),
    "key twice, escaped": (GOOD.replace(b'"name"', b'"n\\u0061me": "y", "name"'), None),
    "key twice, in a parameter": (request(parameters={"p": {"a": 1}}).replace(b'"a": 1', b'"a": 1, "a": 2'), None),
    "key twice, 500 deep": (GOOD[:-1] + b', "q":' + b'{"a":' * 500 + b'{"b":1,"b":1}' + b"}" * 500 + b"}", None),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_p5_p10_s29_a_document_that_is_none_is_refused(served: Served, case: str):
    body, field = DOCUMENTS[case]
    assert_refused(served.infer("one", body), field=field)


V1 = {
    "neither": doc(),
    "both": doc(inputs=[[1, 2, 3, 4]], instances=[[1, 2, 3, 4]]),
    "no rows": doc(instances=[]),
    "rows an object": doc(instances={"x": [[1, 2, 3, 4]]}),
    "row null": doc(instances=[None]),
    "row empty": doc(instances=[[]]),
    "object empty": doc(instances=[{}]),
    "rows of other lengths": doc(instances=[[1, 2, 3, 4], [1, 2, 3]]),
    "rows of other kinds": doc(instances=[[1, 2, 3, 4], {"x": [1, 2, 3, 4]}]),
    "rows with other names": doc(instances=[{"x": [1, 2, 3, 4]}, {"z": [1, 2, 3, 4]}]),
    "columns null": doc(inputs=None),
    "columns empty": doc(inputs={}),
    "unknown column": doc(inputs={"z": [[1, 2, 3, 4]]}),
    "one column too many": doc(inputs={"x": [[1, 2, 3, 4]], "z": [[1, 2, 3, 4]]}),
    "lower rank": doc(inputs=[1, 2, 3, 4]),
    "higher rank": doc(inputs=[[[1, 2, 3, 4]]]),
    "a string": doc(inputs=[[1, 2, 3, "4"]]),
    "true": doc(inputs=[[1, 2, 3, True]]),
    "null inside": doc(inputs=[[1, 2, 3, None]]),
    "out of range": doc(inputs=[[1, 2, 3, 1e39]]),
    "NaN": doc(inputs=[[1, 2, 3, float("nan")]]),
    "rank 70": b'{"inputs":' + b"[" * 70 + b"1" + b"]" * 70 + b"}",
    "depth 100,000": b'{"inputs":' + b"[" * DEEP + b"1" + b"]" * DEEP + b"}",
    "100,000 digits": b'{"inputs":[[1,2,3,' + DIGITS + b"]]}",
    "key twice": b'{"inputs":[[1,2,3,4]],"inputs":[[1,2,3,4]]}',
    "key twice in a row": b'{"instances":[{"x":[1,2,3,4],"x":[1,2,3,4]}]}',
    "empty": b"",
    "null": b"null",
    "byte order mark": b'\xef\xbb\xbf{"inputs":[[1,2,3,4]]}',
    "a V2 body": GOOD,
}


@pytest.mark.parametrize("case", V1)
def test_v1_bodies_that_do_not_fit_are_refused(served: Served, case: str):
    assert_refused(served.predict("one", V1[case]))


def test_p2_no_elements_are_served_where_the_model_allows(served: Served):
    (output,) = served.infer("one", request(tensor(shape=[0, 4], data=[]))).json()["outputs"]
    assert output == {"name": "y", "datatype": "FP32", "shape": [0, 4], "data": []}
    (output,) = served.infer("text", request({"name": "text", "datatype": "BYTES", "shape": [0], "data": []})).json()[
        "outputs"
    ]
    assert (output["shape"], output["data"]) == ([0], [])
    assert judge(served.predict("int64", b'{"inputs":[]}')) == {"outputs": []}


def test_p1_an_input_of_no_dimension_takes_only_that(served: Served):
    sent = tensor(shape=[], data=[41])
    assert served.infer("scalar", request(sent)).json()["outputs"][0]["data"] == [42]
    for shape in ([2, 2], [1] * 64, [4]):
        response = served.infer("scalar", request(tensor(shape=shape, data=[1] * (4 if max(shape) > 1 else 1))))
        if judge(response) is None:
            assert response.json()["code"] in ("invalid_input", "model_error"), response.json()


def test_p10_what_only_looks_absurd_is_served(served: Served):
    wide = request(
        tensor(parameters={f"p{n}": 1.5 for n in range(64)}), id="\x1b[31m\r\n" * 100, ignored={"deep": [[]] * 9}
    )
    answer = served.infer("one", wide).json()
    assert answer["outputs"][0]["data"] == [2, 3, 4, 5]
    assert answer["id"] == "\x1b[31m\r\n" * 100
    nested = request(tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8.5]]))
    assert served.infer("one", b" \r\n\t" + nested + b" ").json()["outputs"][0]["data"] == [2, 3, 4, 5, 6, 7, 8, 9.5]
