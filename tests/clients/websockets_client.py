#!/usr/bin/env python3
"""Talks to the gateway with the Python library `websockets`.

usage: websockets_client.py BASE        BASE as in ws://127.0.0.1:8080

BASE/echo must send every message back with its type and boundaries, BASE/nosuch must not exist.
Stops at the first check that fails, with exit status 1.
"""

import asyncio
import contextlib
import os
import resource
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 16 * 1024 * 1024)
CLIENTS = 1000
MESSAGES_PER_CLIENT = 10
# Generous, because a debug build under a sanitizer runs this too.
TIMEOUT_S = float(os.environ.get("UAKARI_TEST_TIMEOUT", "60"))


class Failed(Exception):
    """A check that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def describe(value):
    """Names a message shortly: 16 MiB on a terminal help nobody."""
    if isinstance(value, (str, bytes)) and len(value) > 40:
        return f"{type(value).__name__} of {len(value)} starting {value[:20]!r}"
    return repr(value)


def expect_same(got, wanted, where=""):
    if type(got) is type(wanted) and got == wanted:
        return
    if type(got) is not type(wanted) or len(got) != len(wanted):
        raise Failed(f"{where}got {describe(got)}, expected {describe(wanted)}")
    at = next(i for i, (a, b) in enumerate(zip(got, wanted)) if a != b)
    raise Failed(f"{where}wrong from {at} on: got {got[at:at+8]!r}, expected {wanted[at:at+8]!r}")


def binary(size):
    """Bytes whose period of 251 divides no buffer size, so that a shift is noticed."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def text(size):
    return ("".join(map(chr, range(0x20, 0x7F))) * (size // 95 + 1))[:size]


def client(base, name, **options):
    # An inherited proxy setting must not come between the test and the gateway, nor may the library's own deadlines.
    settings = {"proxy": None, "max_size": None, "compression": None, "ping_interval": None}
    settings |= {"open_timeout": TIMEOUT_S, "close_timeout": TIMEOUT_S}
    return connect(f"{base}/{name}", **(settings | options))


async def exchange(socket, message, wanted=None):
    wanted = message if wanted is None else wanted
    # The echo streams: a client that does not read while it sends would block itself, however large the message.
    _, got = await asyncio.gather(socket.send(message), socket.recv())
    expect_same(got, wanted)


async def round_trips(base, **options):
    async with client(base, "echo", **options) as socket:
        for size in SIZES:
            await exchange(socket, text(size))
            await exchange(socket, binary(size))
        return socket.response.headers.get("Sec-WebSocket-Extensions", "none")


async def check_sizes(base):
    await round_trips(base)
    return f"text and binary of {', '.join(map(str, SIZES))} bytes"


async def check_compression_offered(base):
    agreed = await round_trips(base, compression="deflate")
    return f"the same sizes with permessage-deflate offered (agreed: {agreed})"


async def check_unicode(base):
    async with client(base, "echo") as socket:
        for message in ("äöüß", "κόσμε", "日本語", "🐒🙈🙉", "\0\x7f\u0080\u07ff\u0800\uffff\U0010ffff"):
            await exchange(socket, message)
            # Characters of 2, 3 and 4 bytes then fall on every place of any buffer's end.
            await exchange(socket, message * 9973)
    return "unicode of every encoded length, short and long"


async def check_fragments(base):
    async with client(base, "echo") as socket:
        await exchange(socket, ["frag", "", "mén", "ted 🐒"], "fragménted 🐒")
        pieces = [binary(size) for size in (1, 125, 126, 65535, 65536, 0, 7)]
        await exchange(socket, pieces, b"".join(pieces))
        await exchange(socket, ["x"] * 1000, "x" * 1000)
    return "fragmented messages arrive whole"


async def check_order(base):
    async with client(base, "echo") as socket:
        messages = [text(i % 300) if i % 2 else binary(i % 300) for i in range(2000)]

        async def send_all():
            for message in messages:
                await socket.send(message)

        sender = asyncio.create_task(send_all())
        for number, message in enumerate(messages):
            expect_same(await socket.recv(), message, f"message {number}: ")
        await sender
    return "2,000 messages sent without waiting come back in order"


async def check_ping(base):
    async with client(base, "echo") as socket:
        for payload in (b"", b"x", b"\x00\xff" * 62, binary(125)):
            # The library resolves this only on a pong with the very payload.
            answered = await socket.ping(payload)
            await asyncio.wait_for(answered, TIMEOUT_S)
        await exchange(socket, "after the pings")
    return "pings are answered with their payload"


async def check_close(base):
    for code, reason in ((1000, ""), (1001, "leaving"), (3000, "ok"), (4000, "bye"), (4999, "é" * 61)):
        async with client(base, "echo") as socket:
            await exchange(socket, "hello")
            await socket.close(code, reason)
            received = socket.protocol.close_rcvd
            expect(received is not None, f"close {code}: the connection ended without a close frame")
            expect(received.code == code, f"close {code}: echoed as {received.code} {received.reason!r}")
            with contextlib.suppress(ConnectionClosed):
                got = await socket.recv()
                raise Failed(f"close {code}: {describe(got)} came after it")
    return "close codes are echoed"


async def check_refused(base):
    try:
        async with client(base, "nosuch"):
            pass
    except InvalidStatus as refusal:
        status = refusal.response.status_code
        expect(status == 404, f"a name that does not exist was refused with {status}, expected 404")
        return "a name that does not exist is refused with 404"
    raise Failed("a name that does not exist was accepted")


async def check_crowd(base):
    everybody_is_here = asyncio.Barrier(CLIENTS)
    # A thousand connects in one instant would test the kernel's listen queue instead.
    door = asyncio.Semaphore(100)

    async def one(number):
        async with contextlib.AsyncExitStack() as stack:
            async with door:
                socket = await stack.enter_async_context(client(base, "echo"))
            await everybody_is_here.wait()
            for turn in range(MESSAGES_PER_CLIENT):
                message = f"client {number} turn {turn} " + "." * (number % 200)
                await exchange(socket, message if turn % 2 else message.encode())

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(one(number))
    return f"{CLIENTS} clients at once, {MESSAGES_PER_CLIENT} messages each"


CHECKS = (
    check_sizes,
    check_compression_offered,
    check_unicode,
    check_fragments,
    check_order,
    check_ping,
    check_close,
    check_refused,
    check_crowd,
)


def first_cause(error):
    """The first leaf of a task group's exceptions; the others follow from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base = sys.argv[1].rstrip("/")
    # The usual soft limit of 1,024 files is too narrow for the crowd.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run(check):
        return await asyncio.wait_for(check(base), TIMEOUT_S)

    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            print(f"ok - {name}: {asyncio.run(run(check))}", flush=True)
        except Exception as error:
            cause = first_cause(error)
            if isinstance(cause, Failed):
                message = str(cause)
            elif isinstance(cause, TimeoutError) and not str(cause):
                message = f"not done after {TIMEOUT_S:g} s"
            else:
                message = f"{type(cause).__name__}: {cause}"
            print(f"not ok - {name}: {message}", flush=True)
            sys.exit(1)


if __name__ == "__main__":
    main()
