"""What images start besides the server: `roost migrate`, and the model class of the GPU runtime."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import surfaces_onnx_files

from roost_platform.database.lock import DataFolder
from roost_runtimes.cuda_model import CudaModel
from roost_runtimes.model import ModelError

MODEL = Path(surfaces_onnx_files.__file__).parent / "gradient_boosting_regressor.onnx"


def migrate(data: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roost_gateway", "migrate", "--data", str(data)]
    return subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=60, check=False)


def tables(data: Path) -> set[str]:
    with sqlite3.connect(data / "roost.db") as connection:
        names = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
    connection.close()
    return names


def test_a_database_is_made_and_one_that_is_current_stays_as_it_is(tmp_path: Path):
    assert migrate(tmp_path).returncode == 0
    made = tables(tmp_path)
    assert {"tenants", "alembic_version"} <= made
    assert migrate(tmp_path).returncode == 0
    assert tables(tmp_path) == made


def test_a_database_that_is_not_there_is_told_by_one_sentence(tmp_path: Path):
    done = migrate(tmp_path, ROOST_DATABASE_URL="postgresql+psycopg://roost@127.0.0.1:1/roost?connect_timeout=2")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("roost: the database cannot be used")


def test_a_folder_in_which_a_server_runs_is_left_alone(tmp_path: Path):
    with DataFolder(tmp_path):
        done = migrate(tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("roost: ")
    assert not (tmp_path / "roost.db").exists()


def test_settings_that_do_not_fit_each_other_are_told_without_a_variables_name(tmp_path: Path):
    done = migrate(tmp_path, ROOST_ENGINE="knative")
    assert (done.returncode, done.stderr) == (
        2, "Error: engine knative needs ROOST_SERVICE_SECRET_KEY (for example `openssl rand -hex 32`)\n",
    )  # fmt: skip


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA here")
def test_a_gpu_runtime_without_a_gpu_says_so_and_does_not_serve_from_the_cpu():
    with pytest.raises(ModelError) as refusal:
        CudaModel(MODEL, name="m", version="1")
    assert refusal.value.code == "gpu_unavailable"
