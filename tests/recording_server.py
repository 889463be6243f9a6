"""For tests of clients: a real HTTP server that answers as told and remembers, and the `roost` command pointed at it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from typer.testing import CliRunner, Result

from roost_gateway.cli.app import app


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RecordingServer:
    """`on` says what to answer; several answers for one route are given in turn, the last one for ever."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    _answers: dict[str, list[tuple[int, bytes, dict[str, str]]]] = field(default_factory=dict)

    def on(self, route: str, body: Any = None, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """`route` is `METHOD /path`; a str `body` is sent as it is, anything else as JSON, None as nothing."""
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self._answers.setdefault(route, []).append((status, data, headers or {}))

    def refuse(self, route: str, *, status: int, code: str, message: str, **more: Any) -> None:
        headers = more.pop("headers", None)
        self.on(route, {"error": message, "code": code, "request_id": "req-1", **more}, status=status, headers=headers)

    def answer(self, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(asked)
        answers = self._answers.get(f"{asked.method} {asked.path}")
        if not answers:
            return 404, b'{"error": "nothing here", "code": "not_found", "request_id": "req-0"}', {}
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def serving() -> Iterator[RecordingServer]:
    recording = RecordingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), headers, body)
            status, data, extra = recording.answer(asked)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | extra).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815 - names that http.server wants

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recording.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield recording
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Command:
    """The `roost` command in an empty home folder, asking the server at `url`; `environment` is added to it."""

    url: str
    home: Path

    def __call__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> Result:
        settings = {"ROOST_URL": self.url, "HOME": str(self.home), "ROOST_DATA": str(self.home / "data")}
        unset = dict.fromkeys(("ROOST_API_KEY", "ROOST_OPERATOR_KEY", "XDG_CONFIG_HOME"))
        return CliRunner().invoke(app, arguments, input=stdin, env=unset | settings | dict(environment or {}))
