"""The `roost` command: exit status, errors, keys, printing."""

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recording_server import Command, serving
from roost_gateway.cli.credentials import operator_key
from roost_gateway.cli.show import duration, plain, size


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server, tmp_path):
    return Command(server.url, tmp_path)


# Exit status and errors


def test_without_a_server_the_command_says_how_to_start_one_and_exits_3(server, roost):
    result = roost("models", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert result.stderr == "No Roost at http://127.0.0.1:1. Start one with: roost serve\n"


def test_a_refusal_is_explained_with_its_code_request_id_and_what_to_do_and_exits_1(server, roost):
    server.refuse("GET /api/v1/models", status=403, code="permission_denied", message="the key lacks the scope read")
    result = roost("models", environment={"ROOST_API_KEY": "roost_secret"})
    assert result.exit_code == 1
    assert "the key lacks the scope read" in result.stderr
    assert "permission_denied" in result.stderr
    assert "req-1" in result.stderr
    assert "Next:" in result.stderr
    assert "roost_secret" not in result.output


def test_a_refusal_with_json_is_the_error_document_on_stderr(server, roost):
    server.refuse(
        "GET /api/v1/models/iris/status", status=404, code="not_found", message="no such model", field="model"
    )
    result = roost("status", "iris", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr) == {
        "error": "no such model",
        "code": "not_found",
        "field": "model",
        "request_id": "req-1",
    }


def test_retry_after_is_told(server, roost):
    server.refuse(
        "GET /api/v1/prices", status=429, code="throttled", message="too many requests", headers={"Retry-After": "3"}
    )
    assert "try again in 3 s" in roost("prices").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("scale", "iris", "min-scale"),
        ("bill", "2026-13"),
        ("bill", "2026-11", "--format", "xlsx"),
        ("bill", "2026-11", "-o", "bill.doc"),
        ("bill", "events", "2026-11", "0"),
        ("bill", "finalize", "2026-10", "--tenant", "acme"),
        ("bill", "finalize", "2026-10", "--yes"),
        ("bill", "note", "acme-2026-10", "gift", "1.00", "--reason", "x"),
        ("bill", "note", "acme-2026-10", "credit", "1.00"),
        ("bill", "mark", "acme-2026-10", "lost"),
        ("money", "--by", "day"),
        ("money", "--month", "november"),
        ("reconcile", "--period", "yesterday"),
        ("usage", "--from", "yesterday"),
        ("usage", "--from", "2026-11-01", "--period", "7d"),
        ("deploy", "iris", "no-such-file.onnx"),
        ("predict", "iris"),
        ("predict", "iris", "--data", "no-such-file.json"),
        ("logs", "iris", "--since", "yesterday"),
        ("delete", "iris"),
    ],
)
def test_a_wrong_command_line_exits_2_before_anything_is_sent(server, roost, arguments):
    assert roost(*arguments).exit_code == 2
    assert server.asked == []


def test_every_command_has_help_with_an_example(roost):
    groups = {"tenant": ["create", "list", "show", "set-quota", "delete"], "key": ["create", "list", "revoke"]}
    groups |= {"bill": ["show", "list", "events", "finalize", "note", "mark"]}
    single = ["serve", "version", "deploy", "predict", "models", "status", "versions", "logs", "scale", "rollback"]
    commands = [[name] for name in [*single, "delete", "usage", "bill", "prices", "money", "reconcile"]]
    commands += [[group, name] for group, names in groups.items() for name in names]
    for command in commands:
        result = roost(*command, "--help")
        assert result.exit_code == 0
        assert f"Example: roost {' '.join(command)}" in result.stdout


# Keys


def test_shared_options_stand_before_or_after_the_command(server, roost):
    server.on("GET /api/v1/models", {"models": []})
    assert json.loads(roost("--json", "--api-key", "roost_a", "models").stdout) == {"models": []}
    assert json.loads(roost("--api-key", "roost_a", "models", "--json", "--api-key", "roost_b").stdout) == {
        "models": []
    }
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer roost_a", "Bearer roost_b"]


def test_operator_commands_use_the_operators_key_from_the_environment_or_the_data_folder(server, roost, tmp_path):
    server.on("GET /api/v1/tenants", {"tenants": []})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "operator.key").write_text("roost_from_file\n")
    roost("tenant", "list", environment={"ROOST_API_KEY": "roost_tenant"})
    roost("tenant", "list", environment={"ROOST_OPERATOR_KEY": "roost_from_environment"})
    assert [asked.headers["authorization"] for asked in server.asked] == [
        "Bearer roost_from_file",
        "Bearer roost_from_environment",
    ]


def test_the_operator_acts_for_a_tenant(server, roost):
    server.on("GET /api/v1/models", {"models": []})
    keys = {"ROOST_OPERATOR_KEY": "roost_operator", "ROOST_API_KEY": "roost_tenant"}
    roost("models", "--tenant", "acme", environment=keys)
    assert server.asked[0].query == {"tenant": "acme"}
    assert server.asked[0].headers["authorization"] == "Bearer roost_operator"


def test_a_saved_key_serves_later_commands_on_that_url_only(server, roost, tmp_path):
    created = {
        "name": "acme",
        "quota": {},
        "created_at": "",
        "key": {"id": "k1", "name": "admin", "secret": "roost_s3"},
    }
    server.on("POST /api/v1/tenants", created, status=201)
    server.on("GET /api/v1/models", {"models": []})
    result = roost("tenant", "create", "acme", "--quota", "storage-bytes=1000", "--save")
    assert result.exit_code == 0
    assert result.stdout.count("roost_s3") == 1
    assert "export ROOST_API_KEY=roost_s3" in result.stdout
    assert server.asked[0].json == {"name": "acme", "quota": {"storage_bytes": 1000}}
    file = tmp_path / ".config" / "roost" / "credentials.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tomllib.loads(file.read_text()) == {server.url: {"tenant": "acme", "key": "roost_s3"}}
    roost("models")
    roost("models", "--url", server.url.replace("127.0.0.1", "localhost"))
    assert [asked.headers.get("authorization") for asked in server.asked[1:]] == ["Bearer roost_s3", None]


def test_the_data_folders_key_is_not_sent_to_another_machine(tmp_path):
    (tmp_path / "operator.key").write_text("roost_operator")
    environment = {"ROOST_DATA": str(tmp_path)}
    assert operator_key(environment, loopback=True) == "roost_operator"
    assert operator_key(environment, loopback=False) is None


def test_key_create_prints_the_secret_once_and_takes_dates_as_utc(server, roost):
    server.on("POST /api/v1/keys", {"id": "k2", "name": "ci", "scopes": ["deploy"], "secret": "roost_x"}, status=201)
    result = roost("key", "create", "ci", "--scope", "deploy", "--expires", "2027-01-01")
    assert server.asked[0].json == {"name": "ci", "scopes": ["deploy"], "expires_at": "2027-01-01T00:00:00+00:00"}
    assert result.stdout.count("roost_x") == 1


# Printing


def test_figures_are_written_for_people():
    assert [size(0), size(999), size(19_200), size(22_928_619)] == ["0 B", "999 B", "19.2 KB", "22.9 MB"]
    assert [duration(830), duration(12_400), duration(3_100_000)] == ["830 µs", "12.4 ms", "3.1 s"]


def test_control_characters_never_reach_the_terminal():
    assert plain("a\x1b[2Jb\x07\u202e") == "a\N{REPLACEMENT CHARACTER}[2Jb" + "\N{REPLACEMENT CHARACTER}" * 2
    assert plain("tab\tkept as space") == "tab     kept as space"
    assert plain(None) == "-"


# The process


def test_the_entry_point_names_the_extra_to_install_when_its_libraries_are_missing():
    gateway = Path(__file__).parent.parent / "gateway"
    command = [sys.executable, "-S", "-m", "roost_gateway", "models"]  # -S: no site-packages
    result = subprocess.run(command, env={"PYTHONPATH": str(gateway)}, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "pip install 'roost[gateway]'" in result.stderr


def test_help_and_version_load_neither_httpx_nor_rich_nor_the_server():
    """They would double the time a command takes to start. (pydantic is there because Typer itself uses it.)"""
    for argument in ("--help", "version"):
        command = [sys.executable, "-X", "importtime", "-m", "roost_gateway", argument]
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
        )
        assert result.returncode == 0
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
        assert not loaded & {"httpx", "rich", "fastapi", "uvicorn", "sqlalchemy", "numpy", "orjson"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ROOST_PORT", "99999"), ("ROOST_OPERATOR_KEY", "too-short-for-a-key"), ("ROOST_LOCAL_SPARES", "-1")],
)
def test_serve_names_a_setting_that_cannot_be_without_showing_its_value(roost, variable, value):
    result = roost("serve", environment={variable: value})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {variable}: ")
    assert value not in result.stderr
