"""Messages, control frames, and frames that break the protocol."""

import socket
import time

from .client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    case,
    close_payload,
    expect_close,
    expect_echo,
    frame,
    letters,
    pattern,
)
from .wire import KIB, MIB, expect, shorten

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
