"""Requests that another parser on the way may read otherwise, and bodies that end at one place only.

What two parsers read differently lets one client speak for another (RFC 9112, sections 2.2, 5.1, 6.3 and 11.2).
"""

from .client import case
from .plain import check_index
from .wire import KIB, Wire, expect, expect_status, gate, read_response, request, upgrade


def raw(line="GET / HTTP/1.1", *fields, host=True):
    """A head of any lines, behind which a request waits that must not be answered."""
    lines = [line, *([f"Host: {gate.authority}"] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refused_alone(data, *statuses, split=False):
    """The data is refused, and what follows on the connection is not answered."""
    with Wire() as wire:
        (wire.send_split if split else wire.send)(data + request("/"))
        response = read_response(wire)
        expect_status(response, *statuses)
        expect(response.one("connection") == "close", "the connection is said to stay")
        expect(response.all("date"), "no Date")
        wire.expect_end()


def field(name, *fields, statuses=(400,)):
    case(name, lambda: refused_alone(raw("GET / HTTP/1.1", *fields), *statuses))
    case(f"{name}, in a POST", lambda: refused_alone(raw("POST / HTTP/1.1", *fields), *statuses))


def line(name, text, *statuses):
    case(name, lambda: refused_alone(raw(text.replace("AUTHORITY", gate.authority)), *(statuses or (400,))))


def data(name, *parts, statuses=(400,)):
    """Parts are joined; HOST is the Host line."""
    text = "".join(parts)
    case(name, lambda: refused_alone(text.replace("HOST", f"Host: {gate.authority}").encode("latin-1"), *statuses))


# Lengths

field("two equal lengths", "Content-Length: 5", "Content-Length: 5")
field("two lengths, one in other letters", "Content-Length: 0", "content-length: 5")
field("a list of equal lengths", "Content-Length: 5, 5")
field("a length and chunks", "Content-Length: 5", "Transfer-Encoding: chunked")
field("chunks and a length of 0", "Transfer-Encoding: chunked", "Content-Length: 0")
for text in ("-1", "+5", "0x5", "5a", "5 5", "", "1e1", "\xb2", "18446744073709551616", "9" * 400):
    field(f"the length {text[:24]!r}", f"Content-Length: {text}")
for text in ("identity", "gzip", "xchunked", "chunked, identity", "chunked, chunked", "chunked;x", '"chunked"', "", "chunked,"):
    field(f"the transfer coding {text!r}", f"Transfer-Encoding: {text}")
field("chunks twice", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
field("an unknown transfer coding", "Transfer-Encoding: gzip, chunked", statuses=(501,))
case("chunks in HTTP/1.0", lambda: refused_alone(raw("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400))
case("a blank before the colon of a length", lambda: refused_alone(raw("POST / HTTP/1.1", "Content-Length : 5"), 400))
case("a tab before the colon of a coding", lambda: refused_alone(raw("POST / HTTP/1.1", "Transfer-Encoding\t: x"), 400))
case("a handshake with a body", lambda: refused_alone(upgrade(extra=("Content-Length: 5",)) + b"hello", 400))
case(
    "a handshake with chunks",
    lambda: refused_alone(upgrade(extra=("Transfer-Encoding: chunked",)) + b"0\r\n\r\n", 400),
)

# Hosts

field("an equal second Host", "HOST: again")
case("Host with a blank", lambda: refused_alone(raw("GET / HTTP/1.1", "Host: a b", host=False), 400))
case("Host with a list", lambda: refused_alone(raw("GET / HTTP/1.1", "Host: a, a", host=False), 400))
case("Host with a user", lambda: refused_alone(raw("GET / HTTP/1.1", "Host: u@a", host=False), 400))
case("Host with a path", lambda: refused_alone(raw("GET / HTTP/1.1", "Host: a/b", host=False), 400))
case("Host with a port that is none", lambda: refused_alone(raw("GET / HTTP/1.1", "Host: a:b", host=False), 400))
case("an empty Host", lambda: refused_alone(raw("GET / HTTP/1.1", "Host:", host=False), 400))
line("a target of another host", "GET http://elsewhere/ HTTP/1.1")
line("a target of another port", "GET http://127.0.0.1:1/ HTTP/1.1")
line("a target with a user", "GET http://user@AUTHORITY/ HTTP/1.1")
line("a target with our host as its user", "GET http://AUTHORITY@elsewhere/ HTTP/1.1")
line("a target without a host", "GET http:///x HTTP/1.1")


def absolute_form():
    with Wire() as wire:
        for scheme in ("http", "HTTP"):
            wire.send(raw(f"GET {scheme}://{gate.authority}/ HTTP/1.1"))
            check_index(read_response(wire))


case("a target of our host", absolute_form)

# Lines and characters

data("a bare LF behind the request line", "GET / HTTP/1.1\nHOST\r\n\r\n")
data("bare LFs alone", "GET / HTTP/1.1\nHOST\n\n")
data("a bare LF at the end", "GET / HTTP/1.1\r\nHOST\r\n\n")
data("a bare CR in a value", "GET / HTTP/1.1\r\nHOST\r\nX: a\rb\r\n\r\n")
data("a bare CR behind a value", "GET / HTTP/1.1\r\nHOST\r\nX: a\r\r\n\r\n")
data("a bare CR that hides a field", "GET / HTTP/1.1\r\nHOST\r\nX: a\rContent-Length: 5\r\n\r\n")
data("a folded line", "GET / HTTP/1.1\r\nHOST\r\nX: a\r\n b\r\n\r\n")
data("a line folded with a tab", "GET / HTTP/1.1\r\nHOST\r\nX: a\r\n\tb\r\n\r\n")
data("a blank before the first field", "GET / HTTP/1.1\r\n HOST\r\n\r\n")
data("two empty lines before the request", "\r\n\r\nGET / HTTP/1.1\r\nHOST\r\n\r\n")
data("a bare LF before the request", "\nGET / HTTP/1.1\r\nHOST\r\n\r\n")
data("a blank before the request", " GET / HTTP/1.1\r\nHOST\r\n\r\n")
for number in (0, 1, 8, 11, 12, 27, 31, 127):
    data(f"the character {number} in a value", f"GET / HTTP/1.1\r\nHOST\r\nX: a{chr(number)}b\r\n\r\n")
    data(f"the character {number} in a target", f"GET /{chr(number)} HTTP/1.1\r\nHOST\r\n\r\n")
for name in ("X(Y)", "X Y", "X\xe9", "X/Y", "", '"X"', "[X]"):
    data(f"the field name {name!r}", f"GET / HTTP/1.1\r\nHOST\r\n{name}: 1\r\n\r\n")
for text in (
    "GET  / HTTP/1.1",
    "GET /  HTTP/1.1",
    "GET\t/ HTTP/1.1",
    "GET /\tHTTP/1.1",
    "GET / HTTP/1.1 ",
    "GET / HTTP/1.1\t",
    "GET / x HTTP/1.1",
    "GET / http/1.1",
    "GET / HTTP/1.10",
    "GET / HTTP/01.1",
    "GET / HTTP /1.1",
    "GET / HTTP/1",
    "GET /",
    "GET /#x HTTP/1.1",
    "GET /?x#y HTTP/1.1",
    "GET /caf\xe9 HTTP/1.1",
    "GET /?\xff HTTP/1.1",
    "GET x HTTP/1.1",
    "GET * HTTP/1.1",
    "POST * HTTP/1.1",
    "CONNECT / HTTP/1.1",
    "CONNECT 127.0.0.1 HTTP/1.1",
    "G\xe9T / HTTP/1.1",
    "G@T / HTTP/1.1",
):
    line(f"the request line {text!r}", text)
line("CONNECT", "CONNECT AUTHORITY HTTP/1.1", 405)
for version in ("0.9", "2.0", "2.2", "9.9"):
    line(f"HTTP/{version}", f"GET / HTTP/{version}", 505)
line("the preface of HTTP/2", "PRI * HTTP/2.0", 505)
case("HTTP/1.2 is answered as 1.1", lambda: stays(raw("GET / HTTP/1.2"), 200))
case("OPTIONS of a path", lambda: stays(raw("OPTIONS /nosuch HTTP/1.1"), 204))
case("OPTIONS of the server", lambda: stays(raw("OPTIONS * HTTP/1.1"), 204))
case("a method in small letters", lambda: stays(raw("get / HTTP/1.1"), 405))
case("an expectation that is not known", lambda: refused_alone(raw("GET / HTTP/1.1", "Expect: 200-ok"), 417))
for text in ("GET / HTTP/1.1\nHOST\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\nHOST\r\n\r\n"):
    case(
        f"byte by byte, {text[:16]!r}",
        lambda text=text: refused_alone(text.replace("HOST", f"Host: {gate.authority}").encode(), 400, split=True),
    )

# Bodies that have an end, and where it is


def stays(sent, *statuses, split=False):
    """The data is answered, and the very next byte begins the next request."""
    with Wire() as wire:
        (wire.send_split if split else wire.send)(sent + request("/"))
        response = read_response(wire)
        expect_status(response, *statuses)
        check_index(read_response(wire))
        wire.expect_silence()


def goes(sent, *statuses):
    """The data is answered, and then the connection ends, whatever follows."""
    with Wire() as wire:
        wire.send_apart(sent + request("/"))
        response = read_response(wire)
        expect_status(response, *statuses)
        expect(response.one("connection") == "close", "the connection is said to stay")
        wire.expect_end()


def body(*fields, content=b"", method="POST"):
    return request("/", *fields, method=method) + content


CHUNKED = "Transfer-Encoding: chunked"
for method, status in (("GET", 200), ("POST", 405), ("PUT", 405)):
    for split in (False, True):
        how = f"{method}{', byte by byte' if split else ''}"
        options = {"split": split}
        case(
            f"a measured body behind {how}",
            lambda method=method, status=status, options=options: stays(
                body("Content-Length: 26", content=b"GET /trap HTTP/1.1\r\nX: y\r\n", method=method), status, **options
            ),
        )
        case(
            f"chunks behind {how}",
            lambda method=method, status=status, options=options: stays(
                body(CHUNKED, content=b"3;a=b\r\n\r\n0\r\n1A\r\n" + b"x" * 26 + b"\r\n0\r\nT: 1\r\n\r\n", method=method),
                status,
                **options,
            ),
        )
case("no body behind a POST", lambda: stays(body(), 405))
case("a length of 0 behind a POST", lambda: stays(body("Content-Length: 0"), 405))
case("an empty line behind a body", lambda: stays(body("Content-Length: 2", content=b"ab\r\n"), 405))
case("a body of 64 KiB", lambda: stays(body("Content-Length: 65536", content=b"x" * 64 * KIB), 405))
case("a body of 64 KiB and a byte", lambda: goes(body("Content-Length: 65537", content=b"x" * (64 * KIB + 1)), 405))
case("a body of 1 MiB", lambda: goes(body("Content-Length: 1048576", content=b"x" * 1024 * KIB), 405))
case("a chunk of 1 MiB", lambda: goes(body(CHUNKED, content=b"100000\r\n" + b"x" * 1024 * KIB), 405))
case("chunks of a byte without end", lambda: goes(body(CHUNKED, content=b"1\r\nx\r\n" * 40 * KIB), 405))
case("a body that is said to be endless", lambda: goes(body("Content-Length: 18446744073709551615"), 405))
case("a body in HTTP/1.0", lambda: goes(body("Content-Length: 3", content=b"abc").replace(b"P/1.1", b"P/1.0"), 405))
case("a body that waits for a word", lambda: goes(body("Content-Length: 3", "Expect: 100-continue"), 405))
case("chunks that wait for a word", lambda: goes(body(CHUNKED, "Expect: 100-continue", method="GET"), 200))
for text in (
    "x\r\n",
    "-1\r\n",
    "+1\r\nx\r\n0\r\n\r\n",
    "0x1\r\nx\r\n0\r\n\r\n",
    " 1\r\nx\r\n0\r\n\r\n",
    "1 \r\nx\r\n0\r\n\r\n",
    "1\nx\n0\n\n",
    "1\r\nx\n0\r\n\r\n",
    "1\r\nxx\r\n0\r\n\r\n",
    "2\r\nx\r\n0\r\n\r\n",
    "1;\0\r\nx\r\n0\r\n\r\n",
    "1;a\nb\r\nx\r\n0\r\n\r\n",
    "0\r\nX\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\n X: y\r\n\r\n",
    "0\r\nX: y\r\n z\r\n\r\n",
    "0\r\nX: \0\r\n\r\n",
    "0\r\n\n",
    "10000000000000001\r\nx\r\n0\r\n\r\n",
    f"1;{'x' * 2 * KIB}\r\nx\r\n0\r\n\r\n",
    f"0\r\nX: {'x' * 5 * KIB}\r\n\r\n",
):
    case(
        f"the chunks {text[:30]!r}",
        lambda text=text: refused_alone(body(CHUNKED, content=text.encode("latin-1")), 400),
    )
