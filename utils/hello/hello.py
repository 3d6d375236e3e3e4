#!/usr/bin/env python3
"""Parser of the hello record, which uakari sends first to a backend with `hello`: the client and its request.

Copy this file into your server; it needs only Python 3.8 or later. A blocking server:

    from hello import read_hello
    connection, _ = listener.accept()
    connection.settimeout(10)
    who = read_hello(connection)            # before anything else is read
    print(who.client, who.path, who.query)

An asyncio server:

    head = await reader.readexactly(HEAD_SIZE)
    who = parse_hello(head + await reader.readexactly(body_size(head)))

The record is PROXY protocol version 2 (proxy-protocol.txt of haproxy, section 2.2) with fields for what the
handshake said. Its bytes are in docs/backends.md of uakari.

usage: hello.py            for one client whose connection is fd 0, as inetd, socat or systemd (Accept=yes) start
                           it: prints the record to the client as a line, then echoes
       hello.py --test     tests itself
"""
# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The uakari maintainers

import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Optional, Tuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# Size of the head, which contains the size of the rest.
HEAD_SIZE = 16
# The longest record.
RECORD_SIZE_MAX = HEAD_SIZE + 65535

# The fields that have a name here, by their types.
FIELDS = {
    0x02: "host",
    0x05: "id",
    0xE0: "path",
    0xE1: "query",
    0xE2: "origin",
    0xE3: "subprotocol",
    0xE4: "user",
    0x01: "alpn",
    0xE5: "sni",
    0xE6: "subject",
    0xE7: "serial",
    0xE8: "fingerprint",
    0xE9: "groups",
}
# The field of TLS (PP2_TYPE_SSL): a byte of flags, 4 bytes that are 0 for a verified certificate, fields of its own.
TLS = 0x20
TLS_HEAD_SIZE = 5
TLS_FIELDS = {0x21: "tls_version", 0x22: "common_name", 0x23: "tls_cipher"}
# The flags of a client that has presented a certificate, in this connection or in this session.
HAS_CERTIFICATE = 0x06
# Bytes of the addresses of each family: none, IPv4, IPv6, UNIX.
ADDRESSES_SIZE = (0, 12, 36, 216)


class HelloError(ValueError):
    """The record is not valid. Close the connection: the peer is not the gateway."""


@dataclass(frozen=True)
class Hello:
    """The client and its request. Missing fields are None or empty."""

    # IP address and port of the client, and those that it connected to; None for a UNIX socket.
    client: Optional[Tuple[str, int]] = None
    local: Optional[Tuple[str, int]] = None
    # The Host header, with its port.
    host: str = ""
    # The connection in the gateway's log, such as "c12".
    id: str = ""
    # "/" and the name, decoded: any characters but NUL.
    path: str = ""
    # The query string, as it was sent: urllib.parse.parse_qs reads it.
    query: str = ""
    # The page's origin; empty for a client that is not a web page.
    origin: str = ""
    # The selected subprotocol.
    subprotocol: str = ""
    # The user that the gateway has admitted, and its groups, separated by commas; empty without auth.
    user: str = ""
    groups: str = ""
    # The version of TLS, such as "TLSv1.3", and the cipher suite; empty for a client without TLS.
    tls_version: str = ""
    tls_cipher: str = ""
    # The host that the client named in the TLS handshake.
    sni: str = ""
    # The application protocol that ALPN selected.
    alpn: str = ""
    # Whether the client has presented a certificate that the gateway verified. If not, do not rely on the next four.
    is_verified: bool = False
    # The certificate's common name and subject (RFC 4514): any characters but NUL. Over 1,024 bytes they
    # are left out.
    common_name: str = ""
    subject: str = ""
    # Its serial number, and SHA-256 of all of it: hexadecimal digits.
    serial: str = ""
    fingerprint: str = ""
    # Fields of other types, in order: type and value.
    others: Tuple[Tuple[int, bytes], ...] = ()


def read_hello(connection):
    """Reads the record from a socket that blocks or has a timeout, and not a byte more. Raises HelloError, or OSError
    if the socket fails."""
    if connection.type == socket.SOCK_SEQPACKET:
        # One packet; one byte more than the longest record, so that truncation is seen.
        return parse_hello(connection.recv(RECORD_SIZE_MAX + 1))
    head = _read(connection, HEAD_SIZE)
    return parse_hello(head + _read(connection, body_size(head)))


def body_size(head):
    """Size of the rest, from the first HEAD_SIZE bytes of a record."""
    if len(head) < HEAD_SIZE:
        raise HelloError("the record is cut off in its head")
    if head[:12] != SIGNATURE:
        raise HelloError("this is no PROXY protocol 2: does the gateway have hello switched on?")
    if head[12] >> 4 != 2:
        raise HelloError(f"version {head[12] >> 4} of the PROXY protocol is not known")
    return head[14] << 8 | head[15]


def parse_hello(record):
    """Parses a whole record, such as a packet."""
    size = HEAD_SIZE + body_size(record)
    if len(record) != size:
        raise HelloError(f"the record has {len(record)} bytes and says that it has {size}")
    command, family, transport = record[12] & 15, record[13] >> 4, record[13] & 15
    if command == 0:
        # LOCAL: the connection is the sender's own, and the rest is ignored.
        return Hello()
    if command != 1 or family >= len(ADDRESSES_SIZE) or transport > 2:
        raise HelloError(f"command {command} with the family and transport {record[13]:#04x} is not known")
    at = HEAD_SIZE + ADDRESSES_SIZE[family]
    if at > size:
        raise HelloError("the record is cut off in its addresses")
    known = {}
    if family in (1, 2):
        known["client"], known["local"] = _addresses(record[HEAD_SIZE:at])
    others = []
    for kind, value in _fields(record, at):
        if kind == TLS:
            _read_tls(value, known)
        elif kind in FIELDS:
            _add(known, FIELDS[kind], _text(FIELDS[kind], value))
        else:
            others.append((kind, value))
    return Hello(others=tuple(others), **known)


def _fields(data, at):
    """Type and value of each field from this offset to the end."""
    while at < len(data):
        if len(data) - at < 3:
            raise HelloError("the record is cut off in a field's head")
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3 + length
        if at > len(data):
            raise HelloError(f"the record is cut off in the field {kind:#04x}")
        yield kind, bytes(data[at - length : at])


def _read_tls(value, known):
    if len(value) < TLS_HEAD_SIZE:
        raise HelloError(f"the record is cut off in the field {TLS:#04x}")
    flags, verify = struct.unpack_from("!BL", value)
    _add(known, "is_verified", flags & HAS_CERTIFICATE != 0 and verify == 0)
    for kind, text in _fields(value, TLS_HEAD_SIZE):
        if kind in TLS_FIELDS:
            _add(known, TLS_FIELDS[kind], _text(TLS_FIELDS[kind], text))


def _add(known, name, value):
    if name in known:
        raise HelloError(f"the {name} is there twice")
    known[name] = value


def _read(connection, size):
    parts = []
    while size > 0:
        part = connection.recv(size)
        if not part:
            raise HelloError("the connection ended within the record")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _addresses(both):
    half = (len(both) - 4) // 2
    family = socket.AF_INET if half == 4 else socket.AF_INET6
    ports = struct.unpack_from("!HH", both, 2 * half)
    texts = (socket.inet_ntop(family, bytes(part)) for part in (both[:half], both[half : 2 * half]))
    return tuple(zip(texts, ports))


def _text(name, value):
    if b"\0" in value:
        raise HelloError(f"the {name} has a NUL in it")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise HelloError(f"the {name} is not UTF-8") from None


def _line(who):
    """The record as one line. Bytes other than printable ASCII, spaces and percent signs are percent-encoded."""

    def plain(value):
        return "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x25 else f"%{byte:02x}" for byte in value)

    def address(of):
        return "" if of is None else f"[{of[0]}]:{of[1]}" if ":" in of[0] else f"{of[0]}:{of[1]}"

    words = [f"client={address(who.client)}", f"local={address(who.local)}"]
    names = ("host", "id", "path", "query", "origin", "subprotocol")
    words += [f"{name}={plain(getattr(who, name).encode())}" for name in names]
    names = ("user", "groups", "tls_version", "tls_cipher", "sni", "alpn")
    names += ("common_name", "subject", "serial", "fingerprint")
    words += [f"{name}={plain(getattr(who, name).encode())}" for name in names if getattr(who, name)]
    words += ["is_verified"] if who.is_verified else []
    words += [f"{kind:#04x}={plain(value)}" for kind, value in who.others]
    return " ".join(words) + "\n"


def _serve():
    with socket.socket(fileno=os.dup(0)) as connection:
        try:
            connection.sendall(_line(read_hello(connection)).encode())
        except HelloError as error:
            sys.exit(f"hello.py: {error}")
        while part := connection.recv(65536):
            connection.sendall(part)


def _test():
    fields = (
        b"\x02\0\x04h:80",
        b"\x05\0\x03c12",
        b"\xe0\0\x05/Gr\xc3\xbc",
        b"\xe1\0\x03q=1",
        b"\xee\0\x04anna",
        # An unknown field of TLS is skipped.
        b"\x20\0\x1a\x07\0\0\0\0\x21\0\x03TLS\x22\0\x03ann\x24\0\0\x23\0\x03AES",
        b"\xe6\0\x06CN=ann",
    )
    body = b"\1\2\3\4\x7f\0\0\1\x30\x39\0\x50" + b"".join(fields)

    def with_head(body):
        return SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(body)) + body

    record = with_head(body)
    expected = Hello(
        client=("1.2.3.4", 12345),
        local=("127.0.0.1", 80),
        host="h:80",
        id="c12",
        path="/Gr\xfc",
        query="q=1",
        tls_version="TLS",
        tls_cipher="AES",
        is_verified=True,
        common_name="ann",
        subject="CN=ann",
        others=((0xEE, b"anna"),),
    )
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with ours, theirs:
            theirs.sendall(record)
            theirs.sendall(b"rest")
            got = read_hello(ours)
            assert got == expected, got
            assert ours.recv(100) == b"rest", kind

    def is_good(record):
        try:
            return bool(parse_hello(record))
        except HelloError:
            return False

    ends = {12 + sum(map(len, fields[:count])) for count in range(len(fields) + 1)}
    for size in range(len(body) + 1):
        assert is_good(with_head(body[:size])) == (size in ends), size
        assert not is_good(record[:size]), size
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        # It may be valid except in the signature; nothing else may be raised.
        assert not (is_good(flipped) and bit < 96), bit
    print("hello.py: ok")


if __name__ == "__main__":
    if sys.argv[1:] == ["--test"]:
        _test()
    elif len(sys.argv) == 1:
        _serve()
    else:
        sys.exit(__doc__)
