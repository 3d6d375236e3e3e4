"""A TCP connection to the gateway, and HTTP on it."""

import base64
import contextlib
import hashlib
import os
import re
import socket
import threading
import time
import types

# How long an answer that has to come may take.
ANSWER_S = float(os.environ.get("UAKARI_TEST_TIMEOUT", "10"))
# How long silence is listened to where nothing may come.
SILENCE_S = 0.3
KIB, MIB = 1024, 1024 * 1024

# Where the gateway is: host, port, authority as in a Host field, and host_text as in a URL.
gate = types.SimpleNamespace()


class Failed(Exception):
    """A rule that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def shorten(data):
    return repr(data) if len(data) <= 60 else f"{data[:40]!r}... ({len(data)} bytes)"


class Wire:
    """One TCP connection with a buffer; what was received and not yet taken is in `buffer`."""

    def __init__(self):
        self.socket = socket.create_connection((gate.host, gate.port), timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.ended = None
        self.sender = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The shutdown wakes the sender, which must be gone before its descriptor is reused.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        if self.sender:
            self.sender.join()
        self.socket.close()

    def send(self, data):
        """Sends what it can: a gateway may refuse a request before it has read all of it."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def send_split(self, data):
        """Sends byte by byte, and lets the gateway run between them."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            time.sleep(0.0005)

    def send_apart(self, data):
        """Sends while the caller goes on to receive, for more than the buffers between hold."""
        self.sender = threading.Thread(target=self.send, args=(data,), daemon=True)
        self.sender.start()

    def fill(self):
        """Receives once; False at the end of the stream."""
        if self.ended:
            return False
        try:
            data = self.socket.recv(256 * KIB)
        except TimeoutError:
            raise Failed(f"nothing came for {ANSWER_S:g} s, buffered: {shorten(self.buffer)}") from None
        except ConnectionResetError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "end of stream"
            return False
        self.buffer += data
        return True

    def take(self, size):
        while len(self.buffer) < size:
            expect(self.fill(), f"{self.ended} where {size} bytes were due, got {shorten(self.buffer)}")
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def take_until(self, mark):
        while mark not in self.buffer:
            expect(self.fill(), f"{self.ended} where a head was due, got {shorten(self.buffer)}")
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def expect_end(self):
        """The gateway must close now, and say nothing more."""
        more = self.fill() or self.buffer
        expect(not more, f"got {shorten(self.buffer)} where the connection should end")

    def expect_silence(self, may_end=False):
        """Nothing may come now; unless `may_end`, the connection must stay open too."""
        self.socket.settimeout(SILENCE_S)
        try:
            data = self.buffer or self.socket.recv(64 * KIB)
        except TimeoutError:
            return
        except ConnectionResetError:
            data = b""
        finally:
            self.socket.settimeout(ANSWER_S)
        expect(not data, f"got {shorten(data)} where nothing should come")
        expect(may_end, "the connection ended where it should stay open")


class Response:
    def __init__(self, head):
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d{3})( .*)?", lines[0])
        expect(match, f"not a status line: {lines[0]!r}")
        self.status = int(match[1])
        self.fields = []
        for line in lines[1:]:
            match = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line)
            expect(match, f"not a header field: {line!r}")
            self.fields.append((match[1].lower(), match[2]))
        self.body = b""

    def all(self, name):
        return [value for field, value in self.fields if field == name.lower()]

    def one(self, name):
        values = self.all(name)
        expect(len(values) == 1, f"{len(values)} fields {name} in the {self.status} response, expected 1")
        return values[0]


def request(path, *fields, method="GET", version="HTTP/1.1", host=True):
    """A request's head; `host` false leaves the Host field to the caller."""
    lines = [f"{method} {path} {version}"]
    if host:
        lines.append(f"Host: {gate.authority}")
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


def new_key():
    return base64.b64encode(os.urandom(16)).decode()


def upgrade_fields(key, **changes):
    """The fields of an upgrade; a change to None leaves one out, a tuple gives it twice."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines = []
    for name, value in fields.items():
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                lines.append(f"{name}: {each}")
    return lines


def upgrade(path="/echo", key=None, method="GET", version="HTTP/1.1", host=True, extra=(), **changes):
    fields = upgrade_fields(key or new_key(), **changes)
    return request(path, *fields, *extra, method=method, version=version, host=host)


def read_response(wire, method="GET"):
    response = Response(wire.take_until(b"\r\n\r\n"))
    if method != "HEAD" and response.status >= 200 and response.status not in (204, 304):
        expect(not response.all("transfer-encoding"), "a Transfer-Encoding nobody needs here")
        if "close" in map(str.lower, response.all("connection")) and not response.all("content-length"):
            # Then the end of the stream is the end of the body.
            while wire.fill():
                pass
            response.body = wire.take(len(wire.buffer))
            return response
        length = response.one("content-length")
        expect(length.isdecimal(), f"Content-Length is {length!r}")
        response.body = wire.take(int(length))
    return response


def check_101(response, key, offered=()):
    """Everything RFC 6455 section 4.2.2 says about the answer to an upgrade."""
    expect_status(response, 101)
    expect(response.one("upgrade").lower() == "websocket", "Upgrade is not websocket")
    tokens = [token.strip().lower() for token in response.one("connection").split(",")]
    expect("upgrade" in tokens, "Connection has no upgrade")
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    accept = response.one("sec-websocket-accept")
    wanted = base64.b64encode(digest).decode()
    expect(accept == wanted, f"Sec-WebSocket-Accept is {accept!r}, expected {wanted!r}")
    expect(not response.all("sec-websocket-extensions"), "an extension that was not offered")
    chosen = response.all("sec-websocket-protocol")
    expect(len(chosen) <= 1, "more than one Sec-WebSocket-Protocol")
    expect(all(one in offered for one in chosen), f"subprotocol {chosen} was not offered")
    expect(not response.all("content-length"), "a Content-Length in a 101")


def expect_status(response, *statuses):
    wanted = f"{statuses[0]} to {statuses[-1]}" if len(statuses) > 3 else " or ".join(map(str, statuses))
    expect(response.status in statuses, f"status {response.status}, expected {wanted}")
