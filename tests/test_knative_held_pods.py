"""What is read of a pod's life, of its revision, and of what a replica says of itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.asking import STRETCH_US, Asking, Told, read_told, url_of_pod
from roost_platform.engines.knative.held import read_kept
from roost_platform.engines.knative.pod_life import PodLife, class_of, read_pod
from roost_platform.engines.knative.shares import Kept

GPU = "nvidia.com/gpu"
DAY = "2026-11-23T"
ZERO = 1_795_392_000_000_000
"""2026-11-23, 00:00 UTC."""


def at(text: str) -> int:
    """Microseconds since 1970 of a time of that day."""
    hours, minutes, seconds = map(int, text.split(":"))
    return ZERO + (hours * 3600 + minutes * 60 + seconds) * 1_000_000


def document(*, state: dict | None = None, last: dict | None = None, restarts: int = 0, **conditions: str) -> dict:
    """A pod of iris; conditions by type, true since then (or false since then, after a minus)."""
    return {
        "metadata": {
            "name": "iris-00003-abc123-deployment-1",
            "namespace": "roost-acme",
            "uid": "u",
            "creationTimestamp": f"{DAY}10:00:00Z",
            "labels": {
                "roost.dev/tenant": "acme",
                "roost.dev/model": "iris",
                "roost.dev/revision": "iris-00003",
                "roost.dev/version": "3",
                "serving.knative.dev/revision": "iris-00003-abc123",
            },
        },
        "spec": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [
                {
                    "type": name,
                    "status": "False" if since.startswith("-") else "True",
                    "lastTransitionTime": f"{DAY}{since.removeprefix('-')}Z",
                }
                for name, since in conditions.items()
            ],
            "containerStatuses": [
                {"name": "queue-proxy", "state": {"running": {"startedAt": f"{DAY}09:00:00Z"}}, "restartCount": 9},
                {"name": "runtime", "state": state or {}, "lastState": last or {}, "restartCount": restarts},
            ],
        },
    }


def read(thing: dict) -> PodLife:
    found = read_pod(thing, gpu_resource=GPU)
    assert found is not None
    return found


NEW = PodLife(
    uid="u",
    name="iris-00003-abc123-deployment-1",
    namespace="roost-acme",
    variant="iris-00003-abc123",
    key=ServiceKey("acme", "iris"),
    revision="iris-00003",
    version=3,
    resource_class="cpu-2",
    born_us=at("10:00:00"),
    ip="10.0.0.7",
)
RUNS = {"running": {"startedAt": f"{DAY}10:00:05Z"}}
ENDED = {"terminated": {"startedAt": f"{DAY}10:00:05Z", "finishedAt": f"{DAY}10:09:00Z", "exitCode": 137}}


def test_the_life_of_a_pod_as_it_goes_on():
    assert read(document()) == NEW
    waiting = document(PodScheduled="-10:00:00")
    assert read(waiting) == NEW
    placed = read(document(PodScheduled="10:00:02", Ready="-10:00:02"))
    assert placed == replace(NEW, scheduled_us=at("10:00:02"))
    started = read(document(state=RUNS, PodScheduled="10:00:02", Ready="-10:00:02"))
    assert started == replace(placed, started_us=at("10:00:05"))
    ready = read(document(state=RUNS, PodScheduled="10:00:02", Ready="10:00:08"))
    assert ready == replace(started, ready_us=at("10:00:08"), serves=True)
    thing = document(state=RUNS, PodScheduled="10:00:02", Ready="10:00:08")
    thing["metadata"]["deletionTimestamp"] = f"{DAY}10:05:00Z"
    leaving = read(thing)
    assert leaving == replace(ready, limit_us=at("10:05:00"))
    thing = document(state=ENDED, PodScheduled="10:00:02", Ready="-10:09:01")
    thing["metadata"]["deletionTimestamp"] = f"{DAY}10:05:00Z"
    ended = read(thing)
    assert ended == replace(started, limit_us=at("10:05:00"), over=True, ended_us=at("10:09:00"))
    assert ready.followed_by(ended) == replace(ended, ready_us=at("10:00:08"))


def test_a_process_that_ends_and_is_started_again_is_no_end():
    first = read(document(state=RUNS, PodScheduled="10:00:02", Ready="10:00:08"))
    crashed = read(document(state=ENDED, PodScheduled="10:00:02", Ready="-10:09:00"))
    assert (crashed.over, crashed.ended_us, crashed.serves) == (False, None, False)
    again = {"running": {"startedAt": f"{DAY}10:09:02Z"}}
    second = read(document(state=again, last=ENDED, restarts=1, PodScheduled="10:00:02", Ready="10:09:04"))
    assert (second.started_us, second.ready_us, second.restarted) == (at("10:00:05"), at("10:09:04"), True)
    known = first.followed_by(crashed).followed_by(second)
    assert (known.started_us, known.ready_us, known.restarted) == (at("10:00:05"), at("10:00:08"), False)
    starting = read(document(state=RUNS, PodScheduled="10:00:02", Ready="-10:00:02"))
    assert starting.followed_by(second).restarted is True


def test_a_pod_that_was_evicted_ends_when_the_api_server_says_so_if_it_does():
    thing = document(state=ENDED, PodScheduled="10:00:02", Ready="-10:09:02")
    thing["status"]["phase"] = "Failed"
    assert read(thing).ended_us == at("10:09:00")
    thing["status"]["containerStatuses"] = []
    assert (read(thing).over, read(thing).ended_us) == (True, at("10:09:02"))
    del thing["status"]["conditions"]
    assert (read(thing).over, read(thing).ended_us) == (True, None)


@pytest.mark.parametrize("version", ["", "x", "٣", "-1", "1.5"])
def test_a_pod_that_is_no_version_s_is_none_of_ours(version):
    thing = document()
    thing["metadata"]["labels"]["roost.dev/version"] = version
    assert read_pod(thing, gpu_resource=GPU) is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"cpu": "2"}, "cpu-2"),
        ({"cpu": "2000m"}, "cpu-2"),
        ({"cpu": "2001m"}, "cpu-3"),
        ({"cpu": "100m"}, "cpu-1"),
        ({"cpu": "0.5"}, "cpu-1"),
        ({}, "cpu-1"),
        ({"cpu": "much"}, "cpu-1"),
        ({"cpu": "8", GPU: "1"}, "gpu-1"),
        ({"cpu": "8", GPU: "4"}, "gpu-4"),
        ({"cpu": "8", GPU: "0"}, "cpu-8"),
    ],
)
def test_the_class_is_what_a_replica_may_use(limits, expected):
    assert class_of(limits, gpu_resource=GPU) == expected


def test_a_time_is_read_to_the_microsecond():
    thing = document(PodScheduled="10:00:02.123456")
    assert read(thing).scheduled_us == at("10:00:02") + 123_456


@pytest.mark.parametrize(
    ("annotation", "state", "ready", "expected"),
    [
        ("2", "active", "True", Kept(2, at("10:00:00"))),
        ("2", "active", "Unknown", Kept(2, None)),
        ("2", "reserve", "True", Kept(0, at("10:00:00"))),
        ("", "active", "True", Kept(0, at("10:00:00"))),
        ("many", "active", "True", Kept(0, at("10:00:00"))),
    ],
)
def test_what_is_kept_of_a_revision_is_what_min_scale_says_while_it_is_routed(annotation, state, ready, expected):
    revision = {
        "metadata": {
            "labels": {"serving.knative.dev/routingState": state},
            "annotations": {"autoscaling.knative.dev/min-scale": annotation},
        },
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": f"{DAY}10:00:00Z"}]},
    }
    assert read_kept(revision) == expected


ANSWER = {
    "replica": NEW.host,
    "now_us": at("10:00:31"),
    "ready_us": at("10:00:08"),
    "fetch_us": 500,
    "busy_us": 9,
    "stretch_us": STRETCH_US,
    "first": at("10:00:10") // STRETCH_US,
    "stretches": [5, 4],
    "current_us": 3,
}
TOLD = Told(at("10:00:08"), 500, at("10:00:10") // STRETCH_US, (5, 4), 3)


def test_an_answer_is_read():
    assert read_told(json.dumps(ANSWER).encode(), host=NEW.host) == TOLD


@pytest.mark.parametrize(
    "change",
    [
        {"replica": "another"},
        {"stretch_us": 1000},
        {"ready_us": 0},
        {"ready_us": -1},
        {"ready_us": 1e300},
        {"fetch_us": "1"},
        {"first": None},
        {"first": True},
        {"stretches": [STRETCH_US + 1]},
        {"stretches": [-1]},
        {"stretches": {"0": 1}},
        {"stretches": [1] * 1001},
        {"current_us": STRETCH_US + 1},
        {"current_us": 0.5},
    ],
)
def test_an_answer_that_cannot_be_is_none(change):
    assert read_told(json.dumps(ANSWER | change).encode(), host=NEW.host) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"\xff", b'{"replica"'])
def test_what_is_no_answer_is_none(body):
    assert read_told(body, host=NEW.host) is None


def test_a_replica_takes_at_most_63_characters_for_its_name():
    named = replace(NEW, name="iris-" + "x" * 57 + "-" + "y" * 20)
    assert named.host == "iris-" + "x" * 57


def test_a_replica_is_asked_at_the_container_s_port_and_not_at_queue_proxy_s():
    assert url_of_pod(NEW) == "http://10.0.0.7:8080"
    assert url_of_pod(replace(NEW, ip="fd00::7")) == "http://[fd00::7]:8080"
    assert url_of_pod(replace(NEW, ip="")) == ""


@pytest.fixture
async def asked() -> AsyncIterator[tuple[Asking, list[dict], dict]]:
    """Who asks, what it has asked, and how it is answered."""
    seen: list[dict] = []
    how = {"status": 200, "body": json.dumps(ANSWER).encode(), "headers": {}, "wait_s": 0.0}

    async def answer(request: web.Request) -> web.Response:
        seen.append({"path": request.path_qs, **{k.lower(): v for k, v in request.headers.items()}})
        await asyncio.sleep(how["wait_s"])
        return web.Response(status=how["status"], body=how["body"], headers=how["headers"])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    asking = Asking(
        secret_of=lambda key: f"secret of {key.model}", url_of=lambda _: f"http://127.0.0.1:{port}", timeout_s=0.5
    )
    await asking.start()
    yield asking, seen, how
    await asking.stop()
    await runner.cleanup()


async def test_a_replica_is_asked_with_its_model_s_secret(asked):
    asking, seen, _ = asked
    assert await asking.ask(NEW, since=17) == TOLD
    (one,) = seen
    assert (one["path"], one["roost-service-secret"], one["roost-since"]) == (
        "/roost/activity",
        "secret of iris",
        "17",
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 401},
        {"status": 302, "headers": {"location": "http://127.0.0.1:1/"}},
        {"body": b"x" * (1 << 20)},
        {"wait_s": 5.0},
    ],
)
async def test_whatever_else_comes_of_asking_is_no_answer(asked, fault):
    asking, seen, how = asked
    how.update(fault)
    assert await asking.ask(NEW, since=0) is None
    assert len(seen) == 1


async def test_nobody_is_asked_where_there_is_no_address():
    asking = Asking(secret_of=lambda _: "", timeout_s=0.5)
    await asking.start()
    assert await asking.ask(replace(NEW, ip=""), since=0) is None
    gone = Asking(secret_of=lambda _: "", url_of=lambda _: "http://127.0.0.1:1", timeout_s=0.5)
    await gone.start()
    assert await gone.ask(NEW, since=0) is None
    await asking.stop()
    await gone.stop()
