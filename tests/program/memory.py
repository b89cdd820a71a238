#!/usr/bin/env python3
"""Server memory per idle connection: memory.py WINGBEAT [SERVE_FLAG...]

Starts `wingbeat serve` and, as processes of their own, `wingbeat load idle`, and compares the server's resident set at
4,000 connections with that at 16,000. A slope, so that what the process needs anyway does not count; RSS at the start
is printed. Exit 1 unless the slope is in (0, 128] bytes.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rss import judge

PROMISE_BYTES = 128


def main():
    load = [sys.argv[1], "load"]
    sources = ["--source-addresses", "4"]

    def warm_up(address):
        return [[*load, "connect", "ws://%s/echo" % address, "-c", "256", "-d", "2s", *sources]]

    def client(address, count):
        return [*load, "idle", "ws://%s/echo" % address, "-c", str(count), "-d", "10m", *sources]

    server = [sys.argv[1], "serve", "--bind", "127.0.0.1:0", *sys.argv[2:]]
    return 0 if judge("idle connection", PROMISE_BYTES, server, warm_up, client) else 1


sys.exit(main())
