"""What of two versions' answers is called alike: by datatype, by rank, by what a path finds."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.open_inference import Unreadable
from roost_gateway.shadowing.json_paths import compile_path
from roost_gateway.shadowing.judging import Answered, judge
from roost_platform.domain.comparing import Agreement, Comparison, Difference, Tensor, compare_outputs
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.shadows import Example, ShadowSums

VALUES = Comparison.of(by="values")
nan = math.nan


def tensor(values, datatype="FP32", shape=None, name="y") -> Tensor:
    return Tensor(name, datatype, shape or (len(values),), values)


def found(one: Tensor, other: Tensor, how: Comparison = VALUES) -> tuple[str | None, str]:
    agreement = compare_outputs([one], [other], how)
    return agreement.difference, agreement.where


@pytest.mark.parametrize(
    ("datatype", "near", "far"),
    [("FP64", 1 + 1e-7, 1 + 1e-5), ("FP32", 1.0005, 1.002), ("FP16", 1.005, 1.05), ("BF16", 1.01, 1.1)],
)
def test_how_near_is_near_follows_from_the_datatype(datatype: str, near: float, far: float):
    assert found(tensor([0.0, 1.0], datatype), tensor([0.0, near], datatype)) == (None, "")
    assert found(tensor([0.0, 1.0], datatype), tensor([0.0, far], datatype)) == (Difference.VALUES, "y[1]")


def test_a_version_of_a_coarser_datatype_is_measured_by_it():
    assert found(tensor([1.0]), tensor([1.005], "FP16")) == (None, "")
    assert found(tensor([1.0]), tensor([1], "INT64")) == (Difference.OUTPUTS, "y")


def test_a_user_says_what_is_near():
    assert found(tensor([100.0]), tensor([101.0]), Comparison.of(by="values", relative=0.02)) == (None, "")
    strict = Comparison.of(by="values", relative=0, absolute=0)
    assert found(tensor([1.0]), tensor([1.0000001]), strict) == (Difference.VALUES, "y[0]")


@pytest.mark.parametrize(
    ("one", "other", "datatype", "alike"),
    [
        ([3], [4], "INT64", False),
        ([2**60], [2**60 + 1], "INT64", False),
        ([True], [False], "BOOL", False),
        (["cat"], ["dog"], "BYTES", False),
        (["cat"], ["cat"], "BYTES", True),
        ([None], [nan], "FP32", True),
        ([nan], [0.0], "FP32", False),
        ([math.inf], [math.inf], "FP32", True),
        ([math.inf], [-math.inf], "FP32", False),
        ([math.inf], [1e38], "FP32", False),
        ([], [], "FP32", True),
    ],
)
def test_all_else_is_alike_when_it_is_equal(one, other, datatype: str, alike: bool):
    assert found(tensor(one, datatype), tensor(other, datatype)) == ((None, "") if alike else ("values", "y[0]"))


def test_outputs_are_told_by_name_whatever_their_order():
    a, b = tensor([1.0], name="a"), tensor([2.0], name="b")
    assert compare_outputs([a, b], [b, a], VALUES) == Agreement()
    assert compare_outputs([a, b], [b], VALUES) == Agreement(Difference.OUTPUTS, "a")
    assert found(tensor([1.0, 2.0]), tensor([1.0, 2.0], shape=(2, 1))) == (Difference.OUTPUTS, "y")


def test_the_largest_distance_is_told_even_where_all_is_alike():
    agreement = compare_outputs([tensor([1.0, 5.0])], [tensor([1.0001, 5.0])], VALUES)
    assert (agreement.alike, round(agreement.largest, 6)) == (True, 0.0001)


@pytest.mark.parametrize(
    ("one", "other", "top", "alike"),
    [
        ([0.1, 0.7, 0.2], [0.3, 0.6, 0.1], 1, True),
        ([0.1, 0.7, 0.2], [0.3, 0.6, 0.1], 2, False),
        ([0.1, 0.7, 0.2], [0.7, 0.2, 0.1], 1, False),
        ([0.5, 0.5, 0.0], [0.50001, 0.49999, 0.0], 1, True),
        ([0.5, 0.50001, 0.0], [0.50001, 0.5, 0.0], 2, True),
        ([nan, 0.4, 0.6], [0.1, 0.3, 0.6], 2, True),
        ([0.1, 0.9, 0.0], [nan, nan, nan], 1, False),
    ],
    ids=["same winner", "other second", "other winner", "a tie", "a tie in either order", "nan is least", "no scores"],
)
def test_classes_are_compared_by_rank(one, other, top: int, alike: bool):
    how = Comparison.of(by="rank", top=top)
    expected = (None, "") if alike else (Difference.RANK, "y, row 0")
    assert found(tensor(one, shape=(1, 3)), tensor(other, shape=(1, 3)), how) == expected


def test_rank_leaves_outputs_that_are_no_scores_to_their_values():
    how = Comparison.of(by="rank")
    assert found(tensor([2], "INT64"), tensor([1], "INT64"), how) == (Difference.VALUES, "y[0]")
    assert found(tensor([0.2, 0.9], shape=(2, 1)), tensor([0.9, 0.2], shape=(2, 1)), how) == ("values", "y[0]")


_FLOATS = st.lists(st.floats(width=32) | st.none(), min_size=2, max_size=6)


@given(_FLOATS, st.sampled_from(["values", "rank"]), st.integers(1, 8))
def test_every_answer_is_like_itself(values, by: str, top: int):
    how = Comparison.of(by=by, top=top)
    made = tensor(values, shape=(1, len(values)))
    assert compare_outputs([made], [made], how).alike


@given(
    _FLOATS.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.floats(width=32), min_size=len(a), max_size=len(a))))
)
def test_which_of_the_two_was_served_does_not_matter(pair):
    one, other = (tensor(values, shape=(1, len(values))) for values in pair)
    for how in (VALUES, Comparison.of(by="rank", top=2)):
        assert compare_outputs([one], [other], how) == compare_outputs([other], [one], how)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"by": "luck"}, "by"),
        ({"by": "values", "relative": -1}, "relative"),
        ({"by": "values", "absolute": nan}, "absolute"),
        ({"by": "rank", "top": 0}, "top"),
        ({"by": "path"}, "path"),
        ({"by": "values", "path": "$.x"}, "path"),
    ],
)
def test_a_wrong_wish_names_its_field(wish: dict, field: str):
    with pytest.raises(InvalidRequest) as caught:
        Comparison.of(**wish)
    assert caught.value.field == field


# Whole answers


def answer(*outputs: dict, status: int = 200, **more) -> Answered:
    return Answered(status, [], json.dumps({"model_name": "m", "outputs": outputs, **more}).encode())


Y = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}


def test_json_and_binary_answers_are_compared_with_each_other():
    head = json.dumps({"outputs": [Y | {"data": None, "parameters": {"binary_data_size": 4}}]}).replace(
        '"data": null, ', ""
    )
    length = [(b"inference-header-content-length", str(len(head)).encode())]
    binary = Answered(200, length, head.encode() + struct.pack("<f", 1.5))
    assert judge(answer(Y), binary, VALUES, None) == Agreement()


def test_a_call_that_one_version_failed_differs():
    assert judge(answer(Y), answer(status=422), VALUES, None) == Agreement(Difference.STATUS, "200 and 422")
    assert judge(answer(status=422), answer(status=422), VALUES, None).alike


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outputs":[{"name":"y"}]}',
        b'{"outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[1]}]}',
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(body: bytes):
    with pytest.raises(Unreadable):
        judge(answer(Y), Answered(200, [], body), VALUES, None)


def test_a_path_finds_what_is_compared():
    path = "$.outputs[*].data[0]"
    how = Comparison.of(by="path", path=path)
    one, other = answer(Y), answer(Y | {"data": [1.5, 9.0], "shape": [2]})
    assert judge(one, other, how, compile_path(path)).alike
    assert judge(one, answer(), how, compile_path(path)) == Agreement(Difference.OUTPUTS, "1 and 0 values")
    third = judge(one, answer(Y | {"data": [2.5]}), how, compile_path(path))
    assert third == Agreement(Difference.VALUES, "[0]", 1.0)


@pytest.mark.parametrize(
    "path", ["outputs", "$..data", "$.outputs[?@.x]", "$.outputs['a','b']", "$[", "", "$.a[::0]x", "$" + "[" * 200]
)
def test_a_path_that_may_take_long_or_is_none_is_refused(path: str):
    with pytest.raises(InvalidRequest) as caught:
        compile_path(path)
    assert caught.value.field == "path"


# Sums

_COUNTS = st.dictionaries(st.sampled_from(["values", "rank", "large"]), st.integers(1, 9))


@given(st.lists(st.tuples(st.integers(0, 9), _COUNTS, st.floats(0, 1e9)), min_size=1, max_size=4))
def test_what_several_gateways_counted_adds_up_and_outlives_its_json(parts):
    made = []
    for number, counts, largest in parts:
        sums = ShadowSums(answered=number, alike=number, largest=largest)
        sums.differences.update(counts)
        sums.show(Example(f"2026-11-23T00:00:0{number}+00:00", "r", 1, "values", "y[0]"))
        made.append(ShadowSums.from_json(json.loads(json.dumps(sums.to_json()))))
    whole = ShadowSums.together(made)
    assert whole.answered == sum(number for number, _, _ in parts)
    assert whole.differences.total() == sum(sum(counts.values()) for _, counts, _ in parts)
    assert whole.largest == max(largest for _, _, largest in parts)
    assert [example.at for example in whole.examples] == sorted(
        example.at for sums in made for example in sums.examples
    )
