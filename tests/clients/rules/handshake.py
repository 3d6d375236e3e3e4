"""The opening handshake: what is accepted, what is refused, and what may follow it at once."""

import base64
import contextlib

from .client import BINARY, PING, PONG, TEXT, Client, case, frame, pattern, refused
from .wire import KIB, expect, gate, new_key, request, upgrade


def accepted(path="/echo", **options):
    """The upgrade succeeds and the echo server is behind it."""
    with Client(path, **options) as client:
        client.send(frame(TEXT, b"who is there?"))
        client.expect_message(TEXT, b"who is there?")
        client.say_goodbye()


CLIENT_ERROR = tuple(range(400, 500))
VERSION_13 = ("Sec-WebSocket-Version", "13")

case("a handshake", accepted)
case("the handshake of RFC 6455's example", accepted, key="dGhlIHNhbXBsZSBub25jZQ==")
case("Upgrade in other letters", accepted, Upgrade="WebSocket")
case("Connection with several tokens", accepted, Connection="keep-alive, Upgrade")
case("Connection in other letters", accepted, Connection="upgrade")
case("blanks around the key", accepted, key="  dGhlIHNhbXBsZSBub25jZQ== \t")
case("unknown fields", accepted, extra=("X-Unknown: yes", "User-Agent: raw.py", "X-Empty:"))
case("an unknown extension is declined", accepted, Sec_WebSocket_Extensions="x-unknown; a=1, x-other")
case("a subprotocol offered", accepted, offered=("chat",))
case("several subprotocols offered: at most one is chosen", accepted, offered=("superchat", "chat", "v1.json"))

case("version 12", lambda: refused(upgrade(Sec_WebSocket_Version="12"), 426, field=VERSION_13))
case("version 0", lambda: refused(upgrade(Sec_WebSocket_Version="0"), 426, field=VERSION_13))
case("a version that is no number", lambda: refused(upgrade(Sec_WebSocket_Version="x"), 400, 426))
case("no version", lambda: refused(upgrade(Sec_WebSocket_Version=None), 400, 426))
case("no key", lambda: refused(upgrade(Sec_WebSocket_Key=None), 400))
case("an empty key", lambda: refused(upgrade(Sec_WebSocket_Key=""), 400))
case("two keys", lambda: refused(upgrade(Sec_WebSocket_Key=(new_key(), new_key())), 400))
for length in (15, 17, 12):
    case(
        f"a key of {length} bytes",
        lambda length=length: refused(upgrade(key=base64.b64encode(bytes(length)).decode()), 400),
    )
case("a key that is not base64", lambda: refused(upgrade(key="!!!!!!!!!!!!!!!!!!!!!!=="), 400))
case("a key without its padding", lambda: refused(upgrade(key="dGhlIHNhbXBsZSBub25jZQ"), 400))
case("POST", lambda: refused(upgrade(method="POST", extra=("Content-Length: 0",)), 405, field="Allow"))
case("an upgrade in HTTP/1.0", lambda: refused(upgrade(version="HTTP/1.0"), 400))
case("no Host", lambda: refused(upgrade(host=False), 400))
case("two Hosts", lambda: refused(upgrade(extra=("Host: elsewhere",)), 400))
case("Upgrade to something else", lambda: refused(upgrade(Upgrade="foo"), 426, field=("Upgrade", "websocket")))
case("no Upgrade", lambda: refused(upgrade(Upgrade=None), 426, field=("Upgrade", "websocket")))
case("Connection without upgrade", lambda: refused(upgrade(Connection="keep-alive"), 426, field=("Upgrade", "websocket")))
case("no Connection", lambda: refused(upgrade(Connection=None), 426, field=("Upgrade", "websocket")))

case("a plain GET of a server's name", lambda: refused(request("/echo"), 426, field=("Upgrade", "websocket")))
case("a plain GET of a denied name", lambda: refused(request("/denied"), 404))
case("the key that RFC 6455 prints in section 4.1", accepted, key="AQIDBAUGBwgJCgsMDQ4PEC==")
case("a malformed extension", lambda: refused(upgrade(Sec_WebSocket_Extensions="a b"), 400))

case("the same Origin", lambda: accepted(Origin=f"http://{gate.authority}"))
case("no Origin", accepted, Origin=None)
case("a foreign Origin", lambda: refused(upgrade(Origin="http://evil.example"), 403))
case("an Origin that starts like ours", lambda: refused(upgrade(Origin=f"http://{gate.authority}.evil.example"), 403))
case("an Origin that ends like ours", lambda: refused(upgrade(Origin=f"http://evil-{gate.authority}"), 403))
case("our host as the Origin's user", lambda: refused(upgrade(Origin=f"http://{gate.authority}@evil.example"), 403))
case("the Origin of another port", lambda: refused(upgrade(Origin=f"http://{gate.host_text}:1"), 403))
case("the Origin null", lambda: refused(upgrade(Origin="null"), 403))
case("two Origins", lambda: refused(upgrade(Origin=("http://evil.example", f"http://{gate.authority}")), 400, 403))

case("a name that does not exist", lambda: refused(upgrade("/nosuch"), 404))
case("a name below one", lambda: refused(upgrade("/echo/below"), 404))
case("a denied name", lambda: refused(upgrade("/denied"), 403))
case("a denied name in disguise", lambda: refused(upgrade("//x/../%64enied?x=1"), 403))

for path in ("/%65cho", "//echo", "/sub/../echo", "/echo?x=1", "/./echo", "/echo?", "/echo?a=%00"):
    case(f"the name {path}", accepted, path)
case("a target in absolute form", lambda: accepted(f"http://{gate.authority}/echo"))
for path in (
    "/../../etc/passwd",
    "/%2e%2e/x",
    "/..%2f..%2fetc%2fpasswd",
    "/%c0%ae%c0%ae/x",
    "/echo%00",
    "/%00",
    "/echo%",
    "/echo%0",
    "/echo%zz",
):
    case(f"the name {path}", lambda path=path: refused(upgrade(path), *CLIENT_ERROR))
    case(f"the file {path}", lambda path=path: refused(request(path), *CLIENT_ERROR))

# Data behind the handshake, and the handshake in pieces


def data_behind_handshake():
    with Client(behind=frame(TEXT, b"early") + frame(PING, b"bird")) as client:
        got = sorted([client.read(), client.read()])
        wanted = sorted([(TEXT, b"early"), (PONG, b"bird")])
        expect(got == wanted, f"got {got}, expected {wanted} in any order")
        client.say_goodbye()


def half_a_frame_behind_handshake():
    data = frame(TEXT, b"early, but not all")
    with Client(behind=data[:9]) as client:
        client.send(data[9:])
        client.expect_message(TEXT, b"early, but not all")
        client.say_goodbye()


def much_behind_handshake():
    with Client(behind=frame(BINARY, pattern(256 * KIB))) as client:
        client.expect_message(BINARY, pattern(256 * KIB))
        client.say_goodbye()


def handshake_byte_by_byte():
    with Client(split=True, behind=frame(TEXT, b"slow")) as client:
        client.expect_message(TEXT, b"slow")
        client.say_goodbye()


def bad_frame_behind_handshake():
    with Client(behind=frame(TEXT, b"bare", masked=False)) as client:
        client.expect_close(1002)


case("data behind the handshake", data_behind_handshake)
case("half a frame behind the handshake", half_a_frame_behind_handshake)
case("256 KiB behind the handshake", much_behind_handshake)
case("a bad frame behind the handshake", bad_frame_behind_handshake)
case("a handshake byte by byte", handshake_byte_by_byte)

# Limits

case("a field of 256 KiB", lambda: refused(upgrade(extra=("X-Long: " + "x" * 256 * KIB,)), 431))
case("a field without an end", lambda: refused(upgrade(extra=("X-Long: " + "x" * 256 * KIB,))[:-4], 431))
case("5,000 fields", lambda: refused(upgrade(extra=tuple(f"X-{i}: {i}" for i in range(5000))), 431))
case("a target of 256 KiB", lambda: refused(upgrade("/" + "x" * 256 * KIB), 414))
case("a target without an end", lambda: refused(b"GET /" + b"x" * 256 * KIB, 414))


def a_dozen_clients():
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client()) for _ in range(12)]
        for number, client in enumerate(clients):
            client.send(frame(TEXT, b"client %d" % number))
        for number, client in enumerate(clients):
            client.expect_message(TEXT, b"client %d" % number)
        for client in clients:
            client.say_goodbye()


case("12 clients at once", a_dozen_clients)
