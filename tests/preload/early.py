"""Speaks first, ends its sending and says how long it waits, whoever comes: python3 early.py PATH"""
import socket
import struct
import sys

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        client, _ = listener.accept()
        with client:
            try:
                client.sendall(b"bye")
            except OSError:
                continue
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
            client.shutdown(socket.SHUT_WR)
            print("spoken", flush=True)
            was_heard = False
            while True:
                try:
                    heard = client.recv(100)
                except BlockingIOError:
                    if was_heard:
                        print("waited long enough", flush=True)
                        break
                    continue
                except OSError:
                    # A client has gone without reading.
                    break
                if not heard:
                    break
                was_heard = True
                print("heard", heard.decode(), flush=True)
