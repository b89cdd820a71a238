#!/usr/bin/env python3
"""Server memory per connection with one joined channel: channels_memory.py WINGBEAT SERVER...

Starts the command SERVER, which says `listening on IP:PORT` and has channels at /socket, and, as processes of their own,
`wingbeat load channels --traffic none`, and compares the server's resident set at 4,000 joined clients with that at
16,000. A slope, so that what the process needs anyway does not count. Exit 1 unless the slope is in (0, 1024] bytes.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rss import judge

PROMISE_BYTES = 1_024


def main():
    load = [sys.argv[1], "load", "channels"]
    sources = ["--source-addresses", "4"]

    def warm_up(address):
        mount = "ws://%s/socket" % address
        handshakes = [sys.argv[1], "load", "connect", mount + "/websocket?vsn=2.0.0", "-c", "256", "-d", "2s", *sources]
        return [handshakes, [*load, mount, "-c", "1000", "--topics", "10", "-d", "1s", *sources]]

    def client(address, count):
        mount = "ws://%s/socket" % address
        return [*load, mount, "-c", str(count), "--traffic", "none", "--topics", "10", "-d", "10m", *sources]

    return 0 if judge("connection with one channel", PROMISE_BYTES, sys.argv[2:], warm_up, client) else 1


sys.exit(main())
