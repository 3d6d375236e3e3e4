"""Says of each record on standard input, which stands behind its length, what utils/hello/hello.py reads in it."""

import pathlib
import sys

# What is imported below leaves no compiled files in the project.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "utils/hello"))

import hello

while size := sys.stdin.buffer.read(4):
    record = sys.stdin.buffer.read(int.from_bytes(size, "big"))
    try:
        print(hello._line(hello.parse_hello(record)), end="")
    except hello.HelloError:
        print("refused")
