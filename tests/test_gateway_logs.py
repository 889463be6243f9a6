import io
import json
import logging
from typing import cast

import pytest

from roost_gateway.log_context import log_with, trace_of
from roost_gateway.logs import configure_logs
from roost_gateway.predict.access_log import AccessLog
from roost_gateway.predict.meter import Measured
from roost_gateway.predict.paths import Ask, Target
from roost_platform.metering.intents import Intent

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_each_event_is_one_json_line_whatever_it_holds() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    try:
        configure_logs(stream)
        secret = "roost_" + "a" * 72
        logging.getLogger("somewhere").info(
            "model_named", extra={"model": 'x"\n\x1b[31m', "tenant": "acme", "took_s": 0.5}
        )
        log_with({"request_id": "r-1"} | trace_of([(b"traceparent", TRACE)]))
        try:
            raise ValueError("boom")  # with `secret` among the local variables
        except ValueError:
            logging.getLogger("somewhere").exception("call_failed")
        assert secret
    finally:
        log_with({})
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["ecs.version"]
    assert (first["message"], first["event.action"], first["log.level"]) == ("model_named", "model_named", "info")
    assert (first["labels"], first["organization.id"]) == ({"model": 'x"\n\x1b[31m'}, "acme")
    assert first["roost"] == {"took_s": 0.5}
    assert first["@timestamp"].endswith("Z")
    assert (second["message"], second["error.type"], second["error.message"]) == ("call_failed", "ValueError", "boom")
    assert second["error.stack_trace"].startswith("ValueError: boom\n  ")
    assert (second["http.request.id"], second["trace.id"]) == ("r-1", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert secret not in stream.getvalue(), "local variables hold keys"


@pytest.mark.parametrize("given", [b"", b"x", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"00-4bf9-00f0-01"])
def test_a_trace_that_is_not_well_formed_is_none(given: bytes) -> None:
    assert trace_of([(b"traceparent", given)]) == {}


@pytest.mark.parametrize(("share", "lines"), [(1.0, 100), (0.25, 25), (0.01, 1), (0.0, 0)])
def test_the_access_log_has_an_even_share(share: float, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    access = AccessLog.of(share)
    assert (access is None) == (share == 0)
    target = Target(Ask.INFER, "acme", "/v2/models/iris/infer", "iris")
    for number in range(100):
        if access is not None:
            access.answered(Measured(target, f"r-{number}", 0.0, cast("Intent", None)))
    assert len(caplog.records) == lines
