"""What a replica tells of its activity: the union of its requests' times, whole and by stretches of UTC."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from roost_runtimes.activity import KEPT, STRETCH_US, Activity

UTC_US = 1_700_000_003_000_000
"""Three seconds into a stretch."""
FIRST = UTC_US // STRETCH_US


def activity() -> Activity:
    """Whose `perf_counter` stands at 0 at UTC_US."""
    return Activity(now_ns=0, utc_ns=UTC_US * 1000)


def stretches_of(intervals: list[tuple[int, int]]) -> dict[int, int]:
    """The same in the plain way: each microsecond's stretch, by overlaps."""
    found: dict[int, int] = {}
    for begin, end in intervals:
        for number in range(begin // STRETCH_US, end // STRETCH_US + 1):
            low, high = max(begin, number * STRETCH_US), min(end, (number + 1) * STRETCH_US)
            if high > low:
                found[number] = found.get(number, 0) + high - low
    return found


@given(st.lists(st.tuples(st.integers(0, 45_000_000), st.integers(0, 45_000_000)), max_size=12), st.randoms())
def test_stretches_hold_what_was_busy_in_them_whenever_they_are_looked_at(gaps, random):
    looked = activity()
    left_alone = activity()
    now, intervals = 0, []
    for pause, busy in gaps:
        begin, now = now + pause, now + pause + busy
        intervals.append((UTC_US + begin, UTC_US + now))
        for one in (looked, left_alone):
            one.began(begin * 1000)
        for moment in sorted(random.randint(begin, now) for _ in range(2)):
            looked.look(moment * 1000)
        for one in (looked, left_alone):
            one.ended(now * 1000)
    expected = stretches_of(intervals)
    current = (UTC_US + now) // STRETCH_US
    for one in (looked, left_alone):
        past = one.look(now * 1000, first=FIRST)
        assert past.first == FIRST
        assert past.busy_us == [expected.get(number, 0) for number in range(FIRST, current)]
        assert past.current_us == expected.get(current, 0)
        assert one.total_us == sum(expected.values())


def test_a_request_that_goes_on_counts_as_far_as_it_has_come():
    one = activity()
    one.began(1_000_000_000)
    past = one.look(9_000_000_000, first=FIRST)
    assert (past.first, past.busy_us, past.current_us) == (FIRST, [6_000_000], 2_000_000)
    past = one.look(9_000_000_000, first=FIRST)
    assert (past.first, past.busy_us, past.current_us) == (FIRST, [6_000_000], 2_000_000)


def test_nothing_is_said_of_what_is_to_come():
    one = activity()
    one.began(0)
    past = one.look(1_000_000_000, first=FIRST + 5)
    assert (past.first, past.busy_us, past.current_us) == (FIRST, [], 1_000_000)


def test_an_hour_is_remembered():
    one = activity()
    one.began(0)
    now_us = 2 * KEPT * STRETCH_US
    one.ended(now_us * 1000)
    past = one.look(now_us * 1000)
    assert past.first == (UTC_US + now_us) // STRETCH_US - KEPT
    assert past.busy_us == [STRETCH_US] * KEPT


def request(seconds: float) -> dict:
    return {"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [float(np.float32(seconds))]}]}


def test_a_served_replica_tells_the_union_of_its_requests_to_who_knows_the_secret(tmp_path: Path):
    model = tmp_path / "model"
    model.write_text("{}")
    command = [sys.executable, "-m", "roost_runtimes", "serve", "--model-factory", "sleeper_model:SleeperModel"]
    command += ["--model", str(model), "--name", "m", "--host", "127.0.0.1", "--port", "0", "--slots", "2"]
    env = {**os.environ, "ROOST_SERVICE_SECRET": "s", "HOSTNAME": "pod-1"}
    before = time.time()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stderr is not None
            events = [json.loads(process.stderr.readline()) for _ in range(2)]
            assert [event["message"] for event in events] == ["listening", "model_ready"]
            ready_by = time.time()
            with httpx.Client(base_url=f"http://{events[0]['roost']['address']}", timeout=30) as client:
                refused = client.get("/roost/activity")
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
                client.headers["roost-service-secret"] = "s"
                idle = client.get("/roost/activity").json()
                assert idle["busy_us"] == 0
                began = time.monotonic()
                with ThreadPoolExecutor(2) as pool:
                    post = partial(client.post, "/v2/models/m/infer")
                    answers = [pool.submit(post, json=request(seconds)) for seconds in (0.4, 0.6)]
                assert [answer.result().status_code for answer in answers] == [200, 200]
                took_s = time.monotonic() - began
                number = int(before) // 10
                told = client.get("/roost/activity", headers={"roost-since": str(number)}).json()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert 600_000 <= told["busy_us"] <= took_s * 1e6
    assert told["first"] == number
    assert sum(told["stretches"]) + told["current_us"] == told["busy_us"]
    current = number + len(told["stretches"])
    assert current * 10 <= told["now_us"] / 1e6 < (current + 1) * 10
    assert before <= told["ready_us"] / 1e6 <= ready_by
    assert told["ready_us"] == idle["ready_us"] < idle["now_us"] <= told["now_us"]
    kept = {"replica": "pod-1", "fetch_us": 0, "stretch_us": STRETCH_US}
    assert {key: told[key] for key in kept} == kept
