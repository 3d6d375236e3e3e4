#!/usr/bin/env python3
"""A node of a cluster for tests: HTTP/1.1 and WebSocket on plain sockets, right and wrong.

usage: node.py NAME ADDRESS     ADDRESS is HOST:PORT or unix:PATH
It prints "listening on ADDRESS" and serves until it is killed. Each reply names the node (X-Node) and the target as it
was received (X-Target).
"""
import base64
import hashlib
import os
import re
import select
import socket
import struct
import sys
import threading

NAME = sys.argv[1]
# A body is this many pseudorandom bytes, again and again. A prime: blocks in a wrong order are seen.
BLOCK_SIZE = 65521

lock = threading.Lock()
gates = {}
counts = {"connections": 0, "requests": 0, "waiting": 0, "websockets": 0}
health = [200]


class Bad(Exception):
    """A request that is no HTTP/1.1."""


def gate(name):
    """An event that a test opens with /open."""
    with lock:
        return gates.setdefault(name, threading.Event())


def count(what, change=1):
    with lock:
        counts[what] += change


def block(seed):
    state, data = seed, bytearray()
    for _ in range(BLOCK_SIZE):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        data.append(state >> 24)
    return bytes(data)


def body_of(size, seed):
    """The parts of such a body."""
    data = block(seed)
    while size > 0:
        yield data[:size]
        size -= len(data)


def hash_of(size, seed):
    digest = hashlib.sha256()
    for part in body_of(size, seed):
        digest.update(part)
    return digest.hexdigest()


class Connection:
    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def fill(self):
        data = self.sock.recv(256 * 1024)
        self.buffer += data
        return bool(data)

    def line(self):
        """A line without its end. None: the end of the stream."""
        while b"\n" not in self.buffer:
            if not self.fill():
                return None
        line, self.buffer = self.buffer.split(b"\n", 1)
        if not line.endswith(b"\r"):
            raise Bad("a line without CR")
        return line[:-1].decode("latin-1")

    def some(self, most):
        """At least one byte; none at the end of the stream."""
        if not self.buffer:
            self.fill()
        data, self.buffer = self.buffer[:most], self.buffer[most:]
        return data

    def take(self, size):
        parts = []
        while size > 0:
            data = self.some(size)
            if not data:
                raise EOFError
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def has_bytes(self):
        """Whether bytes have arrived that nobody has asked for."""
        return bool(self.buffer) or bool(select.select([self.sock], [], [], 0)[0])

    def wait_for_end(self):
        while self.some(1 << 16):
            pass

    def send(self, data):
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Request:
    def __init__(self, connection, first):
        self.connection, self.trailers, self.is_read = connection, [], False
        words = first.split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise Bad("the request line " + repr(first))
        self.method, self.target, self.version = words
        self.path, _, query = self.target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        self.fields = self.read_fields()
        lengths, codings = self.all("content-length"), self.all("transfer-encoding")
        if lengths and codings:
            raise Bad("Content-Length and Transfer-Encoding")
        if len(lengths) > 1 or any(not re.fullmatch("[0-9]+", length) for length in lengths):
            raise Bad("Content-Length " + repr(lengths))
        if codings not in ([], ["chunked"]):
            raise Bad("Transfer-Encoding " + repr(codings))
        self.size = int(lengths[0]) if lengths else None
        self.is_chunked = bool(codings)

    def read_fields(self):
        fields = []
        while True:
            line = self.connection.line()
            if line is None:
                raise EOFError
            if not line:
                return fields
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch("[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise Bad("the field " + repr(line))
            fields.append((name, value.strip()))

    def all(self, name):
        return [value for other, value in self.fields if other.lower() == name]

    def one(self, name):
        return ", ".join(self.all(name))

    def is_kept(self):
        return self.version == "HTTP/1.1" and "close" not in self.one("connection").lower()

    def body(self):
        """The parts of the body; trailers are known after it."""
        if self.is_read:
            return
        self.is_read = True
        if self.is_chunked:
            while True:
                line = self.connection.line()
                if line is None:
                    raise EOFError
                if not re.fullmatch("[0-9A-Fa-f]{1,16}(;.*)?", line):
                    raise Bad("the chunk " + repr(line))
                left = int(line.split(";")[0], 16)
                if left == 0:
                    self.trailers = self.read_fields()
                    return
                yield from self.parts(left)
                if self.connection.line() != "":
                    raise Bad("a chunk's end")
        elif self.size:
            yield from self.parts(self.size)

    def parts(self, left):
        while left > 0:
            data = self.connection.some(left)
            if not data:
                raise EOFError
            left -= len(data)
            yield data

    def sum(self):
        """Size and hash of the body."""
        digest, size = hashlib.sha256(), 0
        for part in self.body():
            digest.update(part)
            size += len(part)
        return size, digest.hexdigest()

    def reply(self, status, text="", fields=(), is_last=False):
        """A whole reply with a length."""
        for _ in self.body():
            pass
        data = text.encode("latin-1")
        lines = list(fields) + ["Content-Type: text/plain", "Content-Length: %d" % len(data)]
        self.head(status, lines + (["Connection: close"] if is_last else []))
        if self.method != "HEAD" and status not in (204, 304):
            self.connection.send(data)
        return not is_last

    def head(self, status, fields):
        own = ["X-Node: " + NAME, "X-Target: " + self.target]
        lines = ["HTTP/1.1 %d Status" % status] + own + list(fields)
        if status in (204, 304):
            lines = [line for line in lines if not line.startswith("Content-")]
        self.connection.send("\r\n".join(lines) + "\r\n\r\n")


def echo(request):
    size, digest = request.sum()
    lines = ["node: " + NAME, "method: " + request.method, "target: " + request.target]
    lines += sorted("field: %s: %s" % field for field in request.fields)
    lines += ["size: %d" % size, "sha256: " + digest]
    lines += ["trailer: %s: %s" % field for field in request.trailers]
    return request.reply(200, "\n".join(lines) + "\n")


def sized(request):
    """/bytes/N?mode=length|chunked|close&seed=S&trailers=1"""
    request.sum()
    size, seed = int(request.path.split("/")[2]), int(request.query.get("seed", 1))
    mode, has_trailers = request.query.get("mode", "length"), "trailers" in request.query
    fields, digest = ["Content-Type: application/octet-stream"], hash_of(size, seed)
    if mode == "length":
        fields += ["Content-Length: %d" % size, "X-Sha256: " + digest]
    elif mode == "chunked":
        fields += ["Transfer-Encoding: chunked"] + (["Trailer: X-Sum"] if has_trailers else [])
    else:
        fields.append("Connection: close")
    request.head(200, fields)
    if request.method == "HEAD":
        return mode != "close"
    for part in body_of(size, seed):
        if mode == "chunked":
            part = b"%x;of=%d\r\n%s\r\n" % (len(part), size, part)
        request.connection.send(part)
    if mode == "chunked":
        request.connection.send("0\r\n%s\r\n" % ("X-Sum: %s\r\n" % digest if has_trailers else ""))
    return mode != "close"


def sink(request):
    size, digest = request.sum()
    return request.reply(200, "%d %s\n" % (size, digest))


def broken(request):
    """Replies that are wrong or not whole. Each ends the connection."""
    connection = request.connection
    if request.path != "/early":
        request.sum()
    if request.path == "/half-head":
        connection.send("HTTP/1.1 200 OK\r\nX-Node: %s\r\nContent-Le" % NAME)
    elif request.path == "/half-body":
        if request.query.get("mode") == "chunked":
            request.head(200, ["Transfer-Encoding: chunked"])
            connection.send("3e8\r\n" + 500 * "a")
        else:
            request.head(200, ["Content-Length: 1000"])
            connection.send(500 * "a")
        if "hang" in request.query:
            connection.wait_for_end()
    elif request.path == "/hang":
        connection.wait_for_end()
    elif request.path == "/garbage":
        connection.send("220 mail.example ESMTP\r\n")
    elif request.path == "/extra":
        # A second reply that nobody has asked for.
        request.reply(200, "first\n")
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsecond\n")
        connection.wait_for_end()
    elif request.path == "/both":
        request.head(200, ["Content-Length: 3", "Transfer-Encoding: chunked"])
        connection.send("5\r\nhello\r\n0\r\n\r\n")
    elif request.path == "/reset":
        connection.reset()
    elif request.path == "/late-close":
        # The connection may be kept, but is not.
        request.reply(200, "closed after this\n")
    elif request.path == "/early":
        # The body is not read before the reply.
        request.is_read = True
        request.reply(413, "too large\n", is_last=True)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.wait_for_end()
    return False


def plain(request):
    path, query = request.path, request.query
    if path.startswith("/status/"):
        return request.reply(int(path.split("/")[2]), "status\n")
    if path == "/redirect":
        return request.reply(302, "", ["Location: " + query.get("to", "/")])
    if path == "/cookie":
        cookie = "%s=%s; Path=%s; HttpOnly" % (query.get("name", "rpcid"), query.get("value", "1." + NAME), query["path"])
        return request.reply(200, "", ["Set-Cookie: " + cookie, "Set-Cookie: other=1"])
    if path == "/slow":
        # Not before /open?gate=...
        request.sum()
        count("waiting")
        gate(query["gate"]).wait()
        count("waiting", -1)
        return request.reply(200, "opened\n")
    if path == "/open":
        gate(query["gate"]).set()
        return request.reply(200)
    if path == "/continue":
        request.connection.send("HTTP/1.1 100 Continue\r\n\r\n")
        return sink(request)
    if path == "/hints":
        request.sum()
        request.connection.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        return request.reply(200, "after hints\n")
    if path == "/upgrade-refused":
        return request.reply(403, "no WebSocket here\n")
    if path == "/hop":
        return request.reply(200, "", ["Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-Kept: 1"])
    if path == "/health":
        health[0] = int(query.get("set", health[0]))
        return request.reply(200 if "set" in query else health[0], "health\n")
    if path == "/counts":
        with lock:
            lines = ["%s: %d" % pair for pair in sorted(counts.items())]
        return request.reply(200, "\n".join(lines) + "\n")
    return request.reply(200, "page of %s\n" % NAME)


BROKEN = "/half-head /half-body /hang /garbage /extra /both /reset /late-close /early".split()


def serve_request(request):
    count("requests")
    is_upgrade = request.one("upgrade").lower() == "websocket" and "upgrade" in request.one("connection").lower()
    if is_upgrade and re.match("/websocket", request.path):
        return serve_websocket(request)
    if request.path.startswith("/echo") or request.path.startswith("/rpc"):
        is_kept = echo(request)
    elif request.path.startswith("/bytes/"):
        is_kept = sized(request)
    elif request.path == "/sink":
        is_kept = sink(request)
    elif request.path in BROKEN:
        return broken(request)
    else:
        is_kept = plain(request)
    return is_kept and request.is_kept()


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def frame(opcode, payload, is_final=True):
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
    return bytes([opcode | (0x80 if is_final else 0)]) + length + payload


def read_frame(connection):
    first, second = connection.take(2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack(">H", connection.take(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", connection.take(8))[0]
    if not second & 0x80:
        raise Bad("a frame without mask")
    mask, payload = connection.take(4), connection.take(size)
    if size:
        # The whole payload at once, as one number.
        full = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ full).to_bytes(size, "big")
    return first, payload


def serve_websocket(request):
    """Echoes messages. Text that begins with "!" is a command. Always ends the connection."""
    connection, query = request.connection, request.query
    if "gate" in query:
        gate(query["gate"]).wait()
    early = connection.has_bytes()
    accept, upgrade = accept_of(request.one("sec-websocket-key")), "websocket"
    if query.get("fault") == "accept":
        accept = accept_of("another key")
    elif query.get("fault") == "upgrade":
        upgrade = "h2c"
    fields = ["Upgrade: " + upgrade, "Connection: Upgrade", "Sec-WebSocket-Accept: " + accept]
    fields.append("X-Early: " + ("yes" if early else "no"))
    offered = [name.strip() for name in request.one("sec-websocket-protocol").split(",") if name.strip()]
    if offered:
        fields.append("Sec-WebSocket-Protocol: " + offered[-1])
    own = ["HTTP/1.1 101 Switching Protocols", "X-Node: " + NAME, "X-Target: " + request.target]
    head = ("\r\n".join(own + fields) + "\r\n\r\n").encode()
    # A first message may arrive together with the head.
    connection.send(head + (frame(1, b"hello from " + NAME.encode()) if "hello" in query else b""))
    count("websockets")
    try:
        converse(connection, request.path.startswith("/websocket_client"), request)
    finally:
        count("websockets", -1)
    return False


def converse(connection, is_named, request):
    message, kind = b"", 0
    while True:
        first, payload = read_frame(connection)
        opcode = first & 15
        if first & 0x70:
            connection.send(frame(8, struct.pack(">H", 1002)))
            return
        if opcode == 8:
            connection.send(frame(8, payload[:2]))
            return
        if opcode == 9:
            connection.send(frame(10, payload))
            continue
        if opcode == 10:
            connection.send(frame(1, b"pong: " + payload))
            continue
        kind, message = opcode or kind, message + payload
        if not first & 0x80:
            continue
        if kind == 1 and message.startswith(b"!"):
            words = message.decode()[1:].split(" ")
            if words[0] == "ping":
                connection.send(frame(9, b"from the node"))
            elif words[0] == "close":
                connection.send(frame(8, struct.pack(">H", int(words[1])) + b"by the node"))
                read_frame(connection)
                return
            elif words[0] == "drop":
                return
            elif words[0] == "fields":
                connection.send(frame(1, "\n".join(sorted("%s: %s" % field for field in request.fields)).encode()))
            elif words[0] == "bytes":
                connection.send(frame(2, b"".join(body_of(int(words[1]), 1))))
        else:
            if is_named:
                message, is_named = NAME.encode() + b": " + message, False
            connection.send(frame(kind, message))
        message = b""


def serve(sock):
    count("connections")
    connection = Connection(sock)
    try:
        while True:
            line = connection.line()
            if line is None or not serve_request(Request(connection, line)):
                break
    except Bad as bad:
        print("bad request: %s" % bad, flush=True)
        text = "bad request at %s: %s\n" % (NAME, bad)
        connection.send("HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    except (EOFError, OSError):
        pass
    finally:
        sock.close()


def main():
    address = sys.argv[2]
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address[5:])
        os.chmod(address[5:], 0o666)
    else:
        host, _, port = address.rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        address = "%s:%d" % listener.getsockname()
    listener.listen(1024)
    print("listening on " + address, flush=True)
    while True:
        sock, _ = listener.accept()
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


main()
