"""The checker seen from the platform: every way in which its process can end becomes one clear error."""

import asyncio
import sys
from pathlib import Path

import pytest

import hostile_models as hostile
from registry_parts import adding
from roost_platform.domain.errors import ModelRejected, Unavailable
from roost_platform.registry.checking import Checker, CheckLimits


@pytest.fixture
def places(tmp_path):
    (tmp_path / "baked").mkdir()
    (tmp_path / "model").write_bytes(adding(1))
    return tmp_path / "model", tmp_path / "baked"


@pytest.fixture
def impostor(tmp_path):
    """A program in the place of Python, which does what a checker taken over or gone wrong might do."""

    def make(script: str, **limits) -> Checker:
        program = tmp_path / "impostor"
        program.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{script}\n")
        program.chmod(0o700)
        return Checker(python=str(program), limits=CheckLimits(**limits))

    return make


async def test_a_good_model_is_reported(places):
    report = await Checker().check(*places)
    assert [t.to_json() for t in report.signature.inputs] == [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    assert report.baked
    assert report.opset == {"ai.onnx": 17}
    assert report.memory_bytes > 0
    assert (places[1] / "model.onnx").exists()


async def test_a_refusal_keeps_code_message_and_field(places):
    places[0].write_bytes(hostile.with_initializer(hostile.external("w")).SerializeToString())
    with pytest.raises(ModelRejected, match="initializer 'w' keeps its data outside") as raised:
        await Checker().check(*places)
    assert (raised.value.code, raised.value.field) == ("external_data", "w")


async def test_an_endless_loop_is_killed_at_the_wall_clock(places):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await Checker(limits=CheckLimits(wall_s=1.5)).check(*places)
    assert raised.value.code == "too_slow"
    assert not checkers_of(places[0])


async def test_an_endless_loop_is_killed_at_the_processor_limit(places):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await Checker(limits=CheckLimits(cpu_s=1)).check(*places)
    assert raised.value.code == "too_slow"


async def test_a_memory_bomb_is_refused(places):
    places[0].write_bytes(hostile.memory_bomb().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await Checker(limits=CheckLimits(memory_bytes=2**29)).check(*places)
    assert raised.value.code == "out_of_memory"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "load_crashed"),
        ("os.abort()", "load_crashed"),
        ("sys.exit(3)", "load_crashed"),
        ("pass", "load_crashed"),
        ("print('no json')", "load_crashed"),
        ("print('[1]')", "load_crashed"),
        ("print('{\"ok\": true}')", "load_crashed"),
        ('print(\'{"ok": true, "signature": 7, "memory_bytes": "x"}\')', "load_crashed"),
        ('print(\'{"ok": false, "code": "../x", "message": "m"}\')', "load_crashed"),
        ('print(\'{"ok": false, "code": "fine_code", "message": 7}\')', "load_crashed"),
        ("while True: os.write(1, b'x' * 65536)", "load_crashed"),
        ("while True: os.write(2, b'x' * 65536)", "too_slow"),
        ("os.write(1, b' ' * 100_000)", "load_crashed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out_of_memory"),
        ("os.write(2, b\"terminate called … 'std::bad_alloc'\".replace(b'x', b'x')) and os.abort()", "out_of_memory"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "too_slow"),
        ("time.sleep(600)", "too_slow"),
        ("os.close(1); os.close(2); time.sleep(600)", "too_slow"),
    ],
)
async def test_however_the_process_ends_the_model_is_refused(places, impostor, script, code):
    script = script.replace("…", "...")
    with pytest.raises(ModelRejected) as raised:
        await impostor(script, wall_s=2).check(*places)
    assert raised.value.code == code


async def test_a_missing_runtime_is_not_the_models_fault(places, impostor):
    with pytest.raises(Unavailable, match=r"install roost\[runtime\]"):
        await impostor("sys.exit('/usr/bin/python: No module named roost_runtimes')").check(*places)
    with pytest.raises(Unavailable, match=r"install roost\[runtime\]"):
        await impostor("""print('{"ok": false, "code": "runtime_missing", "message": "x"}')""").check(*places)


async def test_a_missing_python_is_not_the_models_fault(places, tmp_path):
    with pytest.raises(Unavailable):
        await Checker(python=str(tmp_path / "absent")).check(*places)


async def test_children_of_the_process_die_with_the_check(places, impostor, tmp_path):
    pid_file = tmp_path / "pid"
    script = f"pid = os.fork()\nif pid: open({str(pid_file)!r}, 'w').write(str(pid)); os._exit(3)\ntime.sleep(600)"
    with pytest.raises(ModelRejected):
        await impostor(script, wall_s=1).check(*places)
    await until(lambda: not is_running(int(pid_file.read_text())))


async def test_a_cancelled_check_leaves_no_process(places):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    task = asyncio.create_task(Checker().check(*places))
    await until(lambda: checkers_of(places[0]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not checkers_of(places[0])


async def test_the_environment_of_the_gateway_stays_with_it(places, impostor, tmp_path, monkeypatch):
    monkeypatch.setenv("ROOST_OPERATOR_KEY", "secret")
    seen = tmp_path / "seen"
    with pytest.raises(ModelRejected):
        await impostor(f"open({str(seen)!r}, 'w').write(repr((dict(os.environ), os.listdir('.'))))").check(*places)
    environment, folder = eval(seen.read_text())
    assert "secret" not in environment.values()
    assert folder == []


async def test_no_more_checks_run_at_once_than_allowed(places, tmp_path):
    log = tmp_path / "log"
    program = tmp_path / "slow"
    program.write_text(
        f"#!{sys.executable}\nimport os, time\nfd = os.open({str(log)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "os.write(fd, b'+'); time.sleep(0.05); os.write(fd, b'-')\n"
    )
    program.chmod(0o700)
    checker = Checker(python=str(program), at_once=1)
    await asyncio.gather(*(checker.check(*places) for _ in range(4)), return_exceptions=True)
    assert log.read_text() == "+-" * 4


async def test_the_build_key_is_asked_for_once(impostor, tmp_path):
    runs = tmp_path / "runs"
    checker = impostor(f"""open({str(runs)!r}, 'a').write('x'); print('{{"build_key": "0123456789abcdef"}}')""")
    assert [await checker.build_key(), await checker.build_key()] == ["0123456789abcdef"] * 2
    assert runs.read_text() == "x"


async def test_a_build_key_that_is_none_is_not_believed(impostor):
    with pytest.raises(Unavailable):
        await impostor("""print('{"build_key": "../../etc"}')""").build_key()


async def test_checks_end_when_the_process_that_asked_is_killed(places, tmp_path):
    """The gateway may be killed at any time; a checker in an endless loop must not stay behind."""
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom roost_platform.registry.checking import Checker\n"
        "asyncio.run(Checker().check(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *map(str, places))
    await until(lambda: len(checkers_of(places[0])) == 2)
    asker.kill()
    await asker.wait()
    await until(lambda: not checkers_of(places[0]))


async def until(condition) -> None:
    """Wait for something that other processes do; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def checkers_of(path: Path) -> list[int]:
    """Processes that are judging this file."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"roost_runtimes.check" in words and str(path).encode() in words:
                found.append(int(entry.name))
    return found
