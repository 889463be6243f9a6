"""A server for the load tester's own tests, in a process of its own: what it does to its requests is known beforehand.

    python loadtest_server.py [--stall AT,SECONDS] [--capacity N] [--status 200,503]

It prints its port, and answers every POST (a GET is 404): at once, but after `--stall` (seconds from its first request) not before that is
over; with `--capacity` one after the other, so many a second; with these statuses in turn.
"""

import argparse
import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

BODY = b'{"outputs":[]}'


class Server:
    def __init__(self, options):
        self.loop = asyncio.get_running_loop()
        self.statuses = itertools.cycle(options.status.split(","))
        self.gap = 1 / options.capacity if options.capacity else 0.0
        self.stall = [float(part) for part in options.stall.split(",")] if options.stall else None
        self.began = None
        self.free_at = 0.0

    def answer_at(self):
        """When the request that is here now is to be answered, by the loop's clock."""
        now = self.loop.time()
        self.began = self.began or now
        if self.gap:
            self.free_at = max(now, self.free_at) + self.gap
            return self.free_at
        if self.stall and 0 <= now - self.began - self.stall[0] < self.stall[1]:
            return self.began + sum(self.stall)
        return 0.0


class Connection(asyncio.Protocol):
    def __init__(self, server):
        self.server = server
        self.received = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found and head.startswith(b"GET "):
            self.received = b""
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
        elif found and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            self.received = b""
            at = self.server.answer_at()
            if at:
                self.server.loop.call_at(at, self.answer)
            else:
                self.answer()

    def answer(self):
        head = f"HTTP/1.1 {next(self.server.statuses)} Told\r\ncontent-type: application/json\r\n"
        self.transport.write(head.encode() + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)


async def serve(options):
    server = Server(options)
    listening = await server.loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The URL of such a server."""
    process = subprocess.Popen([sys.executable, str(Path(__file__)), *options], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stall", default="")
    parser.add_argument("--capacity", type=float, default=0.0)
    parser.add_argument("--status", default="200")
    uvloop.run(serve(parser.parse_args()))
