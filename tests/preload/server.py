"""An echo server with Python's socket module: python3 server.py PATH"""
import socket
import sys
import threading


def serve(client):
    with client:
        while part := client.recv(65536):
            client.sendall(part)


with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
