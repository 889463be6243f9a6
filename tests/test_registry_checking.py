"""The checker seen from the platform: every way in which its process can end becomes one clear error."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import hostile_models as hostile
from registry_parts import adding
from roost_platform.domain.errors import ModelRejected, Unavailable
from roost_platform.registry.checking import Checker, CheckLimits
from roost_process import Process, descendants

CHECKER = "roost-check"


@pytest.fixture
def places(tmp_path):
    (tmp_path / "baked").mkdir()
    (tmp_path / "model").write_bytes(adding(1))
    return tmp_path / "model", tmp_path / "baked"


@pytest.fixture
def checking():
    """Makes checkers whose processes end with the test."""
    made = []

    def make(**options) -> Checker:
        made.append(Checker(**options))
        return made[-1]

    yield make
    for checker in made:
        checker.close()


@pytest.fixture
def started():
    """Asks for our processes that were not there when the test began."""
    before = descendants(os.getpid())
    return lambda: [process for process in descendants(os.getpid()) if process not in before]


@pytest.fixture
def impostor(tmp_path, checking):
    """A program in the place of Python, which does what a part taken over or gone wrong might do.

    The script runs where a checker judges a file; with `zygote=True`, in the place of the process that forks checkers.
    """

    def make(script: str, *, zygote: bool = False, at_once: int = 2, **limits) -> Checker:
        imports = "import os, signal, socket, sys, time"
        lines = script.splitlines()
        if not zygote:
            imports += "\nfrom roost_runtimes import check_zygote"
            lines = [
                "def judge(job, verdict):",
                "    os.dup2(verdict, 1); os.close(verdict)",
                *(f"    {n}" for n in lines),
            ]
            lines.append("check_zygote.main(sys.argv[4:], load=lambda: judge)")
        program = tmp_path / "impostor"
        program.write_text("\n".join([f"#!{sys.executable}", imports, *lines, ""]))
        program.chmod(0o700)
        return checking(python=str(program), limits=CheckLimits(**limits), at_once=at_once)

    return make


async def test_a_good_model_is_reported(places, checking):
    report = await checking().check(*places)
    assert [t.to_json() for t in report.signature.inputs] == [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    assert report.baked
    assert (places[1] / "model.onnx").stat().st_size > 0
    assert report.opset == {"ai.onnx": 17}
    assert report.memory_bytes > 0


async def test_a_refusal_keeps_code_message_and_field(places, checking):
    places[0].write_bytes(hostile.with_initializer(hostile.external("w")).SerializeToString())
    with pytest.raises(ModelRejected, match="initializer 'w' keeps its data outside") as raised:
        await checking().check(*places)
    assert (raised.value.code, raised.value.field) == ("external_data", "w")


async def test_an_endless_loop_is_killed_at_the_wall_clock(places, checking):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await checking(limits=CheckLimits(wall_s=1.5)).check(*places)
    assert raised.value.code == "too_slow"
    assert not checkers()


async def test_an_endless_loop_is_killed_at_the_processor_limit(places, checking):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await checking(limits=CheckLimits(cpu_s=1)).check(*places)
    assert raised.value.code == "too_slow"


async def test_a_memory_bomb_is_refused(places, checking):
    places[0].write_bytes(hostile.memory_bomb().SerializeToString())
    with pytest.raises(ModelRejected) as raised:
        await checking(limits=CheckLimits(memory_bytes=2**29)).check(*places)
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
        ('print(\'{"ok": false, "code": "runtime_missing", "message": "m"}\')', "load_crashed"),
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
        await impostor(script, wall_s=2 if code == "too_slow" else 30).check(*places)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("sys.exit('/usr/bin/python: No module named roost_runtimes')", "runtime_missing"),
        ('socket.socket(fileno=int(sys.argv[-1])).send(b\'{"missing": "onnx"}\')', "runtime_missing"),
        ("sys.exit('something else is wrong')", "checker_broken"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "checker_lost"),
        (
            "s = socket.socket(fileno=int(sys.argv[-1])); s.send(b'{\"ready\": 1}'); s.recv(1); s.close()",
            "checker_lost",
        ),
    ],
)
async def test_without_a_zygote_it_is_not_the_models_fault(places, impostor, script, code):
    with pytest.raises(Unavailable) as raised:
        await impostor(script, zygote=True).check(*places)
    assert raised.value.code == code
    assert (code == "runtime_missing") == ("install roost[runtime]" in raised.value.message)


async def test_a_missing_python_is_not_the_models_fault(places, tmp_path, checking):
    with pytest.raises(Unavailable):
        await checking(python=str(tmp_path / "absent")).check(*places)


async def test_children_of_the_process_die_with_the_check(places, impostor, tmp_path):
    pid_file = tmp_path / "pid"
    script = f"pid = os.fork()\nif pid: open({str(pid_file)!r}, 'w').write(str(pid)); os._exit(3)\ntime.sleep(600)"
    with pytest.raises(ModelRejected):
        await impostor(script, wall_s=1).check(*places)
    await until(lambda: not is_running(int(pid_file.read_text())))


async def test_a_cancelled_check_leaves_no_process(places, checking):
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    task = asyncio.create_task(checking().check(*places))
    await until(checkers)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not checkers()


async def test_the_environment_of_the_gateway_stays_with_it(places, impostor, tmp_path, monkeypatch):
    monkeypatch.setenv("ROOST_OPERATOR_KEY", "secret")
    seen = tmp_path / "seen"
    with pytest.raises(ModelRejected):
        await impostor(f"open({str(seen)!r}, 'w').write(repr((dict(os.environ), os.listdir('.'))))").check(*places)
    environment, folder = eval(seen.read_text())
    assert "secret" not in environment.values()
    assert folder == []


async def test_no_descriptor_of_the_gateway_reaches_a_checker(places, impostor, tmp_path):
    seen = tmp_path / "seen"
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        names = "[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) < 99 and n != '3']"
        judge = impostor(f"text = repr({names})\nopen({str(seen)!r}, 'w').write(text)")
        with pytest.raises(ModelRejected):
            await judge.check(*places)
    targets = eval(seen.read_text())
    assert targets.count("/dev/null") == 1
    assert all(target.startswith(("pipe:", "/dev/null", "/proc/")) for target in targets)


async def test_no_more_checks_run_at_once_than_allowed(places, impostor, tmp_path):
    log = tmp_path / "log"
    script = (
        f"fd = os.open({str(log)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "os.write(fd, b'+'); time.sleep(0.05); os.write(fd, b'-')"
    )
    checker = impostor(script, at_once=1)
    await asyncio.gather(*(checker.check(*places) for _ in range(4)), return_exceptions=True)
    assert log.read_text() == "+-" * 4


async def test_a_zygote_that_is_killed_is_replaced_and_no_check_fails(places, checking, started):
    """Its two checks die with it; both files are judged again by children of the next one."""
    checker = checking()
    await checker.check(*places)
    (first,) = zygotes(started())
    others = places[0].with_name("other"), places[1].with_name("other-baked")
    others[0].write_bytes(adding(2))
    others[1].mkdir()
    both = [asyncio.create_task(checker.check(*pair)) for pair in (places, others)]
    await until(checkers)
    os.kill(first.pid, signal.SIGKILL)
    for report in await asyncio.gather(*both):
        assert report.opset == {"ai.onnx": 17}
    (second,) = zygotes(started())
    assert second != first
    checker.close()
    assert not zygotes(started())


async def test_a_zygote_that_hangs_is_killed_with_the_check_that_was_under_way(places, impostor, started):
    script = "s = socket.socket(fileno=int(sys.argv[-1])); s.send(b'{\"ready\": 1}'); time.sleep(600)"
    checker = impostor(script, zygote=True, wall_s=0.2)
    with pytest.raises(ModelRejected) as raised:
        await checker.check(*places)
    assert raised.value.code == "too_slow"
    assert not started()


async def test_a_zygote_without_work_ends_and_the_next_check_starts_another(places, checking, started):
    checker = checking(idle_s=0.01)
    for _ in range(2):
        await checker.check(*places)
        await until(lambda: not started())


async def test_a_zygote_is_ready_before_the_file_and_ends_when_no_file_comes(places, checking, started):
    checker = checking(idle_s=0.01)
    checker.prepare()
    assert started()
    await until(lambda: not started())


async def test_the_build_key_is_asked_for_once(impostor, tmp_path):
    runs = tmp_path / "runs"
    script = f"""open({str(runs)!r}, 'a').write('x'); print('{{"build_key": "0123456789abcdef"}}')"""
    checker = impostor(script, zygote=True)
    assert [await checker.build_key(), await checker.build_key()] == ["0123456789abcdef"] * 2
    assert runs.read_text() == "x"


async def test_a_build_key_that_is_none_is_not_believed(impostor):
    with pytest.raises(Unavailable):
        await impostor("""print('{"build_key": "../../etc"}')""", zygote=True).build_key()


async def test_checks_end_when_the_process_that_asked_is_killed(places, tmp_path):
    """The gateway may be killed at any time; a checker in an endless loop must not stay behind."""
    places[0].write_bytes(hostile.endless_loop().SerializeToString())
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom roost_platform.registry.checking import Checker\n"
        "asyncio.run(Checker().check(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    asker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *map(str, places))
    await until(lambda: len([p for p in descendants(asker.pid) if p.name == CHECKER]) == 2)
    children = descendants(asker.pid)
    asker.kill()
    await asker.wait()
    await until(lambda: not any(child.lives() for child in children))


async def until(condition) -> None:
    """Wait for something that other processes do; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def checkers() -> list[Process]:
    """Our processes that are judging a file."""
    return [process for process in descendants(os.getpid()) if process.name == CHECKER]


def zygotes(processes: list[Process]) -> list[Process]:
    return [process for process in processes if process.name == "roost-checks"]


async def test_words_of_a_file_do_not_reach_a_terminal_as_more_than_text(places, impostor):
    script = 'print(json.dumps({"ok": False, "code": "load_failed", "message": "a \\x1b[2J b\\n\\u202e", "field": "\\x07x"}))'
    with pytest.raises(ModelRejected) as raised:
        await impostor("import json; " + script).check(*places)
    assert (raised.value.message, raised.value.field) == ("a ?[2J b??", "?x")
