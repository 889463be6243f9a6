"""The watcher on a real gateway: it sees models sleep, wake and change, wakes none itself, and reads bills to the unit."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import models_for_tests as models
from roost_loadtest.record import Target
from roost_loadtest.watch import Watcher
from roost_process import RoostProcess, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RoostProcess(tmp_path_factory.mktemp("watched")) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def key(server, tmp_path_factory):
    """Of a tenant with a model that has been restarted: it sleeps."""
    file = models.identity(tmp_path_factory.mktemp("model") / "one.onnx", "FP32")
    key = server.make_tenant()
    server.deploy(key, "iris", file, window=6)
    assert server.stop() == 0
    server.start()
    return key


@contextmanager
def watcher(server: RoostProcess, key: str, *targets: Target, billed: bool = True) -> Iterator[Watcher]:
    targets = targets or (Target("acme", "iris"),)
    watch = Watcher(server.url, targets, key_of=lambda _: key, billed=billed, sleep=lambda _: None)
    yield watch
    watch.close()


def test_a_model_that_is_looked_at_sleeps_on(server, key):
    with watcher(server, key) as watch:
        facts = watch.facts()
        assert (facts["engine"], facts["version"], facts["scaling"]["acme/iris"]["window"]) == ("local", "0.1.0", 6)
        watch.before()
        for _ in range(50):
            seen = watch.look()["acme/iris"]
        assert (seen.wanted, seen.ready, seen.starting, seen.queued, seen.in_flight) == (0, 0, 0, 0, 0)
        assert (seen.panic, seen.cold_starts, seen.others, seen.serving) == (False, 0, 0, "iris-00001")
        assert [watch.settled({"acme/iris": seen}, waited) for waited in (0.2, 1.0, 2.7)] == [False, False, True]
        assert (server.replicas("iris"), watch.events()) == ([], [])
        assert watch.billing({"acme/iris": 0})[0].answered == 0


def test_a_call_is_seen_and_billed(server, key):
    with watcher(server, key, Target("acme", "iris"), Target("acme", "iris", 1)) as watch:
        watch.before()
        with server.client(key) as client:
            for _ in range(3):
                client.predict("iris", json.dumps(BODY).encode())
        seen = watch.look()
        assert list(seen) == ["acme/iris", "acme/iris@1"]
        for each in seen.values():
            assert (each.wanted, each.ready, each.cold_starts) == (1, 1, 1)
            assert each.stable is not None
            assert each.burst is not None
        assert [text for _, text in watch.events()] == [
            "acme/iris: version 1 woke from zero",
            "acme/iris@1: version 1 woke from zero",
        ]
        assert not watch.settled(seen, 1.0)
        assert watch.settled(seen, 1000.0), "not for ever"
        (bill,) = watch.billing({"acme/iris": 2, "acme/iris@1": 1})
        assert (bill.target, bill.after - bill.before, bill.answered) == ("acme/iris", 3, 3)


def test_another_version_is_told_of_while_it_takes_over(server, key, tmp_path):
    file = models.add_one(tmp_path / "two.onnx")
    with watcher(server, key, billed=False) as watch:
        watch.before()
        with server.client(key) as client:
            version = client.upload("iris", file, options={})["version"]
            until(lambda: watch.look()["acme/iris"].serving == f"iris-{version:05d}", what="the new version serves")
            client.set_scaling("iris", {"window": 8})
        watch.look()
        told = [text for _, text in watch.events() if "woke" not in text and "panic" not in text]
        assert f"acme/iris: version {version} is being deployed" in told
        assert f"acme/iris: traffic goes to version {version} 100 %" in told
        assert told[-1] == "acme/iris: scaling changed: window 6 → 8"
        assert watch.billing({}) == ()


def test_a_platform_that_says_no_leaves_gaps_and_is_told_of_once(server):
    with watcher(server, "roost_not-a-key") as watch:
        assert watch.facts() == {"scaling": {}}
        watch.before()
        assert [watch.look() for _ in range(3)] == [{}, {}, {}]
        assert watch.billing({"acme/iris": 1}) == ()
        texts = [text.partition(": status 401")[0] for _, text in watch.events()]
        assert texts == [
            "the platform does not tell how acme/iris is",
            "the platform does not say what it is",
            "the platform does not tell what it bills",
        ]
