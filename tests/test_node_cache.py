"""Files of models that replicas of one machine share: fetched once, verified each time, bounded, never taken from a user."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roost_runtimes.fetch import Artifact, FetchError
from roost_runtimes.node_cache import kept

FILES = {hashlib.sha256(text).hexdigest(): text for text in (bytes([n]) * 1000 for n in range(4))}
A, B, C, D = FILES


@pytest.fixture
def host() -> Iterator["Host"]:
    with Host() as host:
        yield host


class Host(ThreadingHTTPServer):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def artifact(self, digest: str) -> Artifact:
        return Artifact(f"http://127.0.0.1:{self.server_port}/{digest}", digest, len(FILES[digest]), None)

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        digest = self.path.strip("/")
        self.server.asked.append(digest)
        self.send_response(200)
        self.send_header("content-length", str(len(FILES[digest])))
        self.end_headers()
        self.wfile.write(FILES[digest])

    def log_message(self, *_: object) -> None:
        pass


def use(host: Host, digest: str, folder: Path, *, most_bytes: int = 2500) -> None:
    with kept(host.artifact(digest), most_bytes=most_bytes, folder=folder) as file:
        assert file.read_bytes() == FILES[digest]


def test_a_second_replica_asks_for_nothing(host, tmp_path):
    use(host, A, tmp_path / "kept")
    use(host, A, tmp_path / "kept")
    assert host.asked == [A]


def test_two_at_once_fetch_once(host, tmp_path):
    threads = [threading.Thread(target=use, args=(host, A, tmp_path / "kept")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.asked == [A]


def test_what_somebody_changed_is_fetched_again(host, tmp_path):
    use(host, A, tmp_path / "kept")
    (tmp_path / "kept" / A / A).write_bytes(b"other")
    use(host, A, tmp_path / "kept")
    assert host.asked == [A, A]


def test_what_was_not_used_for_the_longest_makes_room(host, tmp_path):
    folder = tmp_path / "kept"
    use(host, A, folder)
    use(host, B, folder)
    for age, digest in enumerate((A, B)):
        os.utime(folder / digest / digest, (1000 + age, 1000 + age))
    use(host, A, folder)
    use(host, C, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted((A, C))


def test_what_is_in_use_is_not_removed(host, tmp_path):
    folder = tmp_path / "kept"
    with kept(host.artifact(A), most_bytes=1000, folder=folder) as file:
        use(host, B, folder, most_bytes=1000)
        assert file.read_bytes() == FILES[A]
    use(host, C, folder, most_bytes=1000)
    assert [path.name for path in folder.iterdir()] == [C]


def test_a_user_that_was_killed_holds_nothing(host, tmp_path):
    folder = tmp_path / "kept"
    use(host, A, folder)
    script = f"import fcntl, os; fcntl.flock(os.open({str(folder / A / 'lock')!r}, os.O_RDWR), fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    use(host, A, folder)
    use(host, B, folder, most_bytes=1000)
    assert [path.name for path in folder.iterdir()] == [B]


def test_nothing_is_kept_when_that_is_asked_for_or_others_could_write_there(host, tmp_path):
    use(host, A, tmp_path / "none", most_bytes=0)
    assert not (tmp_path / "none").exists()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in ("open", "link"):
        use(host, A, tmp_path / folder)
        assert not (tmp_path / folder / A).exists()


def test_a_file_that_is_another_is_refused_and_not_kept(host, tmp_path):
    wrong = Artifact(f"http://127.0.0.1:{host.server_port}/{B}", A, 1000, None)
    with (
        pytest.raises(FetchError, match="not the one expected"),
        kept(wrong, most_bytes=9999, folder=tmp_path / "kept"),
    ):
        pass
    use(host, A, tmp_path / "kept")
