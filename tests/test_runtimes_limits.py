"""What a replica's process gives up when it is handed a model, tried from inside: files, memory, descriptors, powers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roost_runtimes import landlock

MIB = 1024**2

_CONFINED = """
import ctypes, errno, json, os, resource, socket, sys
from pathlib import Path
from roost_runtimes import sandbox
from roost_runtimes.confinement import ReplicaConfinement, python_folders
from roost_runtimes.onnx_model import OnnxModel

model, other, folder = map(Path, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
sandbox.refuse_inspection()
sandbox.be_killed_first()
sandbox.drop_privileges()
assert sandbox.can_filter() and sandbox.forbid_network_and_exec()
prepared = ReplicaConfinement(python_folders())
confined = prepared.close_around(model, baked=False, memory_bytes=64 << 20)

def late():
    import decimal, prometheus_client, sqlite3, xml.dom.minidom
    from roost_runtimes.metrics import metrics_page
    "x".encode("idna")

def raise_limit(kind):
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard + 1, hard + 1))

def system_v():
    if libc.shmget(0, 4096, 0o1600) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def allocate():
    bytes(128 << 20)

def descriptors():
    while True:
        os.dup(0)

attempts = {
    "read the model": lambda: model.read_bytes(),
    "serve the model": lambda: OnnxModel(model, name="m", version="1").warm_up(),
    "import late": late,
    "allocate 32 MiB": lambda: bytes(32 << 20),
    "a pair of streams": socket.socketpair,
    "write the model": lambda: model.open("r+b"),
    "read another": lambda: other.read_bytes(),
    "write another": lambda: other.write_text("x"),
    "delete another": lambda: other.unlink(),
    "list the folder": lambda: os.listdir(folder),
    "make a file": lambda: (folder / "new").touch(),
    "write to /tmp": lambda: Path("/tmp/roost-intruder").touch(),
    "list processes": lambda: os.listdir("/proc"),
    "read /etc/passwd": lambda: Path("/etc/passwd").read_bytes(),
    "a pair of datagram sockets": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "System V memory": system_v,
    "allocate 128 MiB": allocate,
    "a file in memory": lambda: os.write(os.memfd_create("x"), b"x"),
    "raise a limit": lambda: raise_limit(resource.RLIMIT_NOFILE),
    "be killed later": lambda: Path("/proc/self/oom_score_adj").write_text("0"),
    "many descriptors": descriptors,
}
said = {"confined": confined, "oom": int(os.environ["FD"]) and os.pread(int(os.environ["FD"]), 16, 0).decode().strip()}
for name, attempt in attempts.items():
    try:
        attempt()
        said[name] = "done"
    except (OSError, MemoryError, ValueError) as error:
        said[name] = errno.errorcode[error.errno] if isinstance(error, OSError) and error.errno else type(error).__name__
print(json.dumps(said))
"""

_START = "import os, runpy, sys; os.environ['FD'] = str(os.open('/proc/self/oom_score_adj', os.O_RDONLY)); exec(sys.argv.pop(1))"


def _tell(folder: Path) -> dict:
    from models_for_tests import add_one

    model, other = add_one(folder / "model.onnx"), folder / "other"
    other.write_text("a secret")
    command = [sys.executable, "-c", _START, _CONFINED, str(model), str(other), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert other.read_text() == "a secret"
    assert not Path("/tmp/roost-intruder").exists()
    return json.loads(ended.stdout)


_DONE = {"read the model", "serve the model", "import late", "allocate 32 MiB", "a pair of streams"}
_FILES = {
    "write the model": "EACCES", "read another": "EACCES", "write another": "EACCES", "delete another": "EACCES",
    "list the folder": "EACCES", "make a file": "EACCES", "write to /tmp": "EACCES", "list processes": "EACCES",
    "read /etc/passwd": "EACCES", "be killed later": "EACCES",
}  # fmt: skip
_OTHERS = {
    "a pair of datagram sockets": "EPERM",
    "System V memory": "EPERM",
    "allocate 128 MiB": "MemoryError",
    "a file in memory": "EFBIG",
    "many descriptors": "EMFILE",
    "raise a limit": "ValueError",
}


def test_a_replica_keeps_its_model_and_gives_up_the_rest(tmp_path):
    said = _tell(tmp_path)
    assert {name: said[name] for name in _DONE} == dict.fromkeys(_DONE, "done")
    assert {name: said[name] for name in _OTHERS} == _OTHERS
    assert said["oom"] == "900"


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock; the server says so when it starts")
def test_s17_no_file_but_the_models_own_can_be_reached(tmp_path):
    said = _tell(tmp_path)
    assert said["confined"] is True
    assert {name: said[name] for name in _FILES} == _FILES


_WITH_RULES = """
import sys
from pathlib import Path
from roost_runtimes import landlock, sandbox
sandbox.forbid_network_and_exec()
rules = landlock.Ruleset()
rules.allow(read=[Path(sys.argv[1]), Path("/nowhere")], write=[Path(sys.argv[2])])
print(rules.enforce(), rules.enforce())
for work in (
    lambda: Path(sys.argv[1], "a").read_text(),
    lambda: list(Path(sys.argv[1]).iterdir()),
    lambda: Path(sys.argv[1], "a").write_text("x"),
    lambda: Path(sys.argv[2], "b").write_text("x"),
    lambda: Path(sys.argv[2], "b").unlink(),
    lambda: Path(sys.argv[2], "b").mkdir(),
    lambda: Path(sys.argv[2], "b").symlink_to("/etc"),
):
    try:
        work()
        print("done")
    except PermissionError:
        print("refused")
"""


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock; the server says so when it starts")
def test_what_may_be_read_cannot_be_written_and_what_may_be_written_is_files_only(tmp_path):
    readable, writable = tmp_path / "r", tmp_path / "w"
    readable.mkdir()
    writable.mkdir()
    (readable / "a").write_text("a")
    command = [sys.executable, "-c", _WITH_RULES, str(readable), str(writable)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    wanted = ["True", "False", "done", "done", "refused", "done", "done", "refused", "refused"]
    assert ended.stdout.split() == wanted


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock; the server says so when it starts")
def test_a_checker_reaches_its_file_and_its_folders_only(tmp_path):
    script = """
import sys
from pathlib import Path
from roost_runtimes import check
folder = Path.cwd()
check._confine(folder / "model", folder / "bake")
check._give_up()
for work in (
    lambda: (folder / "model").read_text(),
    lambda: (folder / "bake" / "new").write_text("x"),
    lambda: Path("/proc/self/smaps_rollup").read_text(),
    lambda: (folder / "model").write_text("x"),
    lambda: (folder.parent / "other").read_text(),
    lambda: Path("/proc/self/environ").read_text(),
):
    try:
        work()
        print("done")
    except PermissionError:
        print("refused")
"""
    # Its working folder is for its temporary files; the upload lies elsewhere.
    script = script.replace("folder = Path.cwd()", "folder = Path(sys.argv[1])")
    for name in ("work", "up", "up/bake"):
        (tmp_path / name).mkdir()
    (tmp_path / "up" / "model").write_text("model")
    (tmp_path / "other").write_text("another's")
    command = [sys.executable, "-c", script, str(tmp_path / "up")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=tmp_path / "work")
    assert ended.stdout.split() == ["done"] * 3 + ["refused"] * 3


def test_limits_that_are_lower_already_stay():
    script = (
        "import resource\nfrom roost_runtimes.limits import Held, limit_replica\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 30))\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))\n"
        "limit_replica(Held.now(), memory_bytes=1 << 20)\n"
        "print([resource.getrlimit(k) for k in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE,\n"
        "       resource.RLIMIT_CORE)])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert ended.stdout.strip() == "[(20, 30), (750, 750), (0, 0), (0, 0)]"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else to try it")
def test_another_user_than_root_is_killed_first_as_well_and_has_no_powers_to_drop():
    script = (
        "import os\nfrom pathlib import Path\nfrom roost_runtimes import sandbox\n"
        "shown = os.open('/proc/self/oom_score_adj', os.O_RDONLY)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sandbox.refuse_inspection()\nsandbox.be_killed_first()\nsandbox.drop_privileges()\n"
        "print(os.pread(shown, 16, 0).decode().strip())\n"
        "try: Path('/proc/self/oom_score_adj').write_text('950')\nexcept PermissionError: print('hidden again')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert ended.stdout.split("\n")[:2] == ["900", "hidden again"]
