"""An echo server with uvloop: python3 uvloop_server.py PATH FOLDER

It does what node.js does.
"""
import asyncio
import sys

import uvloop

path, folder = sys.argv[1:]
last = None


class Echo(asyncio.Protocol):
    name = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.name = self.name or data.decode()
        if data == b"leave":
            self.transport.abort()
        else:
            self.transport.write(data)

    def connection_lost(self, error):
        global last
        if self.name:
            file = open(f"{folder}/{self.name}", "w")
            file.write(f"{self.name} has left\n" * 100)
            file.flush()
            # Open until the next one, so that numbers change owners.
            last = file


async def serve():
    server = await asyncio.get_running_loop().create_unix_server(Echo, path)
    await server.serve_forever()


uvloop.run(serve())
