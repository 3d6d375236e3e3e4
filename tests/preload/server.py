"""An echo server with Python's socket module, which says where clients come from: python3 server.py PATH"""
import contextlib
import socket
import sys
import threading


def serve(client, address):
    with client:
        # Somebody may have gone already.
        with contextlib.suppress(OSError):
            print(f"accept {address!r} getpeername {client.getpeername()!r}", flush=True)
        while part := client.recv(65536):
            client.sendall(part)


with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
