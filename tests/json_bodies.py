"""What a body means read by the whole way and by the ordinary one, so that tests can ask for the same from both."""

from roost_runtimes.codec import Call, InferCodec, parse_object
from roost_runtimes.errors import RequestError

Meaning = tuple


def whole(using: InferCodec, body: bytes) -> Meaning:
    """By the way that requests take."""
    return _meaning(lambda: using.decode(body, None))


def ordinary(using: InferCodec, body: bytes) -> Meaning:
    """By the way that reads every number and remembers nothing."""
    return _meaning(lambda: using._decode_document(parse_object(body), body, None))


def _meaning(decode) -> Meaning:
    try:
        call: Call = decode()
    except RequestError as error:
        return "refused", error.status, error.code, error.field, error.message
    # Bytes, because -0.0 == 0.0; objects have none worth comparing.
    feeds = {
        name: (array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in call.feeds.items()
    }
    headers, pieces = call.encode(list(call.feeds.values()))
    return "served", feeds, call.outputs, call.rows, headers, [bytes(piece) for piece in pieces]
