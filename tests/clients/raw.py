#!/usr/bin/env python3
"""Tries the gateway's handshake and framing rules by raw sockets.

usage: raw.py BASE [PATTERN]        BASE as in http://127.0.0.1:8080

BASE/echo must send every message back with its type and boundaries, BASE/nosuch must not exist,
BASE/denied must be refused by rule, BASE/ must be an index page. With PATTERN, a regular
expression, only the cases whose name matches run. Every case runs, also after a failure; the exit
status is 1 if any failed. Rules without another source are those of RFC 6455 and RFC 9112.
"""

import base64
import contextlib
import hashlib
import os
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# How long an answer that has to come may take.
ANSWER_S = float(os.environ.get("UAKARI_TEST_TIMEOUT", "10"))
# How long silence is listened to where nothing may come.
SILENCE_S = 0.3
KIB, MIB = 1024, 1024 * 1024


class Failed(Exception):
    """A rule that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def shorten(data):
    return repr(data) if len(data) <= 60 else f"{data[:40]!r}... ({len(data)} bytes)"


# ---------------------------------------------------------------------------------------------
# The wire


class Wire:
    """One TCP connection with a buffer; what was received and not yet taken is in `buffer`."""

    def __init__(self):
        self.socket = socket.create_connection((HOST, PORT), timeout=ANSWER_S)
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


# ---------------------------------------------------------------------------------------------
# HTTP


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
        lines.append(f"Host: {AUTHORITY}")
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


# ---------------------------------------------------------------------------------------------
# Frames


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, claims=None, width=None):
    """One frame. `claims` is the length in the head if not the payload's, `width` 0, 16 or 64
    the form of the length if not the shortest."""
    length = len(payload) if claims is None else claims
    if width is None:
        width = 0 if length < 126 else 16 if length < 65536 else 64
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if width == 0:
        head += bytes([mask_bit | length])
    elif width == 16:
        head += struct.pack("!BH", mask_bit | 126, length)
    else:
        head += struct.pack("!BQ", mask_bit | 127, length)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def mask(payload, key):
    # Over big integers, because Python takes long for a large payload byte by byte.
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


class Client(Wire):
    """A WebSocket after its handshake, strict about all the gateway sends."""

    def __init__(self, path="/echo", key=None, offered=(), behind=b"", split=False, **changes):
        super().__init__()
        key = key or new_key()
        if offered:
            changes["Sec_WebSocket_Protocol"] = ", ".join(offered)
        data = upgrade(path, key=key, **changes) + behind
        if split:
            self.send_split(data)
        else:
            self.send_apart(data)
        check_101(read_response(self), key.strip(), offered)

    def read_frame(self):
        first, second = self.take(2)
        opcode, fin, length = first & 15, bool(first & 0x80), second & 0x7F
        expect(not first & 0x70, f"the gateway sent RSV bits: {first:#x}")
        expect(not second & 0x80, "the gateway sent a masked frame")
        expect(opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"the gateway sent opcode {opcode}")
        if opcode >= 8:
            expect(fin and length <= 125, "the gateway sent a fragmented or too long control frame")
        if length == 126:
            length = struct.unpack("!H", self.take(2))[0]
            expect(length >= 126, f"the gateway sent the length {length} in 16 bits")
        elif length == 127:
            length = struct.unpack("!Q", self.take(8))[0]
            expect(65536 <= length < 2**63, f"the gateway sent the length {length} in 64 bits")
        return opcode, fin, self.take(length)

    def read(self):
        """The next message or control frame, as (opcode, payload); fragments are joined."""
        opcode, fin, payload = self.read_frame()
        expect(opcode != CONTINUATION, "the gateway sent a continuation of nothing")
        parts = [payload]
        while not fin:
            more, fin, payload = self.read_frame()
            if more == CLOSE:
                # Control frames may stand between fragments (RFC 6455 section 5.4), and this one ends it all.
                return more, payload
            expect(more == CONTINUATION, f"the gateway sent opcode {more} inside a fragmented message")
            parts.append(payload)
        return opcode, b"".join(parts)

    def expect_message(self, opcode, payload):
        got = self.read()
        if got[0] == CLOSE and opcode != CLOSE:
            raise Failed(f"closed with {shorten(got[1])} where a message was due")
        expect(got[0] == opcode, f"got opcode {got[0]}, expected {opcode}")
        expect(got[1] == payload, f"got {shorten(got[1])}, expected {shorten(payload)}")

    def expect_close(self, *codes):
        """A close frame with one of the codes (None: an empty one), then the end."""
        opcode, payload = self.read()
        expect(opcode == CLOSE, f"got opcode {opcode} with {shorten(payload)} where a close was due")
        expect(len(payload) != 1, "a close frame of one byte")
        code = struct.unpack("!H", payload[:2])[0] if payload else None
        expect(code in codes, f"closed with {code}, expected {' or '.join(map(str, codes))}")
        payload[2:].decode("utf-8")
        self.expect_end()

    def say_goodbye(self):
        self.send(frame(CLOSE, close_payload(1000)))
        self.expect_close(1000)


# ---------------------------------------------------------------------------------------------
# Cases: (name, function), in the order in which they run

CASES = []


def case(name, function, *arguments, **options):
    CASES.append((name, lambda: function(*arguments, **options)))


def expect_echo(data, *wanted, split=False):
    """Sends bytes to the echo server, expects these (opcode, payload) back, then parts well."""
    with Client() as client:
        if split:
            client.send_split(data)
        else:
            client.send_apart(data)
        for opcode, payload in wanted:
            client.expect_message(opcode, payload)
        client.say_goodbye()


def expect_close(data, *codes, split=False):
    with Client() as client:
        if split:
            client.send_split(data)
        else:
            client.send(data)
        client.expect_close(*codes)


def pattern(size):
    """Bytes whose period of 251 divides no buffer size, so that a shift is noticed."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def letters(size):
    return (bytes(range(0x20, 0x7F)) * (size // 95 + 1))[:size]


# Messages

for size in (0, 1, 125, 126, 127, 65535, 65536, MIB):
    case(f"a text of {size} bytes", expect_echo, frame(TEXT, letters(size)), (TEXT, letters(size)))
    case(f"a binary message of {size} bytes", expect_echo, frame(BINARY, pattern(size)), (BINARY, pattern(size)))

case(
    "two frames in one segment",
    expect_echo,
    frame(TEXT, b"one") + frame(BINARY, b"two"),
    (TEXT, b"one"),
    (BINARY, b"two"),
)
case(
    "1,000 frames in one segment",
    expect_echo,
    b"".join(frame(TEXT, b"message %d" % i) for i in range(1000)),
    *[(TEXT, b"message %d" % i) for i in range(1000)],
)
for size in (5, 126, 300):
    case(
        f"a frame of {size} bytes split byte by byte",
        expect_echo,
        frame(TEXT, letters(size)),
        (TEXT, letters(size)),
        split=True,
    )
case(
    "a fragmented text",
    expect_echo,
    frame(TEXT, b"frag", fin=False) + frame(CONTINUATION, b"men", fin=False) + frame(CONTINUATION, b"ted"),
    (TEXT, b"fragmented"),
)
case(
    "a fragmented binary message, byte by byte",
    expect_echo,
    frame(BINARY, b"\x00\xff", fin=False) + frame(CONTINUATION, b"\xfe"),
    (BINARY, b"\x00\xff\xfe"),
    split=True,
)
case(
    "a message of empty fragments",
    expect_echo,
    frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
    (TEXT, b""),
)
case(
    "a character split over fragments",
    expect_echo,
    frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x90", fin=False) + frame(CONTINUATION, b"\x92"),
    (TEXT, b"\xf0\x9f\x90\x92"),
)


def ping_between_fragments():
    parts = []
    with Client() as client:

        def read_until(wanted):
            """Collects the message's frames until `wanted` says that one was the last."""
            while True:
                opcode, fin, payload = client.read_frame()
                if opcode != PONG:
                    due = CONTINUATION if parts else TEXT
                    expect(opcode == due, f"got opcode {opcode}, expected {due}")
                    parts.append(payload)
                if wanted(opcode, fin):
                    return payload

        client.send(frame(TEXT, b"first ", fin=False) + frame(PING, b"now"))
        # The pong must not wait for the message's end.
        payload = read_until(lambda opcode, fin: opcode == PONG)
        expect(payload == b"now", f"the pong carries {shorten(payload)}")
        client.send(frame(CONTINUATION, b"last"))
        read_until(lambda opcode, fin: fin)
        expect(b"".join(parts) == b"first last", f"got {shorten(b''.join(parts))}")
        client.say_goodbye()


case("a fragmented message with a ping between", ping_between_fragments)


def large_message_in_slow_pieces():
    payload = pattern(300 * KIB)
    data = frame(BINARY, payload)
    with Client() as client:
        for at in range(0, len(data), 7919):
            client.send(data[at : at + 7919])
            time.sleep(0.001)
        client.expect_message(BINARY, payload)
        client.say_goodbye()


def longest_head_byte_by_byte():
    data = frame(BINARY, pattern(65536))
    with Client() as client:
        client.send_split(data[:20])
        client.send_apart(data[20:])
        client.expect_message(BINARY, pattern(65536))
        client.say_goodbye()


case("a message of 300 KiB in slow pieces", large_message_in_slow_pieces)
case("the longest form of a head byte by byte", longest_head_byte_by_byte)

# Control frames

for size in (0, 1, 125):
    case(f"a ping of {size} bytes", expect_echo, frame(PING, pattern(size)), (PONG, pattern(size)))
case("a ping split byte by byte", expect_echo, frame(PING, b"piece"), (PONG, b"piece"), split=True)
case("an unasked pong is ignored", expect_echo, frame(PONG, b"?") + frame(TEXT, b"!"), (TEXT, b"!"))

for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    case(f"close {code} is echoed", expect_close, frame(CLOSE, close_payload(code)), code)
case("close with a reason is echoed", expect_close, frame(CLOSE, close_payload(1000, "tschüß".encode())), 1000)
case("close with the longest reason is echoed", expect_close, frame(CLOSE, close_payload(1000, b"x" * 123)), 1000)
case("close without a code is echoed empty", expect_close, frame(CLOSE), None)
case("close split byte by byte", expect_close, frame(CLOSE, close_payload(4000, b"bye")), 4000, split=True)
case(
    "nothing is answered behind a close",
    expect_close,
    frame(CLOSE, close_payload(1000)) + frame(PING, b"late") + frame(TEXT, b"late"),
    1000,
)
case(
    "close inside a fragmented message",
    expect_close,
    frame(TEXT, b"half", fin=False) + frame(CLOSE, close_payload(1000)),
    1000,
)

for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535):
    case(f"close with the code {code}, which may not be sent", expect_close, frame(CLOSE, close_payload(code)), 1002)
case("close of one byte", expect_close, frame(CLOSE, b"\x03"), 1002)
for name, reason in (("that is not UTF-8", b"\xff\xfe"), ("cut inside a character", b"\xe2\x82")):
    case(f"close with a reason {name}", expect_close, frame(CLOSE, close_payload(1000, reason)), 1002, 1007)


def client_half_closes():
    with Client() as client:
        client.socket.shutdown(socket.SHUT_WR)
        while client.fill():
            pass


case("a client that only shuts down its half is let go", client_half_closes)

# Frames that break the protocol. Where the head alone is enough to know, only the head is sent.

case("an unmasked text", expect_close, frame(TEXT, b"bare", masked=False), 1002)
case("an unmasked empty text", expect_close, frame(TEXT, masked=False), 1002)
case("an unmasked ping", expect_close, frame(PING, b"bare", masked=False), 1002)
case("an unmasked close", expect_close, frame(CLOSE, close_payload(1000), masked=False), 1002)
case("an unmasked frame's head alone", expect_close, frame(BINARY, claims=1000, masked=False), 1002)
for rsv, name in ((4, "RSV1"), (2, "RSV2"), (1, "RSV3"), (7, "RSV1-3")):
    case(f"{name} on a text", expect_close, frame(TEXT, b"bits", rsv=rsv), 1002)
    case(f"{name} on a ping", expect_close, frame(PING, b"bits", rsv=rsv), 1002)
case(
    "RSV1 on a continuation",
    expect_close,
    frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4),
    1002,
)
for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    case(f"the reserved opcode {opcode}", expect_close, frame(opcode, b"what"), 1002)
    case(f"the reserved opcode {opcode} and an empty payload", expect_close, frame(opcode), 1002)
for opcode, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
    case(f"a {name} of 126 bytes", expect_close, frame(opcode, b"\x03\xe8" + b"x" * 124), 1002)
    case(f"a {name} of 65536 bytes, its head alone", expect_close, frame(opcode, claims=65536), 1002)
    case(f"a fragmented {name}", expect_close, frame(opcode, b"\x03\xe8", fin=False), 1002)
for length in (0, 1, 125):
    case(f"the length {length} in 16 bits", expect_close, frame(BINARY, pattern(length), width=16), 1002)
for length in (0, 125, 126, 65535):
    case(f"the length {length} in 64 bits", expect_close, frame(BINARY, pattern(length), width=64), 1002)
case("a length with the top bit", expect_close, frame(BINARY, claims=2**63), 1002)
case("the largest length with the top bit", expect_close, frame(BINARY, claims=2**64 - 1), 1002)
case("a continuation of nothing", expect_close, frame(CONTINUATION, b"of what"), 1002)
case("an unfinished continuation of nothing", expect_close, frame(CONTINUATION, b"of what", fin=False), 1002)
case(
    "a continuation behind a finished message",
    lambda: framed_then_close(frame(TEXT, b"done"), (TEXT, b"done"), frame(CONTINUATION, b"more"), 1002),
)
for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
    case(
        f"a {name} inside a fragmented text",
        expect_close,
        frame(TEXT, b"open", fin=False) + frame(opcode, b"again"),
        1002,
    )
case("a length of 2^62, its head alone", expect_close, frame(BINARY, claims=2**62), 1009)
case("a text length of 2^62, its head alone", expect_close, frame(TEXT, claims=2**62), 1009)


def framed_then_close(first, wanted, second, *codes):
    with Client() as client:
        client.send(first)
        client.expect_message(*wanted)
        client.send(second)
        client.expect_close(*codes)


case(
    "what came before a bad frame is still delivered",
    framed_then_close,
    frame(TEXT, b"good"),
    (TEXT, b"good"),
    frame(TEXT, b"bad", rsv=4),
    1002,
)

# Text that is not UTF-8. The claims beyond the payload show that the rest is not waited for.

for name, text in (
    ("a byte that never occurs", b"abc\xff"),
    ("a lone continuation byte", b"\x80"),
    ("an overlong slash", b"\xc0\xaf"),
    ("an overlong form of three bytes", b"\xe0\x80"),
    ("a surrogate", b"\xed\xa0\x80"),
    ("a character above U+10FFFF", b"\xf4\x90"),
    ("a character of five bytes", b"\xf8"),
    ("a character broken off by a letter", b"\xe2\x82a"),
):
    case(f"text with {name}", expect_close, frame(TEXT, text), 1007)
    case(f"text with {name}, the rest unsent", expect_close, frame(TEXT, text, claims=1000), 1007)
    case(f"text with {name} in a first fragment", expect_close, frame(TEXT, text, fin=False), 1007)
    case(
        f"text with {name} in a later fragment",
        expect_close,
        frame(TEXT, b"good", fin=False) + frame(CONTINUATION, text, fin=False, claims=1000),
        1007,
    )
case("text that ends inside a character", expect_close, frame(TEXT, b"\xe2\x82"), 1007)
case(
    "fragmented text that ends inside a character",
    expect_close,
    frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x90"),
    1007,
)
case("binary that is not UTF-8 is no error", expect_echo, frame(BINARY, b"\xff\xc0\xaf"), (BINARY, b"\xff\xc0\xaf"))

# The handshake


def accepted(path="/echo", **options):
    """The upgrade succeeds and the echo server is behind it."""
    with Client(path, **options) as client:
        client.send(frame(TEXT, b"who is there?"))
        client.expect_message(TEXT, b"who is there?")
        client.say_goodbye()


def expect_status(response, *statuses):
    wanted = f"{statuses[0]} to {statuses[-1]}" if len(statuses) > 3 else " or ".join(map(str, statuses))
    expect(response.status in statuses, f"status {response.status}, expected {wanted}")


def refused(data, *statuses, field=None):
    """The request gets one of the statuses; `field` is a name or a (name, value) it must carry."""
    with Wire() as wire:
        wire.send_apart(data)
        response = read_response(wire)
        expect_status(response, *statuses)
        if isinstance(field, tuple):
            got = response.one(field[0])
            expect(got == field[1], f"{field[0]} is {got!r}, expected {field[1]!r}")
        elif field:
            expect(response.one(field), f"{field} is empty")


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
case("Upgrade to something else is a plain GET", lambda: refused(upgrade(Upgrade="foo"), 400, 404))
case("no Upgrade is a plain GET", lambda: refused(upgrade(Upgrade=None), 400, 404))
case("Connection without upgrade is a plain GET", lambda: refused(upgrade(Connection="keep-alive"), 400, 404))
case("no Connection is a plain GET", lambda: refused(upgrade(Connection=None), 400, 404))

case("the same Origin", lambda: accepted(Origin=f"http://{AUTHORITY}"))
case("no Origin", accepted, Origin=None)
case("a foreign Origin", lambda: refused(upgrade(Origin="http://evil.example"), 403))
case("an Origin that starts like ours", lambda: refused(upgrade(Origin=f"http://{AUTHORITY}.evil.example"), 403))
case("an Origin that ends like ours", lambda: refused(upgrade(Origin=f"http://evil-{AUTHORITY}"), 403))
case("our host as the Origin's user", lambda: refused(upgrade(Origin=f"http://{AUTHORITY}@evil.example"), 403))
case("the Origin of another port", lambda: refused(upgrade(Origin=f"http://{HOST_TEXT}:1"), 403))
case("the Origin null", lambda: refused(upgrade(Origin="null"), 403))
case("two Origins", lambda: refused(upgrade(Origin=("http://evil.example", f"http://{AUTHORITY}")), 400, 403))

case("a name that does not exist", lambda: refused(upgrade("/nosuch"), 404))
case("a name below one", lambda: refused(upgrade("/echo/below"), 404))
case("a denied name", lambda: refused(upgrade("/denied"), 403))
case("a denied name in disguise", lambda: refused(upgrade("//x/../%64enied?x=1"), 403))

for path in ("/%65cho", "//echo", "/sub/../echo", "/echo?x=1", "/./echo", "/echo?", "/echo?a=%00"):
    case(f"the name {path}", accepted, path)
case("a target in absolute form", lambda: accepted(f"http://{AUTHORITY}/echo"))
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

# Plain HTTP


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

# ---------------------------------------------------------------------------------------------


def main():
    global HOST, PORT, AUTHORITY, HOST_TEXT
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    url = urllib.parse.urlsplit(sys.argv[1])
    if url.scheme != "http" or not url.hostname:
        sys.exit(f"raw.py: expected http://HOST:PORT, got {sys.argv[1]!r}")
    HOST, PORT, AUTHORITY = url.hostname, url.port or 80, url.netloc
    HOST_TEXT = f"[{HOST}]" if ":" in HOST else HOST
    wanted = re.compile(sys.argv[2] if len(sys.argv) == 3 else "")

    failed = ran = 0
    for name, run in CASES:
        if not wanted.search(name):
            continue
        ran += 1
        try:
            run()
        except (Failed, OSError, UnicodeDecodeError) as error:
            failed += 1
            print(f"not ok - {name}: {error}", flush=True)
        else:
            print(f"ok - {name}", flush=True)
    print(f"{ran - failed} of {ran} cases hold")
    sys.exit(1 if failed or not ran else 0)


if __name__ == "__main__":
    main()
