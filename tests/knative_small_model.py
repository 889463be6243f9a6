"""A container's program that starts in a moment: says who it is, or fails as its argument tells.

`exits` ends with status 3 after a few lines, `never-ready` never gets ready, `slow` takes a second.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ready = True

    def do_GET(self):
        self.answer(200 if self.ready else 503, {})

    def do_POST(self):
        wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(wish["seconds"])
        known = self.headers.get("roost-service-secret") == os.environ["ROOST_SERVICE_SECRET"]
        self.answer(200, {"version": os.environ["ROOST_MODEL_VERSION"], "secret_known": known, "pid": os.getpid()})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name in ("compute-us", "queue-us", "rows"):
            self.send_header(f"roost-{name}", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(kind):
    print("starting", flush=True)
    if kind == "exits":
        for number in range(25):
            print(f"line {number}")
        print("about to exit", flush=True)
        sys.exit(3)
    if kind == "slow":
        time.sleep(1)
    Handler.ready = kind != "never-ready"
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


main(sys.argv[1])
