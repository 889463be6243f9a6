"""The client's calls about drift and quality."""

from collections.abc import Mapping, Sequence
from typing import Any

from roost_gateway.client_transport import Document, Transport, given, path_of


class DriftCalls(Transport):
    def drift(self, model: str, *, against: int | None = None) -> Document:
        """Each version beside its reference, and what feedback said. `against`: a version to compare the others with."""
        return self._json("GET", path_of("models", model, "drift"), params=given({"against": against}))

    def set_drift(self, model: str, wish: Mapping[str, Any]) -> Document:
        """Say what is looked at: `rate`, `skip`, `keep_answers`, `reference_rows`; what is left out has its default."""
        return self._json("PUT", path_of("models", model, "drift"), json=dict(wish))

    def set_reference(self, model: str, version: int, document: Mapping[str, Any]) -> Document:
        """Give a version its reference: `inputs` and `outputs` as in a prediction and its answer, all rows of them."""
        return self._json("PUT", path_of("models", model, "versions", str(version), "profile"), json=dict(document))

    def give_feedback(self, model: str, items: Sequence[Mapping[str, Any]]) -> Document:
        """Tell what was true: `request_id` and `labels` of each, `group` if wanted; with `version` and `predicted` where
        the server does not keep answers.
        """
        return self._json("POST", path_of("models", model, "feedback"), json={"items": list(items)})
