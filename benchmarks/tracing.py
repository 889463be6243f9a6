"""What traces cost: requests a second and CPU per request with them off, for 1 % and for all calls, by turns. Needs wrk.

    python benchmarks/tracing.py [--turns 6] [--beside PYTHON] [--out .work/tracing]        a minute or two

The collector answers everything and keeps nothing. `--beside`: the interpreter of another installation of Roost, of an
earlier version say, to be compared with "off".
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import Figures
from load import wrk
from measures_rate import closed_loop
from models import JSON, build
from processes import free_port
from roost_server import Roost

_SECONDS = 2
_CONNECTIONS = 16
_OFF, _BESIDE = "off", "the other installation"


class _Other(Roost):
    python = sys.executable

    def _command(self, port: int, data: Path) -> list[str]:
        return [self.python, "-m", "roost_gateway", "serve", "--port", str(port), "--data", str(data)]


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what traces cost.")
    parser.add_argument("--turns", type=int, default=6, help="of two seconds each [6]")
    parser.add_argument("--beside", metavar="PYTHON", help="interpreter of another installation of Roost")
    parser.add_argument("--out", type=Path, default=Path(".work/tracing"), help="for data and logs [.work/tracing]")
    parser.add_argument("--collect", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.collect:
        ThreadingHTTPServer(("127.0.0.1", chosen.collect), _Collector).serve_forever()
    port = free_port()
    collector = subprocess.Popen([sys.executable, __file__, "--collect", str(port)])
    try:
        compare(chosen.out, port, chosen.turns, chosen.beside)
    finally:
        collector.kill()
        collector.wait()


def compare(out: Path, port: int, turns: int, beside: str | None) -> None:
    shutil.rmtree(out, ignore_errors=True)
    model = build(out / "models")["tiny"]
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    sampled = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    servers: dict[str, Roost] = {}
    found: dict[str, list[Figures]] = {}
    try:
        if beside is not None:
            _Other.python = beside
            servers[_BESIDE] = _Other(out / "beside", out)
        servers[_OFF] = Roost(out / "off", out)
        servers["1 % of calls"] = Roost(out / "some", out, asked | sampled)
        servers["all calls"] = Roost(out / "all", out, asked)
        for server in servers.values():
            server.deploy(model, ["tiny"], min_scale=1)
            wrk(server.target("tiny"), model.bodies[JSON], connections=_CONNECTIONS, seconds=1)
        names = list(servers)
        for turn in range(turns):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                figures = closed_loop(servers[name], "tiny", model.bodies[JSON], _CONNECTIONS, _SECONDS, warming_s=0)
                found.setdefault(name, []).append(figures)
    finally:
        for server in servers.values():
            server.stop()
    for name in names:
        ratios = [one["rps"] / off["rps"] for one, off in zip(found[name], found[_OFF], strict=True)]
        middle = {key: statistics.median(one[key] for one in found[name]) for key in ("rps", "cpu_us")}
        print(
            f"{name}: {middle['rps']:,.0f} requests/s, {middle['cpu_us']:.0f} us of CPU each;"
            f" {statistics.median(ratios):.3f} of off ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
