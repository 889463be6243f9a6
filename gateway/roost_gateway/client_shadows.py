"""The client's calls about shadows."""

from collections.abc import Mapping
from typing import Any

from roost_gateway.client_transport import Document, Transport, path_of


class ShadowCalls(Transport):
    def shadow(self, model: str) -> Document:
        """The model's shadow, and what came of the copies."""
        return self._json("GET", path_of("models", model, "shadow"))

    def set_shadow(self, model: str, wish: Mapping[str, Any]) -> Document:
        """Copy calls to a version: `to`, and `percent`, `wake`, `keep_bodies`, `compare` if they are not the defaults."""
        return self._json("PUT", path_of("models", model, "shadow"), json=dict(wish))

    def end_shadow(self, model: str) -> None:
        """Copy no more."""
        self._send("DELETE", path_of("models", model, "shadow"))
