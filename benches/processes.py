"""The processes of a benchmark: pinned to a core, watched, and ended whatever happens."""

import contextlib
import queue
import re
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

START_SECONDS = 10
LOAD_SECONDS_MAX = 120


class Failed(Exception):
    """Something did not do its part; the text is for the user."""


class Process:
    """A pinned process whose output is drained and kept for the case that it fails."""

    def __init__(self, core, words):
        self.command = ["taskset", "-c", str(core), *map(str, words)]
        self.lines = queue.SimpleQueue()
        self.output = deque(maxlen=200)
        self.child = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.drain, daemon=True)
        self.reader.start()

    def drain(self):
        for line in self.child.stdout:
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def wait_for_line(self, pattern, seconds=START_SECONDS):
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise self.failure(f"did not print {pattern!r} in time") from None
            if line is None:
                raise self.failure("ended")
            if found := re.search(pattern, line):
                return found

    def wait_until(self, condition):
        """For what announces itself by no line: asks again and again."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise self.failure("did not start")
            time.sleep(0.005)

    def failure(self, what):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(0.2)
            self.reader.join(1)
        return Failed(f"{' '.join(self.command)}\n{what}; output:\n{''.join(self.output)}")

    def pids(self):
        """This process and its descendants."""
        pids = [self.child.pid]
        for pid in pids:
            pids += children(pid)
        return pids

    def end(self):
        self.child.stdin.close()
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def pss(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024


def answers(family, address):
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0
