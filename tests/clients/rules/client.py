"""Frames, a strict client of WebSockets, and the list of cases."""

import os
import struct

from .wire import Failed, Wire, check_101, expect, expect_status, new_key, read_response, shorten, upgrade

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


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


# The cases: (name, function), in the order in which they run.
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
