"""Request framing as bytes on a wire: what is and is not one HTTP/1.1 request, and where the next one begins (S24).

A case is sent in one go, followed by a marker: one more good request. `expected` is what a client then sees:

    a b      requests with these ids were taken, whole, and answered with their result
    -        a request was taken and answered with an error of its own (4xx); the connection went on
    m        the marker was answered: nothing before it swallowed it, nothing was smuggled
    !        the server closed, because it refused what came or because the client had asked; nothing behind was answered
    ?        only that both servers see the same

`@INFER@` stands for the path of a model that adds one, `@KEY@` for the header that opens it.
"""

from collections.abc import Iterator

from http_requests import CHUNKED, HOST, IN_CHUNKS, INNER, LENGTH, A, Case, chunks, good, head, post


def _framed(prefix: str, expected: str, cases: dict[str, tuple[tuple[bytes, ...], bytes]]) -> Iterator[Case]:
    for name, (headers, content) in cases.items():
        yield Case(f"{prefix}: {name}", post(*headers, content=content), expected)


def _lengths() -> Iterator[Case]:
    def of(text: bytes) -> tuple[tuple[bytes, ...], bytes]:
        return (b"content-length:" + text,), A

    size = b"%d" % len(A)
    taken = {
        "plain": b" " + size,
        "no space": size,
        "tabs around": b"\t" + size + b"\t",
        "many spaces": b"    " + size + b"    ",
        "leading zeros": b" 000" + size,
    }
    refused = {
        "plus": b" +" + size,
        "minus": b" -" + size,
        "minus zero": b" -0",
        "list of equal ones": b" %b, %b" % (size, size),
        "list of different ones": b" %b, 5" % size,
        "list without a space": b" %b,%b" % (size, size),
        "hexadecimal": b" 0x%x" % len(A),
        "underscore": b" 7_7",
        "fraction": size + b".0",
        "exponent": b" 1e2",
        "space inside": b" 7 7",
        "empty": b"",
        "only spaces": b"   ",
        "over 64 bits": b" 18446744073709551617",
        "40 digits": b" " + b"9" * 40,
        "400 digits": b" " + b"9" * 400,
        "quoted": b' "%b"' % size,
        "word": b" ten",
        "semicolon": b" %b;a=b" % size,
        "NUL behind": b" %b\x00" % size,
        "vertical tab before": b"\x0b" + size,
        "form feed behind": size + b"\x0c",
        "Unicode digits": " \u0668\u0660".encode(),
        "no-break space": b"\xa0" + size,
    }
    yield from _framed("CL", "a m", {name: of(text) for name, text in taken.items()})
    yield from _framed("CL", "!", {name: of(text) for name, text in refused.items()})
    other = {
        "two equal": (LENGTH, LENGTH),
        "two different": (LENGTH, b"content-length: 5"),
        "two different, shorter first": (b"content-length: 5", LENGTH),
        "two, one of them empty": (LENGTH, b"content-length:"),
        "two, other case": (LENGTH, LENGTH.upper()),
        "space before the colon": (b"content-length : %b" % size,),
        "tab before the colon": (b"content-length\t: %b" % size,),
        "folded": (b"content-length:\r\n %b" % size,),
        "name with a space before": (b" " + LENGTH,),
    }
    yield from _framed("CL", "!", {name: (headers, A) for name, headers in other.items()})
    yield Case("CL: too short", post(b"content-length: %d" % (len(A) - 5)), "!")
    yield Case(
        "CL: too long, the connection's next bytes are its body", post(b"content-length: %d" % (len(A) + 10)), "!"
    )
    yield Case("CL: longer than all that comes", post(b"content-length: 5000"), "!")
    yield Case("CL: a terabyte", post(b"content-length: 1000000000000"), "!")
    yield Case("CL: none, and a body", post(), "!")
    yield Case("CL: zero, and a body", post(b"content-length: 0"), "!")
    yield Case("CL: zero, then a request", post(b"content-length: 0", content=good("a")), "- a m")
    yield Case("CL: a body on GET", post(LENGTH, line=b"GET @INFER@ HTTP/1.1"), "- m")
    yield Case("CL: a request for a body is no request", post(b"content-length: %d" % len(INNER), content=INNER), "- m")


def _transfer_encodings() -> Iterator[Case]:
    def te(value: bytes) -> tuple[tuple[bytes, ...], bytes]:
        return (b"transfer-encoding:" + value,), IN_CHUNKS

    taken = {
        "chunked": b" chunked",
        "no space": b"chunked",
        "upper case": b" CHUNKED",
        "mixed case": b" Chunked",
        "spaces and tabs before": b" \t chunked",
    }
    refused = {
        "identity": b" identity",
        "chunked, identity": b" chunked, identity",
        "identity, chunked": b" identity, chunked",
        "gzip, chunked": b" gzip, chunked",
        "gzip,chunked": b" gzip,chunked",
        "chunked, gzip": b" chunked, gzip",
        "gzip": b" gzip",
        "chunked, chunked": b" chunked, chunked",
        "xchunked": b" xchunked",
        "chunkedx": b" chunkedx",
        "x-chunked": b" x-chunked",
        "chunked;q=1": b" chunked;q=1",
        "chunked ; a=b": b" chunked ; a=b",
        '"chunked"': b' "chunked"',
        "'chunked'": b" 'chunked'",
        "empty": b"",
        "comma": b" ,",
        ", chunked": b" , chunked",
        "chunked,": b" chunked,",
        "chunked, ,": b" chunked, ,",
        "vertical tab": b" \x0bchunked",
        "form feed": b" chunked\x0c",
        "NUL": b" chunked\x00",
        "bare CR": b" chunked\r",
        "folded": b"\r\n chunked",
        "folded in the middle": b" gzip,\r\n chunked",
        "no-break space": b"\xa0chunked",
        "Kelvin sign": " chun\u212aed".encode(),
        "trailers": b" trailers",
    }
    yield from _framed("TE", "a m", {name: te(value) for name, value in taken.items()})
    yield from _framed("TE", "!", {name: te(value) for name, value in refused.items()})
    others = {
        "and CL": (CHUNKED, LENGTH),
        "behind CL": (LENGTH, CHUNKED),
        "and CL of its bytes": (CHUNKED, b"content-length: %d" % len(IN_CHUNKS)),
        "and CL 0": (CHUNKED, b"content-length: 0"),
        "and CL, TE in odd case": (LENGTH, b"Transfer-EnCoding: Chunked"),
        "and CL, TE not chunked": (LENGTH, b"transfer-encoding: identity"),
        "and CL, TE unknown": (LENGTH, b"transfer-encoding: xchunked"),
        "and CL, TE empty": (LENGTH, b"transfer-encoding:"),
        "twice": (CHUNKED, CHUNKED),
        "twice, identity first": (b"transfer-encoding: identity", CHUNKED),
        "twice, identity last": (CHUNKED, b"transfer-encoding: identity"),
        "twice, gzip first": (b"transfer-encoding: gzip", CHUNKED),
        "space before the colon": (b"transfer-encoding : chunked",),
        "tab before the colon": (b"transfer-encoding\t: chunked",),
        "line before it folded": (b"x-a: b\r\n\ttransfer-encoding: chunked", LENGTH),
        "in a bare-LF line": (b"x-a: b\ntransfer-encoding: chunked", LENGTH),
        "in a bare-CR line": (b"x-a: b\rtransfer-encoding: chunked", LENGTH),
        "in a line behind a NUL": (b"x-a: b\x00\r\ntransfer-encoding: chunked",),
    }
    yield from _framed("TE", "!", {name: (headers, IN_CHUNKS) for name, headers in others.items()})
    yield Case("TE: a space behind", post(b"transfer-encoding: chunked ", content=IN_CHUNKS), "?")
    # An underscore is no hyphen: to us such a header says nothing about the body.
    yield Case("TE: with an underscore", post(b"transfer_encoding: chunked", LENGTH), "a m")
    yield Case("TE: in HTTP/1.0", post(CHUNKED, content=IN_CHUNKS, line=b"POST @INFER@ HTTP/1.0"), "!")
    yield Case("TE: a smuggled request behind the last chunk", post(CHUNKED, content=IN_CHUNKS + good("s")), "a s m")
    yield Case(
        "TE: CL.TE smuggling",
        post(b"content-length: %d" % len(IN_CHUNKS + good("s")), CHUNKED, content=b"0\r\n\r\n" + good("s")),
        "!",
    )
    yield Case(
        "TE: TE.CL smuggling", post(CHUNKED, b"content-length: 4", content=b"5c\r\n" + good("s") + b"0\r\n\r\n"), "!"
    )


def _chunks() -> Iterator[Case]:
    taken = {
        "one": chunks(A, size=999),
        "of a byte": chunks(A, size=1),
        "size in upper case": chunks(A, size=0x1F).replace(b"1f\r\n", b"1F\r\n"),
        "size with leading zeros": b"0000" + IN_CHUNKS,
        "an extension": chunks(A, extension=b";name=value"),
        "an extension without a value": chunks(A, extension=b";name"),
        "a quoted extension": chunks(A, extension=b';name="a b"'),
        "trailers": chunks(A, trailers=b"x-checksum: 1\r\n"),
        "many zeros at the end": IN_CHUNKS.replace(b"\r\n0\r\n", b"\r\n0000\r\n"),
    }
    refused = {
        "size +": b"+" + IN_CHUNKS,
        "size -": b"-" + IN_CHUNKS,
        "size 0x": b"0x" + IN_CHUNKS,
        "size with a space before": b" " + IN_CHUNKS,
        "size with a tab behind": IN_CHUNKS.replace(b"1e\r\n", b"1e\t\r\n", 1),
        "no size": b"\r\n" + A + b"\r\n0\r\n\r\n",
        "size in letters": b"xyz\r\n" + A + b"\r\n0\r\n\r\n",
        "size over 64 bits": b"f" * 17 + b"\r\n" + A + b"\r\n0\r\n\r\n",
        "size that overflows to a small one": b"10000000000000005\r\n" + A + b"\r\n0\r\n\r\n",
        "size with an underscore": b"1_e" + IN_CHUNKS[2:],
        "longer than it says": b"2\r\n" + A + b"\r\n0\r\n\r\n",
        "shorter than it says": b"ff\r\n" + A + b"\r\n0\r\n\r\n",
        "no line end behind the data": IN_CHUNKS.replace(b"\r\n0\r\n", b"0\r\n"),
        "bare LFs": IN_CHUNKS.replace(b"\r\n", b"\n"),
        "bare LF behind the size": IN_CHUNKS.replace(b"1e\r\n", b"1e\n", 1),
        "bare LF behind the data": IN_CHUNKS.replace(b"\r\n0\r\n", b"\n0\r\n"),
        "bare LF at the end": IN_CHUNKS[:-2] + b"\n",
        "bare CR behind the size": IN_CHUNKS.replace(b"1e\r\n", b"1e\r", 1),
        "bare LF in an extension": chunks(A, extension=b";a\nb"),
        "bare CR in an extension": chunks(A, extension=b";a\rb"),
        "NUL in an extension": chunks(A, extension=b";a\x00b"),
        "an open quote in an extension": chunks(A, extension=b';a="b'),
        "CL among the trailers": chunks(A, trailers=b"content-length: 5\r\n"),
        "TE among the trailers": chunks(A, trailers=b"transfer-encoding: chunked\r\n"),
        "a folded trailer": chunks(A, trailers=b"x-a: b\r\n c\r\n"),
        "a bare LF among the trailers": chunks(A, trailers=b"x-a: b\nx-c: d\r\n"),
        "a trailer without a colon": chunks(A, trailers=b"x-a\r\n"),
        "trailers of 100 kB": chunks(A, trailers=b"x-a: " + b"a" * 100_000 + b"\r\n"),
        "ended early": IN_CHUNKS[:-7] + b"\r\n\r\n",
        "the last one missing": IN_CHUNKS[:-5],
    }
    yield from _framed("chunks", "a m", {name: ((CHUNKED,), content) for name, content in taken.items()})
    yield from _framed("chunks", "!", {name: ((CHUNKED,), content) for name, content in refused.items()})
    yield Case("chunks: none at all", post(CHUNKED, content=b"0\r\n\r\n"), "- m")
    yield Case("chunks: an extension of 30 kB", post(CHUNKED, content=chunks(A, extension=b";" + b"a" * 30_000)), "a m")


def _hosts() -> Iterator[Case]:
    def case(name: str, expected: str, *hosts: bytes, version: bytes = b"1.1") -> Case:
        return Case(f"host: {name}", post(*hosts, LENGTH, line=b"POST @INFER@ HTTP/" + version, host=None), expected)

    yield case("none", "!")
    yield case("none in HTTP/1.0", "a !", version=b"1.0")
    yield case("two equal", "!", HOST, HOST)
    yield case("two", "!", HOST, b"host: other")
    yield case("two in HTTP/1.0", "!", HOST, HOST, version=b"1.0")
    yield case("a list", "!", b"host: roost, other")
    yield case("empty", "a m", b"host:")
    for value in (
        b"roost",
        b"roost:8000",
        b"127.0.0.1:80",
        b"[::1]:80",
        b"ROOST.example",
        b"my_service:1",
        b"a.b.",
        b"roost:",
    ):
        yield case(value.decode(), "a m", b"host: " + value)
    for value in (
        b"ro ost", b"roost/path", b"user@roost", b"roost#x", b"roost?x", b"ro\\ost", b"<roost>", b"roost:port", b"roost:1:2",
        b"[::1", b"::1", b"ro\tost", b"ro\xffost", b'"roost"', b"http://roost", b"{roost}", b"ro|ost", b"ro^ost", b"%zz",
    ):  # fmt: skip
        yield case(value.decode("latin-1"), "!", b"host: " + value)
    yield case("with a space before its colon", "!", b"host : roost")
    yield case("folded", "!", b"host: roost\r\n other")


def _lines() -> Iterator[Case]:
    def line(text: bytes, expected: str, *, content: bytes = A, headers: tuple[bytes, ...] = (LENGTH,)) -> Case:
        return Case(
            f"line: {text[:60].decode('latin-1')!r} ({len(text)})", post(*headers, content=content, line=text), expected
        )

    def bare(text: bytes, expected: str) -> Case:
        return line(text, expected, content=b"", headers=())

    yield line(b"POST @INFER@ HTTP/1.1", "a m")
    yield line(b"POST @INFER@?a=b HTTP/1.1", "?")
    yield line(b"POST http://roost@INFER@ HTTP/1.1", "a m")
    yield line(b"POST HTTP://ROOST:80@INFER@ HTTP/1.1", "a m")
    yield line(b"POST https://elsewhere@INFER@ HTTP/1.1", "a m")
    yield line(b"POST @INFER@ HTTP/1.0", "a !")
    yield bare(b"GET / HTTP/1.1", "- m")
    yield bare(b"GET http://roost HTTP/1.1", "- m")
    yield bare(b"GET //@INFER@ HTTP/1.1", "- m")
    yield bare(b"GET /./ HTTP/1.1", "- m")
    yield bare(b"GET /../../etc/passwd HTTP/1.1", "- m")
    yield bare(b"GET /%2e%2e/%00 HTTP/1.1", "- m")
    yield bare(b"GET /" + b"a" * 10_000 + b" HTTP/1.1", "- m")
    yield bare(b"GET /" + b"a" * 100_000 + b" HTTP/1.1", "!")
    # The parser takes these, and no harm is in them: RFC 9112 allows the spaces; the others are HTTP by another name.
    yield bare(b"GET  / HTTP/1.1", "- m")
    yield bare(b"GET /  HTTP/1.1", "- m")
    yield bare(b"SOURCE / HTTP/1.1", "- m")
    yield bare(b"GET / RTSP/1.0", "?")
    yield bare(b"OPTIONS * RTSP/1.0", "?")
    yield bare(b"OPTIONS * HTTP/1.1", "- m")
    yield bare(b"OPTIONS @INFER@ HTTP/1.1", "- m")
    yield bare(b"TRACE @INFER@ HTTP/1.1", "- m")
    yield bare(b"PUT @INFER@ HTTP/1.1", "- m")
    yield bare(b"DELETE @INFER@ HTTP/1.1", "- m")
    refused = (
        b"GET * HTTP/1.1", b"CONNECT roost:80 HTTP/1.1", b"CONNECT @INFER@ HTTP/1.1", b"GET roost:80 HTTP/1.1",
        b"GET roost HTTP/1.1", b"GET HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1", b"GET / HTTP/1.1 x", b"GET / x HTTP/1.1", b"GET / HTTP /1.1", b"GET / HTTP/ 1.1", b"GET /",
        b"GET", b"", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET / HTTP/1.10", b"GET / HTTP/01.1", b"GET / HTTP/2.0",
        b"GET / HTTP/2", b"GET / HTTP/3.0", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / HTTP/1,1", b"GET / http/1.1",
        b"GET / HTTPS/1.1", b"GET / FTP/1.1", b"GET / ICE/1.0", b"GET / HTTP/1.1\x00", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1", b"GET /a\rb HTTP/1.1", b"GET /a\nb HTTP/1.1", b"get / HTTP/1.1", b"Get / HTTP/1.1",
        b"post @INFER@ HTTP/1.1", b"BREW / HTTP/1.1", b"G\x00T / HTTP/1.1", b"GE T / HTTP/1.1", b"GET,POST / HTTP/1.1",
        b"PRI * HTTP/2.0", b"PRI * HTTP/1.1", b"DESCRIBE / HTTP/1.1", b"GET ftp://roost/ HTTP/1.1",
        b"GET http:///a HTTP/1.1", b"GET http://user@roost/ HTTP/1.1", b"GET javascript:alert(1) HTTP/1.1", b"GET ?a=b HTTP/1.1",
        b"GET #a HTTP/1.1", b"GET /#a HTTP/1.1", b"GET \\ HTTP/1.1", b"GET http://ro ost/ HTTP/1.1", b"HTTP/1.1 200 OK",
    )  # fmt: skip
    for text in refused:
        yield bare(text, "!")


def _heads() -> Iterator[Case]:
    refused = {
        "NUL in a value": b"x-a: b\x00c",
        "NUL in a name": b"x-\x00a: b",
        "bell in a value": b"x-a: b\x07c",
        "DEL in a value": b"x-a: b\x7fc",
        "bare LF": b"x-a: b\nx-c: d",
        "bare CR": b"x-a: b\rx-c: d",
        "CR CR LF": b"x-a: b\r\r\nx-c: d",
        "LF CR": b"x-a: b\n\rx-c: d",
        "folded line": b"x-a: b\r\n c",
        "folded line with a tab": b"x-a: b\r\n\tc",
        "folded empty line": b"x-a: b\r\n \r\nx-c: d",
        "no colon": b"x-a",
        "no name": b": b",
        "space in a name": b"x a: b",
        "space before the colon": b"x-a : b",
        "tab before the colon": b"x-a\t: b",
        "bracket in a name": b"x[a]: b",
        "at sign in a name": b"x@a: b",
        "umlaut in a name": b"x-\xe4: b",
        "quote in a name": b'x"a: b',
        "slash in a name": b"x/a: b",
        "of 70 kB": b"x-a: " + b"a" * 70_000,
        "of a megabyte": b"x-a: " + b"a" * 1_000_000,
        "name of 70 kB": b"a" * 70_000 + b": b",
    }
    yield from (Case(f"head: {name}", post(text, LENGTH), "!") for name, text in refused.items())
    taken = {
        "200 headers": b"\r\n".join(b"x-%d: 1" % n for n in range(200)),
        "empty value": b"x-a:",
        "value of spaces": b"x-a:    ",
        "bytes over 127 in a value": b"x-a: \xe4\xff",
        "tab in a value": b"x-a: b\tc",
        "odd token characters in a name": b"!#$%&'*+-.^_`|~0aZ: b",
        "of 30 kB": b"x-a: " + b"a" * 30_000,
    }
    yield from (Case(f"head: {name}", post(text, LENGTH), "a m") for name, text in taken.items())
    yield Case("head: with bare LFs only", post(LENGTH, end=b"\n"), "!")
    yield Case("head: with bare CRs only", post(LENGTH, end=b"\r"), "!")
    yield Case("head: first line folded", head(line=b" POST @INFER@ HTTP/1.1"), "!")
    yield Case("head: a space before the first header", post(LENGTH, host=b" host: roost"), "!")
    yield Case("head: empty line before the request", b"\r\n" + post(LENGTH), "a m")
    yield Case("head: empty lines between requests", good("a") + b"\r\n\r\n" + good("b"), "a b m")
    yield Case("head: LF before the request", b"\n" + post(LENGTH), "?")
    yield Case("head: space before the request", b" " + post(LENGTH), "!")
    yield Case("head: 100 empty lines before the request", b"\r\n" * 100 + post(LENGTH), "a m")
    yield Case("head: cut off", post(LENGTH)[:-200].rstrip(b"\r\n"), "?")


def _connections() -> Iterator[Case]:
    yield Case("two requests", good("a") + good("b"), "a b m")
    yield Case("20 requests", b"".join(good(f"r{n}") for n in range(20)), " ".join(f"r{n}" for n in range(20)) + " m")
    yield Case("a good one and garbage", good("a") + b"\x00garbage\r\n\r\n", "a !")
    yield Case("a good one and a smuggler", good("a") + post(LENGTH, CHUNKED) + good("s"), "a !")
    yield Case("chunked, then a length", post(CHUNKED, content=IN_CHUNKS) + good("b"), "a b m")
    yield Case("asks to close", post(LENGTH, b"connection: close"), "a !")
    yield Case("asks to close, upper case", post(LENGTH, b"Connection: CLOSE"), "a !")
    yield Case("asks to close in a list", post(LENGTH, b"connection: keep-alive, close"), "a !")
    yield Case("asks to close, smuggles", post(LENGTH, b"connection: close") + good("s"), "a !")
    yield Case("HTTP/1.0 with keep-alive", post(LENGTH, b"connection: keep-alive", line=b"POST @INFER@ HTTP/1.0"), "?")
    yield Case("names a framing header", post(LENGTH, b"connection: content-length"), "a m")
    for name, value in {
        "h2c": b"h2c",
        "websocket": b"websocket",
        "TLS": b"TLS/1.0",
        "a list": b"h2c, websocket",
        "none": b"",
    }.items():
        offer = (b"connection: upgrade", b"upgrade: " + value)
        yield Case(f"upgrade to {name}", post(LENGTH, *offer), "a m")
        yield Case(f"upgrade to {name}, chunked", post(CHUNKED, *offer, content=IN_CHUNKS), "a m")
        yield Case(f"upgrade to {name}, ambiguous", post(CHUNKED, LENGTH, *offer, content=IN_CHUNKS), "!")
        yield Case(f"upgrade to {name}, no host", post(LENGTH, *offer, host=None), "!")
    yield Case("upgrade to h2c with settings", post(LENGTH, b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"), "a m")  # fmt: skip
    yield Case("upgrade without connection", post(LENGTH, b"upgrade: h2c"), "a m")
    yield Case("upgrade, then two", post(LENGTH, b"connection: upgrade", b"upgrade: h2c") + good("b"), "a b m")
    yield Case("upgrade and close", post(LENGTH, b"connection: upgrade, close", b"upgrade: h2c"), "a !")
    yield Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), "!")
    yield Case("TLS", bytes.fromhex("16030100c8010000c40303") + b"x" * 40, "!")
    yield Case("zeros", b"\x00" * 100, "!")
    yield Case("PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + good("a"), "!")
    yield Case("an answer", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "!")
    for name, value in {"plain": b"100-continue", "upper case": b"100-CONTINUE", "unknown": b"200-ok"}.items():
        yield Case(f"expect, {name}", post(LENGTH, b"expect: " + value), "a m")
    yield Case("expect without a body", head(b"expect: 100-continue", b"content-length: 0"), "- m")


def cases() -> list[Case]:
    """The corpus; names are unique."""
    parts = (_lengths, _transfer_encodings, _chunks, _hosts, _lines, _heads, _connections)
    return [case for part in parts for case in part()]
