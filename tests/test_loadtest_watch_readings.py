"""What is read from a status, and what is told of its changes; and a platform that answers badly, late or not at all."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from threading import Thread
from typing import Any

import pytest

from recording_server import RecordingServer, serving
from roost_loadtest.asking import Asker, NoAnswer
from roost_loadtest.readings import ColdStarts, PodAutoscaler, changes, cold_starts_of, replicas_of
from roost_loadtest.record import Target
from roost_loadtest.watch import Watcher

STATUS = "GET /api/v1/models/iris/status"


def revision(version: int, *, wanted: int, ready: int, load: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": f"iris-{version:05d}", "version": version, "state": "ready", "ready": "True", "reason": "", "message": "",
        "replicas_wanted": wanted, "replicas_ready": ready, "log": [], "load": load,
    }  # fmt: skip


def load(**more: Any) -> dict[str, Any]:
    return {
        "replicas_starting": 0, "queued": 0, "in_flight": 0, "desired": 1, "average_stable": 1.0, "average_panic": 1.0,
        "panicking": False, "cold_starts": 1,
    } | more  # fmt: skip


def status(*revisions: dict[str, Any], to: int = 2) -> dict[str, Any]:
    traffic = [{"revision": f"iris-{to:05d}", "version": to, "percent": 100}]
    return {
        "tenant": "acme",
        "model": "iris",
        "traffic": traffic,
        "scaling": {"window": 60},
        "revisions": list(revisions),
    }


TWO = status(
    revision(1, wanted=0, ready=2, load=load(replicas_starting=1, in_flight=1)),
    revision(2, wanted=4, ready=3, load=load(queued=5, in_flight=6, average_stable=2.5, panicking=True, cold_starts=2)),
)


def test_replicas_are_those_with_traffic_and_what_is_left_of_others_is_told_apart():
    seen = replicas_of(TWO, None, cold_starts=7)
    assert (seen.wanted, seen.ready, seen.starting, seen.others, seen.serving) == (4, 3, 0, 3, "iris-00002")
    assert (seen.queued, seen.in_flight, seen.panic, seen.stable, seen.burst) == (5, 6, True, 2.5, 1.0)
    assert seen.cold_starts == 7


def test_replicas_of_a_version_that_is_asked_for_by_name_are_its_own():
    seen = replicas_of(TWO, 1, cold_starts=0)
    assert (seen.wanted, seen.ready, seen.starting, seen.in_flight, seen.others) == (0, 2, 1, 1, 3)


def test_what_an_engine_does_not_say_is_unknown_and_not_zero():
    silent = status(revision(2, wanted=1, ready=1, load=load(average_stable=None, average_panic=None, panicking=None)))
    seen = replicas_of(silent, None, cold_starts=0)
    assert (seen.stable, seen.burst, seen.panic) == (None, None, None)
    gone = replicas_of(status(revision(2, wanted=0, ready=0)), None, cold_starts=None)
    assert (gone.ready, gone.queued, gone.in_flight, gone.starting) == (0, None, None, None)


def test_knatives_own_objects_go_before_what_the_gateway_says_of_them():
    told = (PodAutoscaler("iris-00002", 9, 8, 1), PodAutoscaler("iris-00001", None, 0, None))
    seen = replicas_of(TWO, None, cold_starts=0, autoscalers=told)
    assert (seen.wanted, seen.ready, seen.starting, seen.others, seen.queued) == (9, 8, 1, 1, 5)


def test_cold_starts_count_since_the_run_began_and_never_run_back():
    before = cold_starts_of(TWO, None)
    assert before == ColdStarts({"iris-00001": 1, "iris-00002": 2})
    later = ColdStarts({"iris-00002": 4, "iris-00003": 1})
    assert later.since(before) == 3
    elsewhere = ColdStarts({"iris-00002": 3}).and_before(later)
    assert elsewhere.since(before) == 3, "another gateway counted fewer"


def test_changes_are_told_in_words():
    now = deepcopy(TWO)
    now["traffic"] = [{"revision": "iris-00003", "version": 3, "percent": 100}]
    now["revisions"][1]["load"]["panicking"] = False
    now["revisions"][1]["load"]["cold_starts"] = 3
    now["revisions"] += [revision(3, wanted=1, ready=1, load=load(panicking=True)), revision(4, wanted=0, ready=0)]
    now["revisions"][3] |= {"state": "failed", "reason": "OutOfMemory"}
    now["scaling"] = {"window": 30}
    assert list(changes("acme/iris", TWO, now)) == [
        "acme/iris: traffic goes to version 3 100 %",
        "acme/iris: version 2 ceases to panic",
        "acme/iris: version 2 woke from zero",
        "acme/iris: version 3 is being deployed",
        "acme/iris: version 3 is ready",
        "acme/iris: version 3 begins to panic",
        "acme/iris: version 4 is being deployed",
        "acme/iris: version 4 is failed (OutOfMemory)",
        "acme/iris: scaling changed: window 60 → 30",
    ]
    assert list(changes("acme/iris", now, now)) == []


@pytest.fixture
def platform() -> Iterator[RecordingServer]:
    with serving() as server:
        yield server


def test_a_platform_that_comes_back_is_watched_again(platform):
    platform.refuse(STATUS, status=503, code="database", message="not now")
    platform.refuse(STATUS, status=503, code="database", message="not now")
    platform.on(STATUS, TWO)
    moments = iter([10.0, 11.0, 12.0])
    with closing(
        Watcher(platform.url, [Target("acme", "iris")], key_of=lambda _: "k", billed=False, now=lambda: next(moments))
    ) as watch:
        assert [list(watch.look()) for _ in range(4)] == [[], [], ["acme/iris"], ["acme/iris"]]
    assert watch.events() == [
        (10.0, "the platform does not tell how acme/iris is: status 503: not now"),
        (11.0, "the platform tells how acme/iris is again"),
    ]
    assert {(asked.method, asked.path) for asked in platform.asked} == {("GET", "/api/v1/models/iris/status")}
    assert platform.asked[0].headers["authorization"] == "Bearer k"


def test_a_model_with_min_scale_is_not_waited_for(platform):
    platform.on(STATUS, TWO | {"scaling": {"min-scale": 1, "window": 6}})
    with closing(Watcher(platform.url, [Target("acme", "iris")], key_of=lambda _: "k", billed=False)) as watch:
        watch.before()
        seen = watch.look()
        assert [watch.settled(seen, waited) for waited in (0.0, 1.0, 2.5)] == [False, False, True]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("no json", 200, "status 200, and no JSON"),
        ("[1]", 200, "status 200"),
        ({"error": "it is not yours"}, 404, "status 404: it is not yours"),
        ("<html>", 502, "status 502, and no JSON"),
    ],
)
def test_answers_that_are_none(platform, body, status, words):
    platform.on("GET /x", body, status=status)
    with closing(Asker(platform.url)) as asker, pytest.raises(NoAnswer) as raised:
        asker.get("/x", "")
    assert str(raised.value) == words


@contextmanager
def scripted(*answers: bytes) -> Iterator[str]:
    """Answers each connection once with these bytes, then closes it; with none, it never answers."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/base"
    finally:
        thread.join()
        listener.close()


def kept(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_a_kept_connection_that_the_server_closed_is_opened_again():
    with scripted(kept({"n": 1}), kept({"n": 2})) as url, closing(Asker(url)) as asker:
        assert [asker.get("/x", "")["n"], asker.get("/x", "")["n"]] == [1, 2]


def test_half_an_answer_is_none_and_the_next_one_is_not_mistaken_for_it():
    with (
        scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", kept({"n": 2})) as url,
        closing(Asker(url)) as asker,
    ):
        with pytest.raises(NoAnswer):
            asker.get("/x", "")
        assert asker.get("/x", "") == {"n": 2}


_PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, gevent.event, gevent.server
from roost_loadtest.record import Target
from roost_loadtest.watch import Watcher

asked, answer = gevent.event.Event(), gevent.event.Event()

def platform(connection, _):
    connection.recv(65536)
    asked.set()
    answer.wait()
    connection.sendall(b"HTTP/1.1 503 No\\r\\nContent-Length: 2\\r\\n\\r\\n{}")

server = gevent.server.StreamServer(("127.0.0.1", 0), platform)
server.start()
watch = Watcher(f"http://127.0.0.1:{server.server_port}", [Target("acme", "iris")], key_of=lambda _: "", billed=False)
looking = gevent.spawn(watch.look)
assert asked.wait(30), "the look held everybody up"
assert not looking.ready()
answer.set()
assert looking.get(timeout=30) == {}
watch.close()
server.stop()
"""


def test_a_look_that_waits_holds_nobody_up():
    """In a process that gevent has patched, as the load tester's is: what sends runs on while the platform thinks."""
    subprocess.run([sys.executable, "-c", _PATCHED], check=True, timeout=60)


def test_who_does_not_answer_is_not_waited_for_long():
    with scripted() as url, closing(Asker(url, timeout_s=0.05)) as asker, pytest.raises(NoAnswer, match="too long"):
        asker.get("/x", "")
