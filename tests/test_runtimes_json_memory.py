"""A body that there is no room to read is the server's shortage and not the client's mistake."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource
import sys

sys.path.insert(0, sys.argv[1])
from roost_runtimes.messages import Request
from roost_runtimes.core import Core
from shown_models import Shown

core = Core(Shown([("x", "FP32", (-1,))]))
core.warm_up()
path = "/v2/models/m/infer"
text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%d],"data":[%s]}]}'
long = text % (1_000_000, b",".join([b"0.123456"] * 1_000_000))
pages = int(open("/proc/self/statm").read().split()[5])
limit = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for body in (long, text % (4, b"1,2,3,4")):
    answers = []
    core.submit(Request("POST", path, {}, body), answers.append)
    while not answers:
        core.pump()
    print(answers[0].status, b"".join(answers[0].body).decode())
"""


def test_no_room_to_read_a_body_is_told_as_such_and_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == ('502 {"error":"the model ran out of memory on this input","code":"out_of_memory"}')
    assert second == (
        '200 {"model_name":"m","model_version":"3","outputs":'
        '[{"name":"x","datatype":"FP32","shape":[4],"data":[1.0,2.0,3.0,4.0]}]}'
    )
