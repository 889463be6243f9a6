"""Plain `locust -f` with an OpenLoopUser: Locust's own command, its own table, in one process and in several."""

import json
import subprocess
import sys

from loadtest_server import serving

LOCUSTFILE = """
from roost_loadtest.arrivals import Process
from roost_loadtest.shapes import constant, steps
from roost_loadtest.user import OpenLoopUser

class Iris(OpenLoopUser):
    host = "{url}"
    shape = steps([(50, 0.5), (150, 0.5)])
    process = Process.UNIFORM
    path = "/t/acme/v2/models/iris/infer"
    headers = {{"Content-Type": "application/json"}}
    label = "iris"

    def body(self, number):
        return b'{{"inputs":[%d]}}' % number

class Other(OpenLoopUser):
    host = "{url}"
    shape = constant(40, 0.5)
    process = Process.UNIFORM
    connections = {connections}
"""


def locust(tmp_path, url, *options, connections=100):
    """Requests and failures by name, the slowest answer, and what Locust said."""
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE.format(url=url, connections=connections))
    command = [sys.executable, "-m", "locust", "-f", str(tmp_path / "locustfile.py"), "--headless", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.stdout, done.stderr
    entries = json.loads("[" + done.stdout.rpartition("\n[")[2]) if "\n[" in done.stdout else json.loads(done.stdout)
    counts = {each["name"]: (each["num_requests"], each["num_failures"]) for each in entries}
    return counts, max(each["max_response_time"] for each in entries), done


def test_locust_counts_from_when_a_request_was_due_and_what_was_not_sent(tmp_path):
    """After a stall of half a second from the first request on, Locust's own figures have it: stock users would not wait.

    A class that may have five requests in flight drops the other fifteen of that time.
    """
    with serving("--stall", "0,0.6") as url:
        counts, slowest, done = locust(tmp_path, url, "-u", "1", connections=5)
    assert counts == {"iris": (100, 0), "/": (20, 15)}
    assert slowest >= 550
    assert "dropped" in done.stderr
    assert "sent late by" in done.stderr
    assert done.returncode == 1


def test_each_worker_sends_its_part_and_the_run_ends_by_itself(tmp_path):
    with serving("--status", "200,503") as url:
        counts, _, done = locust(tmp_path, url, "-u", "2", "-r", "2", "--processes", "2")
    assert counts["iris"][0] == 100
    assert counts["/"][0] == 20
    assert counts["iris"][1] + counts["/"][1] == 60
    assert "The last worker quit, stopping test." in done.stderr
