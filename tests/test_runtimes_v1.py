"""The V1 `:predict` body, by rows and by columns."""

from pathlib import Path

import orjson
import pytest

import models_for_tests as models
from roost_runtimes.core import Answer, Core, Request
from roost_runtimes.onnx_model import OnnxModel

PREDICT = "/v1/models/m:predict"


def core_of(write, folder: Path) -> Core:
    return Core(OnnxModel(write(folder / "m.onnx"), name="m", version="1"), run_us=10)


def predict(core: Core, document, path=PREDICT) -> Answer:
    answers: list[Answer] = []
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    core.submit(Request("POST", path, {}, body), answers.append)
    core.pump()
    return answers[0]


def good(answer: Answer):
    assert answer.status == 200, bytes(answer.body[0])
    return orjson.loads(answer.body[0])


def test_rows_of_one_input_are_plain_values(tmp_path):
    core = core_of(models.add_one, tmp_path)
    answer = predict(core, {"signature_name": "s", "instances": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    assert good(answer) == {"predictions": [[2, 3, 4, 5], [6, 7, 8, 9]]}
    assert answer.rows == 2
    assert good(predict(core, {"instances": [{"x": [1, 2, 3, 4]}]}, "/v1/models/m/versions/1:predict")) == {
        "predictions": [[2, 3, 4, 5]]
    }


def test_rows_of_several_inputs_are_objects_and_so_are_several_outputs(tmp_path):
    core = core_of(models.two_inputs, tmp_path)
    answer = predict(core, {"instances": [{"a": [1.5, 2], "b": [1, 1]}, {"b": [1, 2], "a": [0, 0]}]})
    assert good(answer) == {
        "predictions": [{"sum": [2.5, 3], "difference": [0.5, 1]}, {"sum": [1, 2], "difference": [-1, -2]}]
    }


def test_columns_answer_with_columns(tmp_path):
    assert good(predict(core_of(models.add_one, tmp_path), {"inputs": [[1, 2, 3, 4]]})) == {"outputs": [[2, 3, 4, 5]]}
    core = core_of(models.two_inputs, tmp_path)
    assert good(predict(core, {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}})) == {
        "outputs": {"sum": [[4, 6]], "difference": [[-2, -2]]}
    }
    assert good(predict(core_of(models.scalar_input, tmp_path), {"inputs": 4})) == {"outputs": 5}


def test_labels_beside_probabilities_are_numbers(tmp_path):
    answer = good(predict(core_of(models.iris_like, tmp_path), {"instances": [[5.1, 3.5, 1.4, 0.2]]}))
    (prediction,) = answer["predictions"]
    assert prediction["label"] == 0
    assert sum(prediction["probabilities"]) == pytest.approx(1)


def test_strings_are_served(tmp_path):
    assert good(predict(core_of(models.strings, tmp_path), {"instances": ["a", "é:"]})) == {"predictions": ["a", "é:"]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"instances": []},
        {"instances": 1},
        {"instances": [[1, 0]], "inputs": {"a": [[1, 0]], "b": [[1, 0]]}},
        {"instances": [[1, 0]]},
        {"instances": [{"a": [1, 0]}]},
        {"instances": [{"a": [1, 0], "b": [1, 0], "c": [1]}]},
        {"instances": [{"a": [1, 0], "b": [1, 0]}, {"a": [1, 0]}]},
        {"instances": [{"a": [1, 0], "b": [1, 0]}, 5]},
        {"instances": [{"a": [1, 0], "b": [1.5, 0]}]},
        {"instances": [{"a": [1, 0, 2], "b": [1, 0]}]},
        {"instances": [{"a": [1, 0], "b": [1, 0]}, {"a": [1], "b": [1, 0]}]},
        {"inputs": {"a": [[1, 0]]}},
        {"inputs": [[1, 0]]},
        b'{"instances": [{"a": [1, 0], "b": [1, 0], "a": [1, 0]}]}',
        b'{"instances": [',
    ],
)
def test_malformed_bodies_are_refused(tmp_path, document):
    answer = predict(core_of(models.two_inputs, tmp_path), document)
    assert answer.status == 400
    assert orjson.loads(answer.body[0])["error"]


def test_fp16_is_refused_clearly(tmp_path):
    core = core_of(lambda path: models.identity(path, "FP16"), tmp_path)
    answer = predict(core, {"instances": [1]})
    assert answer.status == 400
    assert "FP16" in orjson.loads(answer.body[0])["error"]
