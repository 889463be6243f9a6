"""What the tests of bad predictions share: a served set of small models, and the judgement of an answer.

Whatever a client sends, the answer is exactly 200, or a 4xx with one JSON error of ours that tells nothing of our insides.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import models_for_tests as models
from roost_process import RoostProcess

INSIDES = (
    "Traceback",
    "site-packages",
    "/home/",
    "/work/",
    "/tmp/",
    ".py",
    "0x7f",
    "numpy",
    "orjson",
    "onnxruntime",
    "::",
)
"""What no error may hold."""
JSON = "application/json"
BINARY = "application/octet-stream"


class Served:
    """A server with a model for each kind of input, each awake in one replica that must outlive everything."""

    def __init__(self, server: RoostProcess, key: str) -> None:
        self.server = server
        self.key = key
        self.http = httpx.Client(base_url=server.url, timeout=60, headers={"authorization": f"Bearer {key}"})
        del self.http.headers["accept-encoding"]

    def infer(
        self, model: str, body: bytes, headers: Mapping[str, str] | list[tuple[str, str]] | None = None, **more: Any
    ) -> httpx.Response:
        """One V2 call, one try; JSON unless `headers` say otherwise."""
        return self.post(f"/t/acme/v2/models/{model}/infer", body, headers, **more)

    def predict(self, model: str, body: bytes) -> httpx.Response:
        return self.post(f"/t/acme/v1/models/{model}:predict", body)

    def post(self, path: str, body: bytes, headers: Any = None, **more: Any) -> httpx.Response:
        return self.http.post(
            path, content=body, headers={"content-type": JSON} if headers is None else headers, **more
        )

    def pids(self) -> dict[str, int]:
        return {process.name: process.pid for process in self.server.replicas()}


@contextmanager
def serve(folder: Path, files: Mapping[str, Path], **environment: str) -> Iterator[Served]:
    """These models, awake; at the end no replica has died, and the server has logged no failure of its own."""
    with RoostProcess(folder, **environment) as server:
        key = server.make_tenant()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda item: server.deploy(key, *item, min_scale=1, max_scale=1), files.items()))
        made = Served(server, key)
        before = made.pids()
        assert len(before) == len(files), before
        yield made
        assert made.pids() == before, "a replica was killed by what it was sent"
        made.http.close()
        assert server.stop() == 0
        for event in ("prediction_failed", "request_failed", "replica_lost"):
            assert not server.events(event), server.events(event)[0]


def all_kinds(folder: Path) -> dict[str, Path]:
    """Models by name: `one`, `pair`, `text`, and an identity x -> y for several datatypes, by its name in lower case."""
    made = {"one": models.add_one(folder / "one.onnx"), "pair": models.two_inputs(folder / "pair.onnx")}
    made["scalar"] = models.scalar_input(folder / "scalar.onnx")
    made["text"] = models.strings(folder / "text.onnx")
    for datatype in ("BOOL", "INT8", "INT64", "UINT64", "FP16", "FP64"):
        made[datatype.lower()] = models.identity(folder / f"{datatype}.onnx", datatype)
    return made


def refusal(response: httpx.Response) -> dict[str, Any]:
    """The document of an error, after looking at all of it."""
    document = response.json()
    assert response.headers["content-type"] == JSON
    assert set(document) - {"field"} == {"error", "code", "request_id"}, document
    assert all(isinstance(value, str) and value for value in document.values()), document
    assert document["request_id"] == response.headers["x-request-id"]
    told = document["error"] + document.get("field", "")
    assert not [word for word in INSIDES if word in told], document
    assert len(response.content) < 4096, "an error repeats what the client sent"
    return document


def judge(response: httpx.Response) -> dict[str, Any] | None:
    """The document of a 200, None after a well-formed refusal; anything else is a failure of ours."""
    if response.status_code == 200:
        length = response.headers.get("inference-header-content-length")
        document = json.loads(response.content if length is None else response.content[: int(length)])
        assert isinstance(document, dict)
        return document
    assert 400 <= response.status_code < 500, (response.status_code, response.content[:1000])
    refusal(response)
    return None


def assert_refused(response: httpx.Response, status: int = 400, *, field: str | None = None, says: str = "") -> None:
    document = refusal(response)
    assert response.status_code == status, (response.status_code, document)
    if field is not None:
        assert document.get("field") == field, document
    for word in says.split("|"):
        assert word in document["error"], document


def tensor(**changes: Any) -> dict[str, Any]:
    """The input of `one`; a change to None leaves the member out."""
    made = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]} | changes
    return {name: value for name, value in made.items() if value is not None}


def request(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"inputs": list(inputs or [tensor()])} | members).encode()
