"""What the load tester's connections make of servers that answer in every way that HTTP/1.1 allows, and in some that it does not."""

import socket
import ssl
import subprocess
import time
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from roost_loadtest.connections import Connections, Refused

REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@contextmanager
def server(*connections, tls=None):
    """Each argument is one connection: the answers to its requests, in turn, after which it is closed."""
    listening = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        for answers in connections:
            connection, _ = listening.accept()
            with (
                suppress(ssl.SSLError),
                tls.wrap_socket(connection, server_side=True) if tls else connection as connection,
            ):
                for answer in answers:
                    seen.append(connection.recv(65536))
                    for piece in answer if isinstance(answer, list) else [answer]:
                        connection.sendall(piece)
                        time.sleep(0.01)

    thread = Thread(target=serve)
    thread.start()
    where = "https://localhost" if tls else "http://127.0.0.1"
    made = Connections(f"{where}:{listening.getsockname()[1]}", timeout_s=5)
    try:
        yield made, seen
    finally:
        made.close()
        thread.join(10)
        listening.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, (200, 2)),
        ([OK[i : i + 7] for i in range(0, len(OK), 7)], (200, 2)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", (200, 3)),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], (200, 2)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, 0)),
        (b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", (503, 1)),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", (200, 13)),
    ],
)
def test_an_answer_is_read_to_its_end(answer, expected):
    with server([answer]) as (connections, seen):
        assert connections.exchange(REQUEST) == expected
    assert seen == [REQUEST]


def test_a_connection_is_kept_and_one_that_the_server_closes_is_not():
    closing = OK.replace(b"200 OK\r\n", b"200 OK\r\nconnection: close\r\n")
    with server([OK, closing], [OK]) as (connections, seen):
        assert [connections.exchange(REQUEST) for _ in range(3)] == [(200, 2)] * 3
    assert len(seen) == 3


def test_a_connection_that_fell_asleep_is_looked_at_before_a_request_is_lost_on_it():
    with server([OK], [OK]) as (connections, seen):
        connections.exchange(REQUEST)
        # As if it had been idle for long: the server has closed it by then.
        ((connection, _),) = connections._idle
        connections._idle[:] = [(connection, 0.0)]
        time.sleep(0.05)
        assert connections.exchange(REQUEST) == (200, 2)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf", "connection"),
        (b"SSH-2.0-OpenSSH\r\n", "protocol"),
    ],
)
def test_half_an_answer_is_none(answer, says):
    with server([answer]) as (connections, _), pytest.raises(Refused, match=says):
        connections.exchange(REQUEST)
    assert not connections._idle


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """Key and certificate of localhost in one file, which clients of this process trust."""
    file = tmp_path / "localhost.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", file, "-out", tmp_path / "c"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "c").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


def test_over_tls_it_is_the_same_and_a_stranger_is_not_trusted(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with server([OK, OK], [OK], [], tls=context) as (connections, seen):
        assert [connections.exchange(REQUEST) for _ in range(2)] == [(200, 2)] * 2
        ((connection, _),) = connections._idle
        connections._idle[:] = [(connection, 0.0)]
        time.sleep(0.05)
        assert connections.exchange(REQUEST) == (200, 2)
        monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
        stranger = Connections(f"https://localhost:{connections._addresses[0][4][1]}", timeout_s=5)
        with pytest.raises(Refused, match="tls"):
            stranger.exchange(REQUEST)
    assert len(seen) == 3


def test_of_several_addresses_the_one_that_answers_is_taken():
    with server([OK, OK]) as (connections, seen):
        (known,) = connections._addresses
        nobody = socket.create_server(("127.0.0.1", 0))
        address = nobody.getsockname()
        nobody.close()
        connections._addresses.insert(0, (*known[:4], address))
        assert [connections.exchange(REQUEST) for _ in range(2)] == [(200, 2)] * 2
        assert connections._addresses[0] == known
    assert len(seen) == 2
