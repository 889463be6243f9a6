"""What a planner and the prediction read out of a record.json, made here by the load tester's own classes."""

import json
from typing import Any

import pytest

from roost_gateway.cli.prediction import add_prediction, predict_in, rate_at
from roost_gateway.planning.records import latencies, mean_s, measured
from roost_loadtest.histograms import Histogram
from roost_loadtest.offered import by_second
from roost_loadtest.offered import main as offered
from roost_loadtest.record import Generator, Plan, Record, Replicas, Second, Stream, Target
from roost_loadtest.shapes import Shape, constant, ramp, steps

IRIS, OTHER = Target("acme", "iris"), Target("acme", "other")
POLICY = {"target": 2.0, "window": 6}  # 1.4 a replica


def histogram(*seconds: float) -> Histogram:
    made = Histogram()
    for each in seconds:
        made.add(each)
    return made


def second(number: int, latency_s: float = 0.05, sent: int = 100, **more: Any) -> Second:
    return Second(number, float(sent), sent=sent, answered=sent, latency=histogram(*[latency_s] * sent), **more)


def document(*seconds: Second, shapes: dict[Target, Shape] | None = None, **more: Any) -> dict[str, Any]:
    streams = tuple(Stream(target, shape) for target, shape in (shapes or {IRIS: constant(100, 60)}).items())
    record = Record(Plan("http://x", streams), "2026-11-23T05:00:00+00:00", seconds, **more)
    return json.loads(record.to_json())


def test_histograms_are_read_as_they_were_written():
    made = histogram(*[0.001] * 5, 0.1, 2.0)
    counts = latencies(made.encode())
    assert counts.total() == 7
    assert mean_s(counts) == pytest.approx(made.mean, rel=0.002)
    assert sum(count for us, count in counts.items() if us > 50_000) == 2
    assert latencies("") == {}
    assert mean_s(latencies("")) == 0
    with pytest.raises(ValueError, match="not a histogram"):
        latencies("nonsense")


def test_what_is_late_is_slow_or_failed_or_was_not_sent():
    lost = Second(
        4, 100, sent=90, answered=80, dropped=10, errors={"503": 10}, latency=histogram(*[0.3] * 20, *[0.01] * 70)
    )
    record = document(second(0, 9.0), second(1, 9.0), second(2), second(3), lost)
    seen = measured(record, rate=100, aim_s=0.2, settle_s=2)
    assert (seen.requests, seen.late, seen.fast_enough) == (300, 40, True)
    assert seen.answered_rps == pytest.approx(280 / 3)
    assert seen.in_flight == pytest.approx(seen.answered_rps * seen.latency_s)


@pytest.mark.parametrize(
    "generator", [Generator(lag=histogram(*[0.0001] * 95, *[0.02] * 5)), Generator(cpu=0.9)], ids=["lag", "busy"]
)
def test_a_generator_that_fell_behind_is_told_of(generator: Generator):
    record = document(second(0), generator=generator)
    assert not measured(record, rate=100, aim_s=0.2, settle_s=0).fast_enough


def test_a_run_that_is_too_short_measures_nothing():
    with pytest.raises(ValueError, match="too short"):
        measured(document(second(0), second(1)), rate=100, aim_s=0.2, settle_s=2)


def prediction(record: dict[str, Any], target: str = "acme/iris") -> list[int]:
    curve = add_prediction(record)["platform"]["prediction"][target]
    assert [at for at, _ in curve] == list(range(len(curve)))
    return [replicas for _, replicas in curve]


def test_the_prediction_follows_the_load_that_was_observed():
    """100 a second of 50 ms are 5 in flight: four replicas of 1.4, and none when all is over."""
    after = tuple(Second(number, 0.0) for number in range(40, 100))
    record = document(
        *[second(number) for number in range(40)], after=after, platform={"scaling": {"acme/iris": POLICY}}
    )
    curve = prediction(record)
    assert curve[20:40] == [4] * 20
    assert curve[-1] == 0
    assert add_prediction(record)["platform"]["scaling"] == {"acme/iris": POLICY}


def test_a_request_that_takes_seconds_is_in_flight_for_all_of_them():
    platform = {"scaling": {"acme/iris": {"target": 1.0, "window": 6}}}
    seconds = [second(0, 10.0, sent=14), *[Second(number, 0.0) for number in range(1, 40)]]
    curve = prediction(document(*seconds, platform=platform))
    assert curve[5:10] == [20] * 5  # 14 in flight, 0.7 a replica
    assert curve[-1] == 0


def test_each_revision_is_predicted_on_its_own():
    """The one that takes the traffic over begins as one that nobody asked for before."""

    def told(number: int, serving: str) -> Second:
        return second(number, replicas={"acme/iris": Replicas(wanted=4, ready=4, serving=serving)})

    record = document(
        *[told(number, "iris-00001" if number < 30 else "iris-00002") for number in range(60)],
        platform={"scaling": {"acme/iris": {"metric": "rps", "target": 30, "window": 6}}},
    )
    alone = document(
        *[told(number, "iris-00001") for number in range(30)],
        platform={"scaling": {"acme/iris": {"metric": "rps", "target": 30, "window": 6}}},
    )
    curve, first = prediction(record), prediction(alone)
    assert curve[:30] == first
    assert curve[30:] == first


def test_of_several_models_each_has_its_share_or_what_the_platform_saw():
    shapes = {IRIS: constant(75, 40), OTHER: ramp(0, 50, 40)}
    scaling = {"acme/iris": {"metric": "rps", "target": 10, "window": 6}, "acme/other": {"target": 1.0, "window": 6}}
    seen = {"acme/other": Replicas(in_flight=7)}
    record = document(
        *[second(number, replicas=seen) for number in range(40)], shapes=shapes, platform={"scaling": scaling}
    )
    assert prediction(record)[35] < 15  # of 100 a second some 60, 7 a replica
    assert prediction(record, "acme/other")[35] == 10  # 7 in flight, 0.7 a replica


@pytest.mark.parametrize("options", [{"class": "hpa", "metric": "cpu", "min-scale": 1}, {"window": 0}, {"what": 1}])
def test_what_this_autoscaler_does_not_decide_is_not_predicted(options: dict[str, Any]):
    record = document(second(0), platform={"scaling": {"acme/iris": options}})
    assert add_prediction(record)["platform"]["prediction"] == {}


def test_a_record_on_disk_keeps_all_else(tmp_path):
    record = document(second(0), second(1), platform={"scaling": {"acme/iris": POLICY}, "engine": "local"})
    (tmp_path / "record.json").write_text(json.dumps(record))
    predict_in(tmp_path)
    again = Record.from_json((tmp_path / "record.json").read_text())
    assert again.platform.pop("prediction").keys() == {"acme/iris"}
    assert json.loads(again.to_json()) == record


def test_a_shape_is_read_as_the_load_tester_does():
    shape = steps([(50, 3), (200, 2)])
    knots = json.loads(json.dumps(shape.knots))
    for at in (0, 1.5, 2.999, 3, 4.5, 5, 9):
        assert rate_at(knots, at) == shape.rate(at)
    assert by_second(shape) == [50, 50, 50, 200, 200]


def test_a_load_shape_on_the_command_line_is_json(capsys):
    assert offered(["ramp:0-10x2s"]) == 0
    assert json.loads(capsys.readouterr().out) == [2.5, 7.5]
    assert offered(["20", "--duration", "2s"]) == 0
    assert json.loads(capsys.readouterr().out) == [20, 20]
    assert offered(["wave:3"]) == 2
    assert "no load shape" in capsys.readouterr().err
    assert offered(["20", "--duration", "9999h"]) == 2
    assert "a week" in capsys.readouterr().err
