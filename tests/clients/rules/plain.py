"""Plain HTTP: pages, connections that stay, and requests that must not be believed."""

from .client import PING, case, frame, refused
from .wire import Wire, check_101, expect, expect_status, new_key, read_response, request, shorten, upgrade


def check_index(response):
    expect_status(response, 200)
    content_type = response.one("content-type")
    expect(content_type.lower().startswith("text/html"), f"Content-Type is {content_type!r}")
    expect(int(response.one("content-length")) > 0, "Content-Length is 0")


def get_index():
    with Wire() as wire:
        wire.send(request("/"))
        response = read_response(wire)
        check_index(response)
        expect(b"<" in response.body, f"the body is no HTML: {shorten(response.body)}")


def head_index():
    with Wire() as wire:
        wire.send(request("/"))
        wanted = read_response(wire)
        wire.send(request("/", method="HEAD"))
        got = read_response(wire, "HEAD")
        # A body would stand where the next response has to begin.
        wire.send(request("/"))
        check_index(read_response(wire))
        check_index(got)

        def without_date(response):
            return sorted(field for field in response.fields if field[0] != "date")

        expect(without_date(got) == without_date(wanted), f"HEAD gives {got.fields}, GET {wanted.fields}")


def keep_alive():
    with Wire() as wire:
        for path, status in (("/", 200), ("/nosuch.html", 404), ("/", 200)):
            wire.send(request(path))
            response = read_response(wire)
            expect_status(response, status)
        wire.expect_silence()


def pipelined():
    with Wire() as wire:
        wire.send(request("/") + request("/nosuch.html") + request("/", method="HEAD") + request("/"))
        check_index(read_response(wire))
        response = read_response(wire)
        expect_status(response, 404)
        check_index(read_response(wire, "HEAD"))
        check_index(read_response(wire))
        wire.expect_silence()


def request_split():
    with Wire() as wire:
        wire.send_split(request("/"))
        check_index(read_response(wire))


def upgrade_behind_get():
    key = new_key()
    with Wire() as wire:
        wire.send(request("/") + upgrade(key=key) + frame(PING, b"third"))
        check_index(read_response(wire))
        check_101(read_response(wire), key)
        got = wire.take(7)
        expect(got == b"\x8a\x05third", f"got {shorten(got)}, expected a pong")


def connection_close():
    with Wire() as wire:
        wire.send(request("/", "Connection: close"))
        check_index(read_response(wire))
        wire.expect_end()


def http_1_0():
    with Wire() as wire:
        wire.send(request("/", version="HTTP/1.0"))
        check_index(read_response(wire))
        wire.expect_end()


def refused_and_closed(data, *statuses):
    with Wire() as wire:
        wire.send(data)
        response = read_response(wire)
        expect_status(response, *statuses)
        wire.expect_end()


case("GET / is the index page", get_index)
case("HEAD / is the same without its body", head_index)
case("several requests on one connection", keep_alive)
case("several requests in one segment", pipelined)
case("a request byte by byte", request_split)
case("an upgrade behind a GET in one segment", upgrade_behind_get)
case("Connection: close", connection_close)
case("GET in HTTP/1.0", http_1_0)
case("a file that does not exist", lambda: refused(request("/nosuch.html"), 404))
case("an unknown method", lambda: refused(request("/", method="BREW"), 405, field="Allow"))
case("DELETE", lambda: refused(request("/", method="DELETE"), 405, field="Allow"))
case("a GET without Host", lambda: refused(request("/", host=False), 400))
case("a GET with two Hosts", lambda: refused(request("/", "Host: elsewhere"), 400))
case("HTTP/2.0 in words", lambda: refused(request("/", version="HTTP/2.0"), 400, 505))
case("garbage", refused_and_closed, b"\x00\x01\x02 garbage\r\n\r\n", 400)
case("a TLS client's first bytes", refused_and_closed, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)
case("a request line of one word", refused_and_closed, b"GARBAGE\r\n\r\n", 400)
case("a blank before a field's colon", lambda: refused_and_closed(request("/", "X-Blank : x"), 400))
case("a field without a colon", lambda: refused_and_closed(request("/", "X-Nothing"), 400))
case("NUL in a field", lambda: refused_and_closed(request("/", "X-Nul: a\0b"), 400))

# A body that is taken for a request, or a length that another parser on the way reads otherwise,
# lets one client speak for another (RFC 9112, sections 6.3 and 11.2).


def body_is_no_request(*fields, method="GET", body=None):
    inner = request("/nosuch.html") if body is None else body
    with Wire() as wire:
        wire.send(request("/", *fields, method=method) + inner)
        response = read_response(wire)
        expect(response.status < 500 or response.status == 501, f"status {response.status}")
        wire.expect_silence(may_end=True)


def chunked(payload):
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(payload), payload)


def content_length(payload):
    return f"Content-Length: {len(payload)}"


for method in ("GET", "POST"):
    case(
        f"the body of a {method} is no request",
        lambda method=method: body_is_no_request(content_length(request("/nosuch.html")), method=method),
    )
    case(
        f"the chunks of a {method} are no request",
        lambda method=method: body_is_no_request(
            "Transfer-Encoding: chunked", method=method, body=chunked(request("/nosuch.html"))
        ),
    )
case("two lengths", lambda: refused_and_closed(request("/", "Content-Length: 5", "Content-Length: 6"), 400))
case("a length that is no number", lambda: refused_and_closed(request("/", "Content-Length: +5"), 400))
case(
    "a body both chunked and measured",
    lambda: body_is_no_request(
        "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + request("/nosuch.html")
    ),
)
