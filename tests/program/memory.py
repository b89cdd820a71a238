#!/usr/bin/env python3
"""Server memory per idle connection: memory.py WINGBEAT

Starts `wingbeat serve` and, as processes of their own, `wingbeat load idle`, and compares the server's resident set at
4,000 connections with that at 16,000. A slope, so that what the process needs anyway does not count; RSS at the start
is printed. Exit 1 unless the slope is in (0, 128] bytes.
"""
import os
import resource
import subprocess
import sys
import time

FEW, MANY = 4_000, 16_000
PROMISE_BYTES = 128
SPARE_DESCRIPTORS = 500
PATIENCE_S = 120


def rss_bytes(pid):
    with open("/proc/%d/smaps_rollup" % pid) as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss")


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def settled_rss_bytes(pid):
    """RSS once it has stayed the same for a second: the last handshakes are over."""
    readings = []
    for _ in range(PATIENCE_S * 2):
        readings.append(rss_bytes(pid))
        if len(readings) >= 3 and len(set(readings[-3:])) == 1:
            return readings[-1]
        time.sleep(0.5)
    raise RuntimeError("the server's memory does not settle: %s" % readings[-10:])


def wait_for_descriptors(pid, wanted, client):
    for _ in range(PATIENCE_S * 10):
        if descriptors(pid) >= wanted:
            return
        if client.poll() is not None:
            raise RuntimeError("load idle ended with %d" % client.returncode)
        time.sleep(0.1)
    raise RuntimeError("%d descriptors instead of %d after %d s" % (descriptors(pid), wanted, PATIENCE_S))


def measure(wingbeat, server):
    """RSS in bytes at the start, at FEW and at MANY connections."""
    address = server.stdout.readline().decode().split()[-1]
    base, readings, clients, connected = descriptors(server.pid), [settled_rss_bytes(server.pid)], [], 0
    # A herd of handshakes needs memory once, however many connections come of it: it is there before the first reading.
    subprocess.run([wingbeat, "load", "connect", "ws://%s/echo" % address, "-c", "256", "-d", "2s", "--source-addresses",
                    "4"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=PATIENCE_S)
    try:
        for target in (FEW, MANY):
            more = target - connected
            command = [wingbeat, "load", "idle", "ws://%s/echo" % address, "-c", str(more), "-d", "10m",
                       "--source-addresses", "4"]
            clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            wait_for_descriptors(server.pid, base + target, clients[-1])
            connected = target
            readings.append(settled_rss_bytes(server.pid))
            if descriptors(server.pid) < base + target:
                raise RuntimeError("connections were lost while measuring")
        return readings
    finally:
        for client in clients:
            client.kill()
            client.wait()


def main():
    wingbeat = sys.argv[1]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + SPARE_DESCRIPTORS:
        sys.exit("needs a limit of %d open files, the hard limit is %d" % (MANY + SPARE_DESCRIPTORS, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + SPARE_DESCRIPTORS, hard))
    server = subprocess.Popen([wingbeat, "serve", "--bind", "127.0.0.1:0"], stdout=subprocess.PIPE)
    try:
        start, few, many = measure(wingbeat, server)
    finally:
        server.kill()
        server.wait()
    slope = (many - few) / (MANY - FEW)
    print("%.1f bytes per idle connection (RSS %.1f MiB at start, %.1f at %d, %.1f at %d)"
          % (slope, start / 2**20, few / 2**20, FEW, many / 2**20, MANY))
    return 0 if 0 < slope <= PROMISE_BYTES else 1


sys.exit(main())
