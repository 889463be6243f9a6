"""The control API against its own OpenAPI document: what it says is what is answered, and no input is a server's error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import models_for_tests as models
from roost_process import RoostProcess

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
INTERNAL = (
    "Traceback",
    str(CONFIGURATION.parents[1]),
    "site-packages",
    "roost_gateway",
    "roost_platform",
    "sqlalchemy",
)
PHASES = "examples,coverage,fuzzing"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with RoostProcess(folder) as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "iris", models.add_one(folder / "iris.onnx"))
        yield server
        assert server.stop() == 0
        log = server.log_file.read_text()
        assert not server.events("request_failed"), server.log_tail()
        assert "Traceback" not in log
        assert server.key not in log
        assert server.operator_key not in log


@pytest.mark.timeout(300)  # about 15 s on a quiet machine; the same calls in the same order each time
@pytest.mark.parametrize("who", ["tenant", "operator"])
def test_the_api_answers_as_its_document_says(server, who, tmp_path):
    key = server.key if who == "tenant" else server.operator_key
    report = tmp_path / "report.ndjson"
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIGURATION),
            *("run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
            *("--generation-deterministic", "--max-examples", "8", "--phases", PHASES, "--request-timeout", "60"),
            *("--report-ndjson-path", report, "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr
    bodies = [text for line in report.read_text().splitlines() for text in texts(json.loads(line))]
    assert bodies
    for leak in (*INTERNAL, str(server.data)):
        assert not [text for text in bodies if leak in text], leak


def texts(document):
    """The bodies of answers in a line of the report."""
    if isinstance(document, dict):
        if isinstance(response := document.get("response"), dict):
            yield json.dumps(response)
        for value in document.values():
            yield from texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts(value)
