import io
import json
import logging

from roost_gateway.logs import configure_logs


def test_each_event_is_one_json_line_whatever_it_holds() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    try:
        configure_logs(stream)
        secret = "roost_" + "a" * 72
        logging.getLogger("somewhere").info("model_named", extra={"model": 'x"\n\x1b[31m'})
        try:
            raise ValueError("boom")  # with `secret` among the local variables
        except ValueError:
            logging.getLogger("somewhere").exception("call_failed")
        assert secret
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["model"], first["level"]) == ("model_named", 'x"\n\x1b[31m', "info")
    assert second["event"] == "call_failed"
    assert second["exception"][0]["exc_value"] == "boom"
    assert secret not in stream.getvalue(), "local variables hold keys"
