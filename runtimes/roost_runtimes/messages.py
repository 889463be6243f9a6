"""What the doors hand to the core and get back: one request, one answer, whatever carried them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from roost_runtimes.errors import RequestError
from roost_runtimes.tensors import Buffer

CANCELLED_STATUS = 499
"""Nobody waits for this answer any more; it only says that the slot is free."""

TIMES_HEADER = "roost-trace"
"""A request with it is traced: its answer tells how long the request took to read and the answer to write."""

_JSON = (("content-type", "application/json"),)


@dataclass(slots=True)
class Request:
    """One request. Header names are in lower case, repeated headers joined with commas (`content.fold_headers`).

    The body is read in place: its bytes must stay as they are until the request is answered.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Buffer = b""


@dataclass(slots=True)
class Answer:
    """One answer; the door adds what its transport needs, such as a content length.

    The figures are exact for infer answers and 0 for others. `compute_us`: microseconds the model ran for this request; of
    a run shared with others, the share of its rows. `queue_us`: from its arrival to the start of its run. `rows`:
    dimension 0 of the first input, or 1.
    """

    status: int
    headers: Sequence[tuple[str, str]] = _JSON
    body: list[Buffer] = field(default_factory=list)
    compute_us: int = 0
    queue_us: int = 0
    rows: int = 0
    codec_us: tuple[int, int] | None = None
    """Microseconds that reading the request and writing the answer took; None = nobody asked (`TIMES_HEADER`)."""

    def told(self) -> list[tuple[str, str]]:
        """Headers that say so; no two answers' are alike."""
        if self.codec_us is None:
            return []
        return [("roost-decode-us", str(self.codec_us[0])), ("roost-encode-us", str(self.codec_us[1]))]


def json_answer(document: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, _JSON, [orjson.dumps(document)])


def error_answer(error: RequestError) -> Answer:
    """The error as every client gets it: `error` is a sentence, `code` a word, `field` names the part at fault."""
    document = {"error": error.message, "code": error.code}
    if error.field is not None:
        document["field"] = error.field
    # A request may smuggle lone surrogates into a message through a percent-encoded path; JSON has no place for them.
    clean = {key: value.encode("utf-8", "replace").decode() for key, value in document.items()}
    return Answer(error.status, (*_JSON, *error.headers), [orjson.dumps(clean)])
