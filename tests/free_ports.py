"""Ports for servers that tests start."""

import random
import socket


def free_port() -> int:
    """A loopback port that nobody uses, and that no outgoing connection gets while the server is restarted."""
    while True:
        with socket.socket() as probe:
            port = random.randint(15_000, 32_000)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
