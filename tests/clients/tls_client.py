#!/usr/bin/env python3
"""Fetches a page over https and echoes a message over wss with Python's `ssl` and `websockets`.

usage: tls_client.py FOLDER PORT[:CERTIFICATE]...

FOLDER has root.crt, the authority that is trusted, and CERTIFICATE.crt with its key, which the client presents.
Prints "PORT[:CERTIFICATE] page: " and the status, "PORT[:CERTIFICATE] echo: " and the message, or an error instead; and
"PORT[:CERTIFICATE] again: resumed" if a second connection has resumed the session of the first.
"""

import asyncio
import socket
import ssl
import sys
import urllib.request

# The client with threads uses one TLS connection in two of them, which Python before 3.13 does not support.
from websockets.asyncio.client import connect

TIMEOUT_S = 60


def fetch(port, context):
    # An inherited proxy setting must not come between the test and the gateway.
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    with urllib.request.build_opener(*handlers).open(f"https://127.0.0.1:{port}/", timeout=TIMEOUT_S) as answer:
        answer.read()
        return answer.status


def fetch_again(port, context):
    session = None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as tcp:
            with context.wrap_socket(tcp, server_hostname="127.0.0.1", session=session) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                while stream.recv(65536):
                    pass
                session, is_resumed = stream.session, stream.session_reused
    return "resumed" if is_resumed else "a new session"


async def exchange(port, context):
    async with connect(f"wss://127.0.0.1:{port}/echo", ssl=context, proxy=None, open_timeout=TIMEOUT_S) as client:
        await client.send("hello")
        return await client.recv()


def echo(port, context):
    return asyncio.run(asyncio.wait_for(exchange(port, context), TIMEOUT_S))


def main():
    folder, *targets = sys.argv[1:]
    for target in targets:
        port, _, certificate = target.partition(":")
        context = ssl.create_default_context(cafile=f"{folder}/root.crt")
        if certificate:
            context.load_cert_chain(f"{folder}/{certificate}.crt", f"{folder}/{certificate}.key")
        for name, act in (("page", fetch), ("echo", echo), ("again", fetch_again)):
            try:
                result = act(int(port), context)
            except Exception as error:
                # The causes tell what TLS says.
                result = f"{type(error).__name__}: {error}"
                while error := error.__cause__ or error.__context__:
                    result += f", {type(error).__name__}: {error}"
            print(f"{target} {name}: {result}", flush=True)


if __name__ == "__main__":
    main()
