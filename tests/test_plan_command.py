"""`roost plan` against the real server: it measures at one replica, and the model's policy comes back in every case."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import surfaces_onnx_files
import typer

from roost_gateway.cli.plan import measure
from roost_gateway.cli.plan_runs import Probe, held
from roost_gateway.cli.session import Session
from roost_gateway.client import RoostClient
from roost_gateway.planning.records import Measured
from roost_process import RoostProcess, until

FILE = Path(surfaces_onnx_files.__file__).parent / "gradient_boosting_regressor.onnx"
OPTIONS = {"window": 20, "max_scale": 7, "scale_down_delay": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RoostProcess]:
    with RoostProcess(tmp_path_factory.mktemp("plan")) as started:
        yield started


@pytest.fixture(scope="module")
def key(server: RoostProcess) -> str:
    secret = server.make_tenant("acme", requests_per_second=100_000, burst=100_000)
    server.deploy(secret, "scores", FILE, **OPTIONS)
    return secret


@pytest.fixture
def client(server: RoostProcess, key: str) -> Iterator[RoostClient]:
    with server.client(key) as made:
        yield made


def command(server: RoostProcess, key: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = os.environ | {"ROOST_URL": server.url, "ROOST_API_KEY": key}
    return [sys.executable, "-m", "roost_gateway", "plan", "scores", *arguments], environment


def test_a_policy_comes_back_whatever_happens_inside(client: RoostClient):
    before = client.status("scores")["scaling"]

    def ready() -> int:
        found: int = client.model("scores")["replicas_ready"]
        return found

    def hold_and_end(end: type[BaseException]) -> None:
        with held(client, "scores", ready) as hold:
            assert hold(2) < 60
            during = client.status("scores")["scaling"]
            assert (during["min-scale"], during["max-scale"]) == (2, 2)
            raise end

    for end in (KeyboardInterrupt, RuntimeError, SystemExit):
        with pytest.raises(end):
            hold_and_end(end)
        assert client.status("scores")["scaling"] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_plan_gives_the_policy_back(
    server: RoostProcess, client: RoostClient, key: str, number: signal.Signals
):
    before = client.status("scores")["scaling"]
    words, environment = command(server, key, "--qps", "20", "--p99", "1s")
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, start_new_session=True) as run:
        until(lambda: client.status("scores")["scaling"]["max-scale"] == 1, within=60)
        os.killpg(run.pid, number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"has its own policy again" in said
    assert client.status("scores")["scaling"] == before


@dataclass(frozen=True)
class Scripted(Probe):
    """A replica that holds 70 requests a second, and two that hold 140; and what was asked, at how many replicas."""

    roost: RoostClient
    asked: list[tuple[int, float]]
    holds_rps: float = 70.0
    tires: bool = False
    """What held once does not hold again."""

    def run(self, rate: float, *, length_s: int | None = None) -> Measured:
        replicas = self.roost.model("scores")["replicas_ready"]
        again = self.tires and (replicas, rate) in self.asked
        self.asked.append((replicas, rate))
        seen = Measured(
            rate, 500, 0 if rate <= self.holds_rps * replicas and not again else 400, min(rate, 80.0 * replicas), 0.01
        )
        self.done.append(seen)
        return seen


def test_the_search_goes_on_at_one_replica_and_ends_at_as_many_as_are_needed(client: RoostClient, tmp_path: Path):
    """The model is really scaled; what its replicas hold is made up."""
    before = client.status("scores")["scaling"]
    session = Session(client.url, None, None, json_output=False)
    probe = Scripted(session, "scores", 0.1, 0.95, 5, [], tmp_path, [], roost=client, asked=[])
    capacity, together = measure(client, probe, 100)
    assert 70 / 1.1 <= capacity.holds_rps <= 70
    assert (capacity.service_s, capacity.most_rps, together) == (0.01, 80, True)
    assert capacity.in_flight == pytest.approx(capacity.holds_rps * 0.01)
    replicas = [number for number, _ in probe.asked]
    assert replicas == [1] * (len(replicas) - 1) + [3]
    assert [rate for _, rate in probe.asked][-2:] == [capacity.holds_rps, 100], "a run of its own at the rate found"
    assert client.status("scores")["scaling"] == before


@pytest.mark.parametrize(
    ("how", "says"), [({"holds_rps": 0.0}, "does not keep 100 ms"), ({"tires": True}, "did not hold again")]
)
def test_a_model_that_holds_no_rate_twice_gets_no_plan(
    client: RoostClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: dict, says: str
):
    before = client.status("scores")["scaling"]
    session = Session(client.url, None, None, json_output=False)
    probe = Scripted(session, "scores", 0.1, 0.95, 5, [], tmp_path, [], roost=client, asked=[], **how)
    with pytest.raises(typer.Exit) as ended:
        measure(client, probe, 100)
    assert ended.value.exit_code == 1
    assert says in capsys.readouterr().err
    assert client.status("scores")["scaling"] == before


@pytest.mark.skipif("ROOST_TEST_PLAN" not in os.environ, reason="half a minute of load: ROOST_TEST_PLAN=1")
def test_a_plan_is_measured_and_applied(server: RoostProcess, client: RoostClient, key: str):
    """With a confidence that a few requests give: the way is what is tried, not the figure."""
    words, environment = command(
        *(server, key, "--qps", "60", "--p99", "10s", "--confidence", "0.5", "--each", "3"),
        *("--shape", "steps:10x20s,60x40s", "--apply", "--json"),
    )
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    one = plan["one_replica"]
    assert (plan["replicas"], one["holds_rps"]) == (2, 60)
    assert 0 < one["service_s"] < 10
    assert (plan["model"], plan["target_rps"], plan["p99_s"], plan["applied"]) == ("scores", 60, 10, True)
    assert {each["loaded_s"] for each in plan["candidates"]} == {60}
    assert plan["currency"] == "USD"
    policy = client.status("scores")["scaling"]
    assert policy == plan["policy"]
    assert (policy["max-scale"], policy["scale-down-delay"]) == (plan["replicas"], 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--qps", "20", "--p99", "soon"], "is no time"),
        (["--qps", "20", "--p99", "1s", "--shape", "wave:3"], "no load shape"),
        (["--qps", "0", "--p99", "1s"], "--qps"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_changed(
    server: RoostProcess, key: str, arguments: list[str], says: str
):
    words, environment = command(server, key, *arguments)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
