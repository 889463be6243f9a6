"""Compressed bodies with a bound, negotiated answers, repeated headers."""

import gzip
import zlib

import pytest

from roost_runtimes.content import compress, decompress, fold_headers
from roost_runtimes.errors import RequestError

BODY = b'{"inputs": []}' * 300
GZIPPED = gzip.compress(BODY, mtime=0)  # the same in every process, as names of tests must be


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", GZIPPED),
        ("GZIP", GZIPPED),
        ("x-gzip", GZIPPED),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_encodings_are_undone(encoding, encoded):
    assert bytes(decompress(memoryview(encoded), encoding, len(BODY))) == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, deflate", "compress"])
def test_unknown_and_double_encodings_are_refused(encoding):
    with pytest.raises(RequestError) as caught:
        decompress(gzip.compress(BODY), encoding, 1 << 20)
    assert caught.value.status == 415


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, raw_deflate])
def test_a_bomb_is_stopped_at_the_limit(encode):
    encoding = "gzip" if encode is gzip.compress else "deflate"
    bomb = encode(bytes(20_000_000))
    with pytest.raises(RequestError) as caught:
        decompress(bomb, encoding, 1_000_000)
    assert caught.value.status == 413
    assert len(decompress(bomb, encoding, 20_000_000)) == 20_000_000
    with pytest.raises(RequestError):
        decompress(bomb, encoding, 19_999_999)


@pytest.mark.parametrize("broken", [b"", b"\x1f", GZIPPED[:-9], GZIPPED + b"x", b"{}", BODY])
def test_broken_streams_are_refused(broken):
    for encoding in ("gzip", "deflate"):
        with pytest.raises(RequestError) as caught:
            decompress(broken, encoding, 1 << 20)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=1.0, gzip;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("br", None),
        ("identity", None),
        ("", None),
    ],
)
def test_answers_are_compressed_as_asked(accept, encoding):
    result = compress([BODY, memoryview(BODY)], accept)
    if encoding is None:
        assert result is None
        return
    assert result is not None
    assert result[0] == encoding
    joined = b"".join(result[1])
    assert (gzip.decompress(joined) if encoding == "gzip" else zlib.decompress(joined)) == BODY * 2


def test_small_answers_are_left_alone():
    assert compress([b"x" * 1024], "gzip") is None


def test_repeated_headers_stay_visible():
    assert fold_headers([("a", "1"), ("b", "2"), ("a", "1")]) == {"a": "1, 1", "b": "2"}
