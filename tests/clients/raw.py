#!/usr/bin/env python3
"""Tries the gateway's handshake and framing rules by raw sockets.

usage: raw.py BASE [PATTERN]        BASE as in http://127.0.0.1:8080

BASE/echo must send every message back with its type and boundaries, BASE/nosuch must not exist,
BASE/denied must be refused by rule, BASE/ must be an index page. With PATTERN, a regular
expression, only the cases whose name matches run. Every case runs, also after a failure; the exit
status is 1 if any failed. Rules without another source are those of RFC 6455 and RFC 9112.
"""

import re
import sys
import urllib.parse

# What is imported below leaves no compiled files in the project.
sys.dont_write_bytecode = True

from rules.client import CASES
from rules.wire import Failed, gate

# Each of these adds its cases, and they run in this order.
from rules import messages, handshake, plain, smuggling


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    url = urllib.parse.urlsplit(sys.argv[1])
    if url.scheme != "http" or not url.hostname:
        sys.exit(f"raw.py: expected http://HOST:PORT, got {sys.argv[1]!r}")
    gate.host, gate.port, gate.authority = url.hostname, url.port or 80, url.netloc
    gate.host_text = f"[{gate.host}]" if ":" in gate.host else gate.host
    wanted = re.compile(sys.argv[2] if len(sys.argv) == 3 else "")

    failed = ran = 0
    for name, run in CASES:
        if not wanted.search(name):
            continue
        ran += 1
        try:
            run()
        except (Failed, OSError, UnicodeDecodeError) as error:
            failed += 1
            print(f"not ok - {name}: {error}", flush=True)
        else:
            print(f"ok - {name}", flush=True)
    print(f"{ran - failed} of {ran} cases hold")
    sys.exit(1 if failed or not ran else 0)


if __name__ == "__main__":
    main()
