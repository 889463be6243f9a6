"""A real Prometheus for tests: Debian's, on a loopback port and a folder of its own, asked over its HTTP API."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from urllib3 import request

from free_ports import free_port
from prometheus_fetch import program, why_not

needs_prometheus = pytest.mark.skipif(program("prometheus") is None, reason=why_not())
needs_promtool = pytest.mark.skipif(program("promtool") is None, reason=why_not())
_START_S = 30.0


class Prometheus:
    """Scrapes `targets` (address by job) and evaluates `rules`, both several times a second."""

    def __init__(self, folder: Path, *, targets: dict[str, str], rules: list[Path]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        for file in rules:
            (folder / f"{file.parent.name}-{file.name}").write_text(yaml.safe_dump(_evaluated_at_once(file)), "utf-8")
        settings = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "500ms"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in targets.items()
            ],
            "rule_files": [f"{file.parent.name}-{file.name}" for file in rules],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), "utf-8")

    def __enter__(self) -> Self:
        name = program("prometheus")
        assert name is not None
        command = [name, f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + _START_S
        while not self._ready():
            log_text = (self._folder / "prometheus.log").read_text("utf-8")
            assert self._process.poll() is None, f"Prometheus ended\n{log_text}"
            assert time.monotonic() < end, f"Prometheus is not ready\n{log_text}"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series with their labels (`metric`) and `value`, as they are now."""
        return list(self._get("query", query=expression)["result"])

    def values(self, label: str, matching: str) -> list[str]:
        """What a label is, over the series that match."""
        return list(self._get(f"label/{label}/values", **{"match[]": matching}))

    def _get(self, path: str, **fields: str) -> Any:
        answer = request("GET", f"{self.url}/api/v1/{path}", fields=fields)
        document = json.loads(answer.data)
        assert document["status"] == "success", (document, fields)
        return document["data"]

    def _ready(self) -> bool:
        from urllib3.exceptions import HTTPError

        try:
            return request("GET", f"{self.url}/-/ready", retries=False).status == 200
        except HTTPError:
            return False


def _evaluated_at_once(file: Path) -> dict[str, Any]:
    """The rules, all at the pace of the server: those of hours and days would wait for minutes."""
    document: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    for group in document["groups"]:
        group.pop("interval", None)
    return document
