"""The checker as a program: one line of JSON, a baked model that works, and what it gives up before it reads."""

import json
import subprocess
import sys
from pathlib import Path

import magika
import pytest
import surfaces_onnx_files
from onnx import TensorProto, helper

import hostile_models as hostile
from hostile_models import float_tensor, identity, value
from roost_runtimes.check_errors import cleaned, rejection_of

SURFACES = Path(surfaces_onnx_files.__file__).parent
MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


def run(*arguments, **changes):
    command = [sys.executable, "-I", "-m", "roost_runtimes.check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **changes)


def check(tmp_path, made, *arguments):
    file = made
    if not isinstance(made, Path):
        file = tmp_path / "model"
        file.write_bytes(made.SerializeToString())
    folder = tmp_path / "baked"
    folder.mkdir()
    ended = run(file, "--bake-dir", folder, *arguments)
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    return json.loads(line), folder


def open_baked_and_run(folder: Path, feed: str) -> str:
    """In another process: this one must not load ONNX Runtime, whose threads would trouble other tests."""
    script = (
        "import sys; from pathlib import Path; from roost_runtimes.bake import open_baked, quiet_environment\n"
        "quiet_environment()\nimport numpy as np\n"
        f"print(open_baked(Path(sys.argv[1])).run(None, {feed})[0].tolist())"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_a_good_model_is_judged_measured_and_baked(tmp_path):
    verdict, folder = check(tmp_path, SURFACES / "gradient_boosting_regressor.onnx")
    assert verdict["ok"]
    assert verdict["signature"] == {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "variable", "datatype": "FP32", "shape": [-1, 1]}],
    }
    assert verdict["opset"] == {"ai.onnx": 21, "ai.onnx.ml": 1}
    assert verdict["ir_version"] == 10
    assert verdict["baked"]
    assert 8 * 2**20 <= verdict["memory_bytes"] < 2**30
    assert verdict["load_ms"] > 0
    assert verdict["run_ms"] > 0
    assert (folder / "model.onnx").exists()


def test_a_baked_model_answers_from_its_folder_wherever_that_moves(tmp_path):
    weights = float_tensor("w", [1000], b"\x00\x00\x80\x3f" * 1000)
    made = hostile.model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [1000])], [value("y", [1000])], [weights]
    )
    verdict, folder = check(tmp_path, made)
    assert verdict["baked"]
    assert (folder / "weights.bin").stat().st_size >= 4000
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_baked_and_run(moved, "{'x': np.zeros(1000, np.float32)}") == str([1.0] * 1000)


def test_a_larger_real_model_is_baked(tmp_path):
    verdict, folder = check(tmp_path, MAGIKA)
    assert verdict["baked"]
    assert verdict["signature"]["inputs"] == [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}]
    weights = (folder / "weights.bin").stat().st_size
    assert weights > 2**20
    assert weights + 8 * 2**20 < verdict["memory_bytes"] < weights + 64 * 2**20


def test_strings_scalars_and_empty_batches_are_run(tmp_path):
    nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Add", ["a", "b"], ["c"])]
    inputs = [
        value("s", ["N"], TensorProto.STRING),
        value("a", [], TensorProto.INT64),
        value("b", [0], TensorProto.INT64),
    ]
    made = hostile.model(nodes, inputs, [value("t", None, TensorProto.STRING), value("c", None, TensorProto.INT64)])
    verdict, _ = check(tmp_path, made)
    assert verdict["baked"]
    assert [t["datatype"] for t in verdict["signature"]["inputs"]] == ["BYTES", "INT64", "INT64"]
    assert [t["shape"] for t in verdict["signature"]["inputs"]] == [[-1], [], [0]]


def test_an_output_without_a_shape_gets_the_one_that_was_inferred(tmp_path):
    made = hostile.model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", 3])], [value("y", None)])
    verdict, _ = check(tmp_path, made)
    assert verdict["signature"]["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


def test_a_model_that_refuses_zeros_is_taken(tmp_path):
    """A reshape to fixed lengths fails on a batch of one; that is for its callers to know."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [5, 3])
    made = hostile.model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], [value("x", ["N"])], [value("y", [5, 3])], [shape]
    )
    verdict, folder = check(tmp_path, made)
    assert verdict["ok"]
    assert verdict["run_ms"] is None
    assert not verdict["baked"]
    assert list(folder.iterdir()) == []


def test_a_bake_that_does_not_open_or_answers_otherwise_is_not_used(tmp_path):
    """What is compared is the answer, so the bake of another model stands for one that went wrong."""
    for name, operator in (("raw", "Relu"), ("other", "Neg")):
        made = hostile.model([helper.make_node(operator, ["x"], ["y"])], [value("x", [8])], [value("y", [8])])
        (tmp_path / name).write_bytes(made.SerializeToString())
    script = (
        "import sys; from pathlib import Path; from roost_runtimes.bake import open_raw, quiet_environment\n"
        "quiet_environment()\nfrom roost_runtimes.check_load import _same\n"
        "raw, other, folder = map(Path, sys.argv[1:]); session = open_raw(raw, bake_into=folder)\n"
        "print(_same(session, folder)); open_raw(other, bake_into=folder); print(_same(session, folder))\n"
        "(folder / 'model.onnx').write_bytes(b'junk'); print(_same(session, folder))\n"
    )
    folder = tmp_path / "baked"
    folder.mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "raw"), str(tmp_path / "other"), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", "False", "False"]


def test_constants_that_baking_would_blow_up_are_not_kept(tmp_path):
    shape = helper.make_tensor("s", TensorProto.INT64, [1], [25_000_000])
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Add", ["big", "x"], ["y"])]
    made = hostile.model(nodes, [value("x", [1])], [value("y", [25_000_000])], [shape])
    verdict, folder = check(tmp_path, made)
    assert verdict["ok"]
    assert not verdict["baked"]
    assert list(folder.iterdir()) == []


def test_a_bake_over_the_file_limit_leaves_the_model_unbaked(tmp_path):
    verdict, folder = check(tmp_path, MAGIKA, "--file-bytes", 100_000)
    assert verdict["ok"]
    assert not verdict["baked"]
    assert list(folder.iterdir()) == []


def test_what_onnx_runtime_will_not_load_is_refused_without_its_paths(tmp_path):
    weights = float_tensor("w", [2, 4], bytes(32))
    made = hostile.model(
        [helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [1, 3])], [value("y", [1, 4])], [weights]
    )
    verdict, folder = check(tmp_path, made)
    assert (verdict["ok"], verdict["code"]) == (False, "load_failed")
    assert "Incompatible dimensions" in verdict["message"]
    assert "/" not in verdict["message"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("bomb", [hostile.memory_bomb, hostile.expand_bomb])
def test_a_memory_bomb_is_refused(tmp_path, bomb):
    verdict, _ = check(tmp_path, bomb(), "--memory-bytes", 2**29)
    assert (verdict["ok"], verdict["code"]) == (False, "out_of_memory")


def test_an_input_larger_than_memory_is_refused(tmp_path):
    made = hostile.model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2**40])], [value("y", [2**40])])
    verdict, _ = check(tmp_path, made, "--memory-bytes", 2**29)
    assert (verdict["ok"], verdict["code"]) == (False, "out_of_memory")


def test_an_endless_loop_is_ended_by_the_processor_limit(tmp_path):
    verdict, _ = check(tmp_path, hostile.endless_loop(), "--cpu-seconds", 1)
    assert (verdict["ok"], verdict["code"]) == (False, "too_slow")


def test_the_static_checks_speak_through_the_program(tmp_path):
    verdict, folder = check(tmp_path, hostile.with_initializer(hostile.external("w")))
    assert verdict == {
        "ok": False,
        "code": "external_data",
        "message": "initializer 'w' keeps its data outside the file; save the model with all its tensors inside",
        "field": "w",
    }
    assert list(folder.iterdir()) == []


def test_the_build_key_is_said_and_is_the_one_in_verdicts(tmp_path):
    key = json.loads(run("--build-key").stdout)["build_key"]
    verdict, _ = check(tmp_path, identity())
    assert verdict["build_key"] == key
    assert len(key) == 16


def test_the_checker_gives_up_network_and_programs_before_it_reads(tmp_path):
    script = (
        "import os, pathlib, socket, sys\nfrom roost_runtimes import check\n"
        "check._confine(pathlib.Path(os.devnull), None)\ncheck._give_up()\n"
        "for work in (socket.socket, lambda: os.execv(sys.executable, ['x']), os.fork):\n"
        "    try: work(); print('allowed')\n    except OSError: print('refused')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["refused"] * 3


def test_paths_and_source_lines_are_cut_out_of_messages():
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/x/y failed:/onnxruntime_src/core/graph/model.cc:256 "
        "onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void (int)>&) const Something is wrong"
    )
    assert cleaned(text) == "Something is wrong"
    assert cleaned("model.cc:119 ValidateFunctionNodeCounts No opset for F (1)") == "No opset for F (1)"
    assert (
        cleaned("Exception during initialization: ::<lambda()> It failed")
        == "Exception during initialization: It failed"
    )
    assert len(cleaned("x" * 10_000)) < 500


def test_version_refusals_of_onnx_runtime_name_the_newest():
    error = rejection_of(RuntimeError("… current official support for domain ai.onnx is till opset 26."))
    assert (error.code, error.message) == ("unsupported_opset", "the opset of ai.onnx is too new; the newest is 26")
    error = rejection_of(RuntimeError("Unsupported model IR version: 14, max supported IR version: 13\n"))
    assert (error.code, error.message) == ("unsupported_ir", "the IR version is too new; the newest is 13")
