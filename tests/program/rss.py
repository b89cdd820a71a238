"""How much a server's resident set grows with its connections: what memory.py and channels_memory.py share."""
import os
import resource
import subprocess
import sys
import time

FEW, MANY = 4_000, 16_000
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


def hold(command, count):
    """Starts a client that holds so many connections, and waits for the line that says that they stand."""
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in client.stderr:
        if " connections, " in line:
            if line.strip() == "%d connections, 0 lost" % count:
                return client
            break
    client.kill()
    raise RuntimeError("%r instead of %d connections (%s)" % (line, count, client.wait()))


def measure(server, warm_up, client):
    """RSS in bytes at the start, at FEW and at MANY connections. `warm_up(address)` is a list of commands to run first,
    `client(address, count)` the command that holds so many connections."""
    address = server.stdout.readline().decode().split()[-1]
    base, readings, clients, connected = descriptors(server.pid), [settled_rss_bytes(server.pid)], [], 0
    # A herd of handshakes needs memory once, however many connections come of it: it is there before the first reading.
    for command in warm_up(address):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=PATIENCE_S)
    try:
        for target in (FEW, MANY):
            clients.append(hold(client(address, target - connected), target - connected))
            connected = target
            readings.append(settled_rss_bytes(server.pid))
            if descriptors(server.pid) < base + target:
                raise RuntimeError("connections were lost while measuring")
        return readings
    finally:
        for started in clients:
            started.kill()
            started.wait()


def judge(what, promise_bytes, command, warm_up, client):
    """Runs the server `command`, and prints the slope; whether it is in (0, promise_bytes]."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + SPARE_DESCRIPTORS:
        sys.exit("needs a limit of %d open files, the hard limit is %d" % (MANY + SPARE_DESCRIPTORS, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + SPARE_DESCRIPTORS, hard))
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        start, few, many = measure(server, warm_up, client)
    finally:
        server.kill()
        server.wait()
    slope = (many - few) / (MANY - FEW)
    print("%.1f bytes per %s (RSS %.1f MiB at start, %.1f at %d, %.1f at %d)"
          % (slope, what, start / 2**20, few / 2**20, FEW, many / 2**20, MANY))
    return 0 < slope <= promise_bytes
