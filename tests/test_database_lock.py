"""One process per data folder, and the lock goes with the process, however it ends."""

import os
import subprocess
import sys

import pytest

from roost_platform.database.lock import DataFolder
from roost_platform.domain.errors import Conflict, Unavailable

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom roost_platform.database.lock import DataFolder\n"
    "folder = DataFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
)


def test_the_folder_is_made_private(tmp_path):
    with DataFolder(tmp_path / "a" / "data") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=rf"another Roost \(process {holder.pid}\) already uses"):
            DataFolder(tmp_path)
        holder.kill()
    with DataFolder(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_released_folder_can_be_taken_again(tmp_path):
    folder = DataFolder(tmp_path)
    with pytest.raises(Conflict):
        DataFolder(tmp_path)
    folder.release()
    folder.release()
    DataFolder(tmp_path).release()


def test_programs_started_by_the_holder_do_not_inherit_the_lock(tmp_path):
    folder = DataFolder(tmp_path)
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        folder.release()
        DataFolder(tmp_path).release()
    finally:
        child.kill()
        child.wait()


def test_a_path_that_cannot_be_a_folder_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be used"):
        DataFolder(tmp_path / "file" / "data")
