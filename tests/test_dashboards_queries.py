"""Every query of every dashboard, asked of a real Prometheus that has scraped a live server under load: all return data, and
what their series are to be called by is in it.

What only a cluster tells (Knative's series, cAdvisor's) is on a page beside the server's, written as these tell it.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from urllib3 import PoolManager

import models_for_tests as models
from dashboard_files import DASHBOARDS, board, targets
from manifest_objects import MANIFESTS
from prometheus_server import Prometheus, needs_prometheus
from recording_server import serving
from roost_gateway.client import ApiError
from roost_process import RoostProcess, until

pytestmark = needs_prometheus
MONITORING = MANIFESTS / "monitoring"
PRICES = """
currency = "EUR"

[[book]]
version = "one"
effective_from = 2020-01-01T00:00:00Z

[book.prices]
requests = "1000000"
idle_seconds = "0.01"
reserved_seconds = "0.01"
"""


CHOSEN = {"datasource": "prometheus", "tenant": "acme", "model": "iris", "__rate_interval": "1m"}
EVERYTHING = {**CHOSEN, "tenant": ".+", "model": ".+"}


def rows_of_x(number: int) -> dict[str, Any]:
    """An input of the model that adds one."""
    data = [row + column / 4 for row in range(number) for column in range(4)]
    return {"name": "x", "datatype": "FP32", "shape": [number, 4], "data": data}


ADD_ONE = json.dumps({"inputs": [rows_of_x(1)]})
FAILS = json.dumps({"inputs": [{"name": "index", "datatype": "INT64", "shape": [1], "data": [-9]}]})


def page_of_a_cluster(second: int) -> str:
    """As Knative 1.19, cAdvisor, kube-state-metrics tell it."""
    revision = 'k8s_namespace_name="roost-acme",kn_service_name="iris",kn_configuration_name="iris",kn_revision_name="iris-00001-abc123"'
    pod = 'namespace="roost-acme",pod="iris-00001-abc123-x"'
    gauges = (
        "pods_desired", "pods_requested", "pods_count", "pods_not_ready_count", "pods_pending_count",
        "pods_terminating_count", "concurrency_stable", "concurrency_panic", "concurrency_target", "capacity_excess",
        "panic_mode", "request_concurrency",
    )  # fmt: skip
    lines = [f"kn_revision_{name}{{{revision}}} 1" for name in gauges]
    lines += [f'kn_serving_invocation_duration_seconds_bucket{{{pod},le="{end}"}} {second}' for end in (0.1, 1, "+Inf")]
    lines += [f"kn_serving_queue_depth{{{pod}}} 2"]
    lines += [f'container_cpu_usage_seconds_total{{{pod},container="runtime"}} {second / 4}']
    lines += [f'kube_pod_info{{{pod},node="node-1"}} 1', 'kube_node_status_allocatable{node="node-1",resource="cpu"} 4']
    lines += [f'kube_pod_container_resource_requests{{{pod},container="runtime",resource="cpu"}} 1']
    return "\n".join(lines) + "\n"


@contextmanager
def cluster() -> Iterator[str]:
    """The address of that page; its counters grow with every scrape."""
    with serving() as server:
        for second in range(200):
            server.on("GET /metrics", page_of_a_cluster(second))
        yield server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> RoostProcess:
    """Not started yet."""
    folder = tmp_path_factory.mktemp("roost")
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    settings = {
        "ROOST_PRICES": str(prices),
        "ROOST_BUDGET_INTERVAL_S": "0.2",
        "ROOST_MONTH_INTERVAL_S": "0.2",
        "ROOST_LOCAL_MEMORY_BYTES": "1",  # one replica, which is always admitted
        "ROOST_JOURNAL_SHIP_INTERVAL_S": "0.1",
        "ROOST_DRIFT_INTERVAL_S": "0.2",
        "ROOST_DRIFT_CALLS_PER_S": "1000",
    }
    return RoostProcess(folder, **settings)


@pytest.fixture(scope="module")
def prometheus(server: RoostProcess, tmp_path_factory) -> Iterator[Prometheus]:
    """It has scraped a server that was called, refused, woke models, lost replicas, and was paid."""
    rules = [*sorted(MONITORING.glob("rules/*.yaml")), *sorted(MONITORING.glob("alerts/*.yaml"))]
    with cluster() as page:
        found = Prometheus(
            tmp_path_factory.mktemp("prometheus"),
            targets={"roost": server.url.removeprefix("http://"), "cluster": page},
            rules=[file for file in rules if file.name != "triton.yaml"],
        )
        with found as prometheus, server:  # this order: Prometheus scrapes nothing in its first five seconds
            lives_a_life(server, prometheus, tmp_path_factory.mktemp("models"))
            yield prometheus


def lives_a_life(server: RoostProcess, prometheus: Prometheus, folder: Path) -> None:
    """All that panels show happens, and twice where it is a quantile of what has increased between two scrapes."""
    calls = Calls(server, server.make_tenant(requests_per_second=0.001, burst=100, models=10, storage_bytes=10**9))
    with server.client(tenant="acme") as operator:
        operator.set_budget("5.00")
    calls.upload_refused(folder / "broken.onnx")
    server.deploy(calls.key, "iris", models.add_one(folder / "one.onnx", columns=3), max_scale=2)
    for kept in ("artifacts", "baked"):
        shutil.rmtree(server.data / kept)
    calls.lose("iris")
    assert calls.predict("iris", ADD_ONE) >= 500, "its file is gone: it never becomes ready again"
    scraped(prometheus, "count_over_time(roost_replica_failed_starts_total[1m])", 2)
    with server.client(calls.key) as client:
        client.delete_model("iris")
    server.deploy(calls.key, "iris", models.add_one(folder / "two.onnx"), max_scale=2)
    server.deploy(calls.key, "iris", models.fails_on_negative(folder / "three.onnx"), max_scale=2)
    calls.looked_at()
    for time in (1, 2):
        assert calls.predict("iris/versions/1", ADD_ONE) == 200, "a cold start: there is room for one replica"
        assert calls.predict("iris/versions/2", FAILS) == 422
        scraped(prometheus, 'roost_cold_start_duration_seconds_count{model="iris"}', 2 * time)
        scraped(prometheus, 'roost_cold_start_part_duration_seconds_count{part="load"}', 2 * time - 1)
    while calls.predict("iris/versions/1", ADD_ONE) != 429:
        pass


def scraped(prometheus: Prometheus, series: str, value: float) -> None:
    """Wait until it has been seen with that value, or more."""
    until(lambda: prometheus.query(f"{series} >= {value}"), what=f"{series} >= {value}")


class Calls:
    def __init__(self, server: RoostProcess, key: str) -> None:
        self.server, self.key = server, key
        self._http = PoolManager(headers={"authorization": f"Bearer {key}"})

    def predict(self, model: str, body: str) -> int:
        url = f"{self.server.url}/t/acme/v2/models/{model}/infer"
        return self._http.request("POST", url, body=body, headers=self._http.headers, retries=False).status

    def upload_refused(self, file: Path) -> None:
        file.write_bytes(b"\x08\x07" + bytes(50))
        with self.server.client(self.key) as client, pytest.raises(ApiError):
            client.upload(file.stem, file)

    def looked_at(self) -> None:
        """For drift: a reference, a sample, one that is too large to be taken, and what was true of an answer."""
        with self.server.client(self.key) as client:
            client.set_drift("iris", {"rate": 100})
            client.set_reference("iris", 1, {"inputs": [rows_of_x(200)], "outputs": []})
            assert self.predict("iris/versions/1", ADD_ONE) == 200
            assert self.predict("iris/versions/1", json.dumps({"inputs": [rows_of_x(30_000)]})) == 200
            true = {"request_id": "one", "version": 1, "predicted": ["cat"], "labels": ["cat"]}
            client.give_feedback("iris", [true])

    def lose(self, model: str) -> None:
        """Kill its replicas, and wait until the server knows."""
        before = self._sum("roost_replica_restarts_total")
        replicas = self.server.replicas(model)
        for replica in replicas:
            os.kill(replica.pid, signal.SIGKILL)
        until(
            lambda: self._sum("roost_replica_restarts_total") >= before + len(replicas),
            what=f"the loss of {model}'s replicas",
        )

    def _sum(self, name: str) -> float:
        return sum(value for (series, _), value in self.server.figures().items() if series == name)


def filled(expression: str, name: str) -> str:
    values = EVERYTHING if name in {"autoscaling", "money"} else CHOSEN
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: values[found[1] or found[2]], expression)


def numbers(prometheus: Prometheus, expression: str) -> list[dict[str, str]]:
    """The labels of each series that is a number now."""
    return [one["metric"] for one in prometheus.query(expression) if one["value"][1] != "NaN"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_returns_data(prometheus: Prometheus, name: str):
    for panel, target in targets(board(name)):
        asked, legend = filled(target["expr"], name), set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        until(lambda asked=asked: numbers(prometheus, asked), what=f"{panel['title']}: data for {asked}")
        assert [labels for labels in numbers(prometheus, asked) if not legend <= labels.keys()] == [], panel["title"]


def shown(prometheus: Prometheus, name: str, title: str, label: str = "") -> dict[str, float]:
    """What the first query of a panel says, by a label."""
    target = next(target for panel, target in targets(board(name)) if panel["title"] == title)
    answer = prometheus.query(filled(target["expr"], name))
    return {one["metric"].get(label, ""): float(one["value"][1]) for one in answer}


def test_panels_say_what_happened(prometheus: Prometheus):
    """Calls of version 1 were answered, those of version 2 failed in the model; nobody else's platform failed any of them."""
    assert shown(prometheus, "model", "Failed, by version", "version") == {"1": 0, "2": 1}
    shares = shown(prometheus, "model", "Share of each version", "version")
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["1"] > shares["2"] > 0
    assert shown(prometheus, "overview", "Gateways") == {"": 1}
    assert shown(prometheus, "tenant", "Models awake") == {"": 1}
    assert shown(prometheus, "overview", "What does not add up") == {"": 0}


def test_money_is_what_the_api_says_or_said(prometheus: Prometheus, server: RoostProcess):
    """The gateway looks at it now and then, less often where that takes long."""
    with server.client() as operator:
        amount = float(operator.money()["total"]["amount"])
    assert amount > 90
    until(lambda: shown(prometheus, "money", "Revenue", "currency")["EUR"] > 0, within=30, what="revenue")
    assert shown(prometheus, "money", "Revenue", "currency")["EUR"] <= amount
    assert shown(prometheus, "tenant", "This month", "currency")["EUR"] <= amount
    assert shown(prometheus, "money", "Models by revenue", "model").keys() == {"iris"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_has_something_to_choose(prometheus: Prometheus, name: str):
    for variable in board(name)["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found is not None
        assert prometheus.values(found[2], filled(found[1], name)) != [], variable["name"]
