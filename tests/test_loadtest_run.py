"""`python -m roost_loadtest run` as a program: what it sends, writes, prints and ends with."""

import argparse
import os
import re
import signal
import subprocess
import sys
from urllib.request import urlopen

import pytest

from free_ports import free_port
from loadtest_server import serving
from roost_loadtest import api
from roost_loadtest.arrivals import due_times
from roost_loadtest.live import Live, line
from roost_loadtest.options import add_to, order_of
from roost_loadtest.record import Record, Replicas, Second
from roost_process import until

KEY = "roost_the-key-that-nobody-may-see"


@pytest.fixture
def order(tmp_path):
    """Starts the program for a run of acme/iris; `wait` ends it."""
    (tmp_path / "request.json").write_text('{"inputs":[]}')

    started = []

    def start(url, *options):
        command = [sys.executable, "-m", "roost_loadtest", "run", "acme/iris", f"--payload={tmp_path / 'request.json'}"]
        environment = os.environ | {"ROOST_URL": url, "ROOST_API_KEY": KEY}
        process = subprocess.Popen(
            [*command, "--no-billing", f"--out={tmp_path / 'out'}", *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process, tmp_path, *, status=0):
    """The record, and what was said."""
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status, said
    text = (tmp_path / "out" / "record.json").read_text()
    assert KEY not in text + said
    return Record.from_json(text), said


def test_a_run_that_waits_for_workers_can_be_interrupted(order, tmp_path):
    process = order("http://127.0.0.1:9", "--qps=5", "--workers=1", f"--bind=127.0.0.1:{free_port()}")
    assert process.stderr.readline().startswith("Waiting for 1 workers")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not (tmp_path / "out" / "record.json").exists()


def test_several_processes_make_one_run(order, tmp_path):
    """One of this machine, one that another machine might have started: what they count travels to the first one."""
    master = f"127.0.0.1:{free_port()}"
    worker = subprocess.Popen([sys.executable, "-m", "roost_loadtest", "worker", "--master", master])
    with serving() as url:
        options = ("--qps=100", "--duration=1.5s", "--also=beta/other=40", "--workers=1", f"--bind={master}")
        together, said = ended(order(url, *options), tmp_path)
    assert f"Waiting for 1 workers: python -m roost_loadtest worker --master {master}" in said
    assert worker.wait(30) == 0
    dues = [due for each in together.plan.streams for due in due_times(each.shape, each.process, seed=each.seed)]
    assert [second.sent for second in together.seconds] == [sum(int(due) == n for due in dues) for n in range(2)]
    assert together.latency.count == sum(second.answered for second in together.seconds)
    assert [second.in_flight for second in together.seconds][-1] == 0
    assert together.plan.processes == 2


def test_an_interrupted_run_leaves_a_record_of_what_there_was(order, tmp_path):
    port = free_port()
    with serving() as url:
        process = order(url, "--qps=100", "--duration=60s", f"--web-ui={port}")
        # Locust's own page shows the requests meanwhile, by the time from when they were due.
        until(lambda: '"name": "acme/iris"' in page(f"http://127.0.0.1:{port}/stats/requests"), within=60)
        process.send_signal(signal.SIGINT)
        record, _ = ended(process, tmp_path, status=130)
    assert 0 < record.latency.count < 1000
    assert [text for _, text in record.events] == ["interrupted"]
    assert len(record.seconds) == 60


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ((), ValueError, "say how many requests"),
        (("--shape=steps:5",), ValueError, "'5' is no step"),
        (("--qps=0",), ValueError, "a load of no requests"),
        (("--qps=5", "--also=x"), ValueError, "'x' is no further stream"),
        (("--qps=5", "--also=a/b/c=3"), ValueError, "'a/b/c' is no model"),
        (("--qps=5", "--also=other=3"), api.NotThere, "nobody answers at"),
        (("--qps=5", "--workers=1"), ValueError, "need --bind"),
        (("--qps=5", "--processes=0"), ValueError, "one process or more"),
        (("--qps=5", "--payload=/nowhere"), OSError, "nowhere"),
        (("--qps=5", "--duration=soon"), SystemExit, "2"),
    ],
)
def test_an_order_that_cannot_be_run_is_refused_with_words(tmp_path, options, error, says):
    (tmp_path / "request.json").write_text("{}")
    parser = argparse.ArgumentParser()
    add_to(parser)
    usual = ["acme/iris", f"--url=http://127.0.0.1:{free_port()}", f"--payload={tmp_path / 'request.json'}", "--out=x"]
    with pytest.raises(error, match=says):
        order_of(parser.parse_args([*usual, *options]), {})


def test_each_tenant_has_a_key_of_its_own():
    environment = {"ROOST_API_KEY": "usual", "ROOST_API_KEY_BIG_CORP": "theirs"}
    assert [api.key_for(tenant, environment) for tenant in ("acme", "big-corp", "")] == ["usual", "theirs", "usual"]
    assert (api.key_for("acme", {}), api.bearer(""), api.bearer("k")) == ("", {}, {"Authorization": "Bearer k"})


def page(url):
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


class Terminal:
    def __init__(self, is_one):
        self.is_one = is_one
        self.text = ""

    def isatty(self):
        return self.is_one

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_is_written_over_itself_in_a_terminal_and_every_five_seconds_elsewhere():
    terminal, pipe, nothing = Terminal(True), Terminal(False), Terminal(True)
    shown = [Live(10, stream=terminal), Live(10, stream=pipe), Live(10, stream=nothing, quiet=True)]
    for live in shown:
        for number in range(10):
            live.second(Second(number, 50.0))
        live.say("Waiting.")
        live.end()
    assert terminal.text.count("\r\x1b[2K") == 11
    assert terminal.text.endswith("Waiting.\n")
    assert [int(each.split("/")[0]) for each in pipe.text.splitlines()[:-1]] == [0, 5]
    assert nothing.text == ""


def test_a_line_of_progress_says_what_went_wrong_and_how_many_replicas_there_are():
    second = Second(3, 50.0, answered=40, dropped=2, errors={"503": 7, "timeout": 1}, in_flight=4,
                    replicas={"acme/iris": Replicas(wanted=3, ready=2), "acme/x": Replicas()})  # fmt: skip
    text = re.sub(" +", " ", line(second, 60))
    assert text == (
        " 3/60 s offered 50.0/s answered 40/s p50 0.0 ms p99 0.0 ms in flight 4"
        " errors 503 7, timeout 1, dropped 2 acme/iris 2/3"
    )
