"""`roost loadtest` against the real server: from the command to record, verdict and bill, and what it says when it cannot."""

import json
import os
import subprocess
import sys

import pytest

from free_ports import free_port
from models_for_tests import iris_like
from recording_server import Command
from roost_gateway.cli.loadtest import spelled
from roost_loadtest import __main__ as program
from roost_loadtest.record import Record
from roost_process import RoostProcess


@pytest.fixture
def server(tmp_path):
    with RoostProcess(tmp_path) as roost:
        yield roost


def roost(url, key, *arguments):
    environment = os.environ | {"ROOST_URL": url, "ROOST_API_KEY": key}
    command = [sys.executable, "-m", "roost_gateway", "loadtest", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


def test_a_model_is_loaded_and_judged_and_its_bill_is_right(server, tmp_path):
    key = server.make_tenant("acme")
    out = tmp_path / "out"
    unknown = roost(server.url, key, "nothing", "--qps", "5", "--out", str(out))
    said = "Error: GET /api/v1/models/nothing: 404 no such model (not_found)\n"
    assert (unknown.returncode, unknown.stderr, out.exists()) == (2, said, False)

    server.deploy(key, "iris", iris_like(tmp_path / "iris.onnx"))
    options = [
        "--qps",
        "40",
        "--duration",
        "1.5s",
        "--p99",
        "30s",
        "--process",
        "constant",
        "--binary",
        "--also",
        "iris@1=20",
    ]
    done = roost(server.url, key, "iris", *options, "--out", str(out), "--json")
    assert done.stdout, done.stderr
    verdict, written = json.loads(done.stdout), json.loads((out / "verdict.json").read_text())
    assert verdict == written
    # A busy machine may find its own generator too slow; a run that failed would say that the platform is at fault.
    assert (verdict["result"], done.returncode) in {("pass", 0), ("invalid", 2)}, verdict
    record = Record.from_json((out / "record.json").read_text())
    assert [second.answered for second in record.seconds] == [60, 30]
    (bill,) = record.billing
    assert (bill.target, bill.after - bill.before, bill.answered) == ("acme/iris", 90, 90)
    assert [str(stream.target) for stream in record.plan.streams] == ["acme/iris", "acme/iris@1"]
    assert record.plan.streams[0].payload == "16 made from the signature, binary tensors, seed 0"
    assert record.plan.aims.p99_s == 30
    assert record.platform["engine"] == "local"
    assert {path.name for path in out.iterdir()} >= {"record.json", "verdict.json", "junit.xml", "summary.md"}
    assert not [path for path in out.iterdir() if key in path.read_text()]


def test_without_a_server_the_status_is_that_of_every_roost_command(tmp_path):
    done = roost(f"http://127.0.0.1:{free_port()}", "", "iris", "--qps", "5", "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert "nobody answers at" in done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "locust", None)
    result = Command("http://127.0.0.1:9", tmp_path)("loadtest", "iris", "--qps", "5")
    assert result.exit_code == 2
    assert result.stderr == "The load tester needs its libraries: pip install 'roost[loadtest]'\n"
    assert program.main(["run", "iris"]) == 2
    assert "pip install 'roost[loadtest]'" in capsys.readouterr().err


def test_options_travel_as_one_spells_them_and_defaults_stay_behind():
    options = {"qps": 5.0, "shape": None, "binary": True, "no-billing": False, "also": ["a=1", "b=2"], "seed": 0}
    assert spelled(options) == ["--qps=5.0", "--binary", "--also=a=1", "--also=b=2", "--seed=0"]


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 0), (["--help"], 0), (["walk"], 2), (["report", "/nowhere"], 2)]
)
def test_the_program_says_how_it_is_used(arguments, status, capsys):
    assert program.main(arguments) == status
    assert capsys.readouterr().err
