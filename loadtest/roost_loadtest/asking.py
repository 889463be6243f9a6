"""Questions to the platform while a load runs: one kept connection, short waits, and nothing that blocks other greenlets.

Plain http.client: gevent has made its sockets cooperative by the time it is used.
"""

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

_TIMEOUT_S = 5.0


class NoAnswer(Exception):
    """What was asked for is not known; the text says why."""


class Asker:
    """GETs JSON objects, one at a time; for one greenlet."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        self._base = parts.path.rstrip("/")

    def get(self, path: str, key: str, **query: str) -> dict[str, Any]:
        """Raises NoAnswer."""
        target = self._base + quote(path) + (f"?{urlencode(query)}" if query else "")
        kept = self._connection.sock is not None
        try:
            status, body = self._exchange(target, key)
        except (HTTPException, OSError) as error:
            if not kept:
                raise NoAnswer(_words(error)) from error
            # The server has closed a connection that was kept. A GET may be asked again.
            try:
                status, body = self._exchange(target, key)
            except (HTTPException, OSError) as again:
                raise NoAnswer(_words(again)) from again
        try:
            document = json.loads(body)
        except ValueError as error:
            raise NoAnswer(f"status {status}, and no JSON") from error
        if status != 200 or not isinstance(document, dict):
            said = document.get("error") if isinstance(document, dict) else None
            raise NoAnswer(f"status {status}: {said}" if said else f"status {status}")
        return document

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, target: str, key: str) -> tuple[int, bytes]:
        headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._connection.request("GET", target, headers=headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except BaseException:
            self._connection.close()  # half an answer would be taken for the next one
            raise


def _words(error: Exception) -> str:
    return "it takes too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
