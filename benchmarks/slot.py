"""How soon a slot is back when a run is over its time: `python benchmarks/slot.py [--turns 10]`, some minute.

One replica, one request at a time, a timeout of one second. A runs for ever; B, asked just before that time is over, waits for the slot. What
counts is from the moment that A's time was over to B's right answer. Of a loop each step can be interrupted; a single
product of large matrices cannot, so that the replica has to be killed and another one woken. Aim: one second.
"""

import argparse
import http.client
import json
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from roost_server import TENANT, Roost

_TIMEOUT_S = 1
_AIM_S = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how soon a slot is back.")
    parser.add_argument("--turns", type=int, default=10, help="of each kind [10]")
    parser.add_argument("--out", type=Path, default=Path(".work/slot"), help="for data and logs [.work/slot]")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    worst = 0.0
    server = Roost(chosen.out / "data", chosen.out)
    try:
        for name, graph, endless in (("loop", _loop(), 2**31), ("product", _product(), 5000)):
            file = chosen.out / f"{name}.onnx"
            onnx.save(graph, file)
            _deploy(server, name, file)
            took = [_one(server, name, endless) for _ in range(chosen.turns)]
            worst = max(worst, *took)
            print(f"{name}: slot back after {statistics.median(took):.3f} s, at most {max(took):.3f} s")
    finally:
        server.stop()
    print("PASSED" if worst <= _AIM_S else "FAILED")
    return 0 if worst <= _AIM_S else 1


def _one(server: Roost, name: str, endless: int) -> float:
    begin, sent = time.monotonic(), threading.Event()

    def run_for_ever() -> None:
        status, _ = _call(server, name, endless, sent)
        if status != 504:
            raise RuntimeError(f"{name} answered {status}")

    thread = threading.Thread(target=run_for_ever)
    thread.start()
    sent.wait()
    time.sleep(0.9 * _TIMEOUT_S)
    status, answer = _call(server, name, 1)  # its own second begins now
    end = time.monotonic()
    thread.join()
    if status != 200:
        raise RuntimeError(f"the next call of {name}: {status} {answer!r}")
    return end - (begin + _TIMEOUT_S)


def _call(server: Roost, name: str, number: int, sent: threading.Event | None = None) -> tuple[int, bytes]:
    tensor = {"name": "n", "datatype": "INT64", "shape": [1], "data": [number]}
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", f"/t/{TENANT}/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}), headers)
    if sent is not None:
        sent.set()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def _deploy(server: Roost, name: str, file: Path) -> None:
    options = {"container-concurrency": 1, "max-scale": 1, "min-scale": 1, "timeout": _TIMEOUT_S}
    version = server.client.upload(name, file, options=options)
    while version["state"] == "deploying":
        time.sleep(0.1)
        version = server.client.version(name, version["version"])
    if version["state"] != "ready":
        raise RuntimeError(f"{version}")


def _loop() -> onnx.ModelProto:
    """n int64[1] -> y float[64, 64], after n products."""
    square = [64, 64]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["a", "weights"], ["b"]), helper.make_node("Identity", ["go"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, square),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["n"], ["count"]),
        helper.make_node("Loop", ["count", "", "weights"], ["y"], body=body),
    ]
    return _model(nodes, square, [numpy_helper.from_array(np.eye(64, dtype=np.float32), "weights")])


def _product() -> onnx.ModelProto:
    """n int64[1] -> y float[1, 1]: the sum of the product of two n by n matrices."""
    nodes = [
        helper.make_node("Concat", ["n", "n"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("MatMul", ["zeros", "zeros"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["y"], keepdims=1),
    ]
    return _model(nodes, [1, 1], [])


def _model(nodes: list[onnx.NodeProto], shape: list[int], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("n", TensorProto.INT64, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "slow", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    sys.exit(main())
