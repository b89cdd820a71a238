#!/usr/bin/env python3
"""A million connections in one server process, and what they cost.

    benches/million.py [--connections 1000000] [--driver epoll|uring] [--mode fanout|idle] [--hold 5m]
                       [--workers N] [--keep-free 1GiB] [--set-sysctls] [--json FILE] [--program WINGBEAT]

One `wingbeat serve` and one `wingbeat load` on this machine, each with as many threads with a descriptor table of their
own as `ulimit -n` asks for; the limit is not raised. `fanout`: all connections are subscribed to one topic, and get
three messages during the hold, the first when all stand. `idle`: they get nothing but pings. Meanwhile a second
`wingbeat load` has 100 connections with 20 messages per second each echoed: once while nothing but pings happens, and,
in fanout, once through the third message. Then all connections are closed by the client, and the server is ended.

Prints Markdown; `--json` writes all that was measured. Exit 1 unless every connection stood, got every message, and was
closed with 1000. benches/million.md says what the sysctls are for. Build first: cargo build --release --features cli
"""
import argparse
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ADDRESS = "127.0.0.1:4700"
MESSAGES = 3
SLACK = 1.02  # no further message is due just when the hold ends
ECHO = ["-c", "100", "-r", "2000", "--warmup", "1s"]
# Estimates with a margin: bytes of both kernel ends and both processes per connection, and of a TCP page account.
BYTES_PER_CONNECTION = 10_000
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "": 1}


def quantity(text):
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if not match or match.group(2) not in UNITS:
        raise argparse.ArgumentTypeError("%r is no number with a unit of %s" % (text, ", ".join(filter(None, UNITS))))
    return float(match.group(1)) * UNITS[match.group(2)]


# ---- the machine ----------------------------------------------------------------------------------------------------

def read(path):
    with open(path) as file:
        return file.read()


def sysctl_path(name):
    return "/proc/sys/" + name.replace(".", "/")


def sysctl(name):
    return [int(word) for word in read(sysctl_path(name)).split()]


def wanted_sysctls(connections):
    """Name: what it has to be at least, number by number."""
    pages = connections * 2  # a page on the receiving end of each, and as much again before the kernel saves
    return {
        "fs.file-max": [2 * connections + 100_000],
        "net.core.somaxconn": [4096],
        "net.core.netdev_max_backlog": [20_000 if connections > 50_000 else 1000],
        "net.ipv4.tcp_mem": [pages // 2, pages, pages * 3 // 2],
    }


def check_sysctls(connections, may_set):
    """What is too small, by name: as it is and as it has to be. Ends the program if it may not be set, or cannot be."""
    small, commands = {}, []
    for name, least in wanted_sysctls(connections).items():
        now = sysctl(name)
        wanted = [max(pair) for pair in zip(now, least)]
        if wanted != now:
            small[name] = now, wanted
            commands.append("sysctl -w %s='%s'" % (name, " ".join(map(str, wanted))))
    first, last = sysctl("net.ipv4.ip_local_port_range")
    if last - first < 6_000:
        commands, may_set = commands + ["sysctl -w net.ipv4.ip_local_port_range='32768 60999'"], False
    if commands and not may_set:
        sys.exit("These are too small (--set-sysctls sets them for the run):\n  " + "\n  ".join(commands))
    return small


def set_sysctl(name, numbers):
    with open(sysctl_path(name), "w") as file:
        file.write(" ".join(map(str, numbers)))


def meminfo():
    lines = (line.split() for line in read("/proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def tcp_sockets():
    return int(re.search(r"TCP: inuse (\d+)", read("/proc/net/sockstat")).group(1))


def connections_of(port):
    """Ends of connections on this port, but for listeners (0A) and those that only wait for late packets (06)."""
    with open("/proc/net/tcp") as file:
        words = (line.split() for line in file if ":%04X" % port in line)
        return sum(1 for word in words if word[3] not in ("0A", "06"))


def softnet_dropped():
    return sum(int(line.split()[1], 16) for line in read("/proc/net/softnet_stat").splitlines())


def rss(pid):
    return int(re.search(r"Rss:\s+(\d+)", read("/proc/%d/smaps_rollup" % pid)).group(1)) * 1024


def cpu_seconds(pid):
    total = 0
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            total += int(read("/proc/%d/task/%s/schedstat" % (pid, task)).split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total / 1e9


def workers_for(connections):
    """Workers whose tables hold so many connections, which the kernel spreads by chance: six sigma above the mean."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for workers in range(len(os.sched_getaffinity(0)), 4096):
        mean = connections / workers
        if mean + 6 * math.sqrt(mean) < limit - 256 - 4 * workers:
            return workers
    sys.exit("a limit of %d descriptors is too low for %d connections" % (limit, connections))


# ---- a run ----------------------------------------------------------------------------------------------------------

class Run:
    def __init__(self, args):
        self.args = args
        self.count = args.connections
        self.workers = args.workers or workers_for(self.count + 101)
        self.files = tempfile.TemporaryDirectory()
        self.samples = []
        self.result = {"connections_wanted": self.count, "driver": args.driver, "mode": args.mode,
                       "hold_s": args.hold, "workers": self.workers, "kernel": os.uname().release,
                       "cpus": len(os.sched_getaffinity(0)),
                       "descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[1]}

    def path(self, name):
        return os.path.join(self.files.name, name)

    def start_server(self):
        command = [self.args.program, "serve", "--bind", ADDRESS, "--driver", self.args.driver, "--own-fd-table",
                   "--workers", str(self.workers), "--max-connections", str(self.count + 1000)]
        self.log = open(self.path("server.log"), "w+")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        if not server.stdout.readline().startswith("listening on"):
            sys.exit("the server did not start:\n" + read(self.path("server.log")))
        return server

    def start_load(self):
        args, json_file = self.args, self.path("load.json")
        common = ["--driver", args.driver, "-d", "%dms" % (args.hold * 1000), "--json", json_file,
                  "--server-pid", str(self.server.pid)]
        if args.mode == "idle":
            command = ["idle", "ws://%s/echo" % ADDRESS, "-c", str(self.count)]
        else:
            command = ["fanout", "ws://%s/topics?topic=all" % ADDRESS, "--subscribers", str(self.count - 1),
                       "--publish-url", "ws://%s/publish?topic=all" % ADDRESS, "--warmup", "0s",
                       "-r", repr(MESSAGES / args.hold / SLACK)]
        load = subprocess.Popen([args.program, "load", *command, *common], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        self.lines, self.stands = [], threading.Event()
        threading.Thread(target=self.read_lines, args=(load.stderr,), daemon=True).start()
        return load

    def read_lines(self, stderr):
        """The first line says that connecting is over; the last ones may say what is wrong."""
        for line in stderr:
            self.lines.append(line.rstrip())
            self.stands.set()
        self.stands.set()

    def sample(self):
        memory = meminfo()
        return {"at_s": time.monotonic() - self.began, "sockets": tcp_sockets() - self.idle_sockets,
                "server_rss": rss(self.server.pid), "load_rss": rss(self.load.pid) if self.load.poll() is None else 0,
                "available": memory["MemAvailable"], "slab": memory["Slab"], "free": memory["MemFree"]}

    def connect(self):
        """Samples until all stand, or memory gets short."""
        while not self.stands.wait(1.0):
            self.samples.append(self.sample())
            if self.samples[-1]["available"] < self.args.keep_free:
                self.result["stopped"] = "less than --keep-free of memory is available"
                self.load.send_signal(signal.SIGINT)
                self.stands.wait()
        self.hold_began = time.monotonic() - 1.0  # its first line comes a second after the last connection

    def at(self, share):
        """Sleeps until so much of the hold is over; whether the load is still there."""
        wait = self.hold_began + share * self.args.hold - time.monotonic()
        try:
            self.load.wait(max(0, wait))
        except subprocess.TimeoutExpired:
            return True
        return False

    def idle_cpu(self, begin, end):
        """CPU seconds per second of server and load, while nothing but pings happens."""
        if not self.at(begin):
            return
        since, before = time.monotonic(), [cpu_seconds(pid) for pid in (self.server.pid, self.load.pid)]
        self.settled = self.sample()
        if self.at(end):
            after = [cpu_seconds(pid) for pid in (self.server.pid, self.load.pid)]
            seconds = time.monotonic() - since
            self.result["idle_cpu"] = {"seconds": seconds, "server_share": (after[0] - before[0]) / seconds,
                                       "load_share": (after[1] - before[1]) / seconds}

    def echo(self, name, begin, end):
        if not self.at(begin):
            return
        seconds = max(1, int((end - begin) * self.args.hold) - 2)
        json_file = self.path(name + ".json")
        subprocess.run([self.args.program, "load", "echo", "ws://%s/echo" % ADDRESS, *ECHO, "-d", "%ds" % seconds,
                        "--driver", self.args.driver, "--json", json_file],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        echo = json.loads(read(json_file))
        self.result[name] = {key: echo[key] for key in ("messages", "messages_per_s", "latency_us", "errors",
                                                        "unsent_messages", "lost_messages")}

    def hold(self):
        slot = SLACK / MESSAGES
        self.idle_cpu(0.45 * slot, 0.95 * slot)
        self.echo("echo_beside_pings", 1.45 * slot, 1.95 * slot)
        if self.args.mode == "fanout":
            self.echo("echo_beside_message", 1.97 * slot, 2.5 * slot)

    def close(self):
        self.load.wait()
        ended = time.monotonic()
        self.result["close_s"] = ended - self.hold_began - self.args.hold
        self.result["sockets_left"] = self.sockets_left()
        self.result["server_rss_after"] = rss(self.server.pid)
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(120)
        log = read(self.path("server.log"))
        opened, closes = re.search(r"(\d+) connections were opened, closed: (.*)", log).groups()
        self.result["server_opened"] = int(opened)
        self.result["server_closes"] = {why: int(n) for n, why in re.findall(r"(\d+) with (\d+ \(\w+\))", closes)}
        self.result["server_log"] = [line for line in log.splitlines() if " WARN " in line or " ERROR " in line]

    def sockets_left(self):
        """Connections of the server's port, after the time that those need whose client is gone."""
        for _ in range(10):
            left = connections_of(int(ADDRESS.split(":")[1]))
            if left == 0:
                break
            time.sleep(1)
        return left

    def figures(self):
        try:
            load = json.loads(read(self.path("load.json")))
        except (FileNotFoundError, ValueError):
            self.result["load_said"] = self.lines[-3:]
            return
        settled, first, count = getattr(self, "settled", None), self.first, load["connections"]
        keys = ("connections", "connections_failed", "connect_s", "threads", "source_addresses", "pings", "published",
                "messages", "latency_us", "lost_messages", "errors", "server_cpu_us_per_message")
        self.result["load"] = {key: load[key] for key in keys}
        self.result["connects_per_s"] = count / max(load["connect_s"], 1e-9)
        self.result["netdev_dropped"] = softnet_dropped() - self.dropped
        self.result["samples"] = self.samples
        if not settled or not count:
            return
        early = [s for s in self.samples if count / 2 <= s["sockets"] <= count] or [first]  # a quarter of both ends
        grown = lambda key, since: settled[key] - since[key]
        stood = (settled["sockets"] - early[0]["sockets"]) / 2
        self.result["per_connection"] = {
            "server_bytes": grown("server_rss", early[0]) / stood if stood > 0 else None,
            "server_bytes_from_zero": grown("server_rss", first) / count,
            "load_bytes_from_zero": grown("load_rss", first) / count,
            "kernel_slab_bytes_both_ends": grown("slab", first) / count,
        }

    def run(self):
        self.idle_sockets, self.dropped = tcp_sockets(), softnet_dropped()
        self.server = self.start_server()
        time.sleep(1)
        self.began = time.monotonic()
        self.load = self.start_load()
        try:
            self.first = self.sample()
            self.connect()
            self.samples.append(self.sample())
            self.hold()
            self.close()
        except (OSError, AttributeError, ValueError, subprocess.SubprocessError) as error:
            # A process has ended that should not have: what was measured until then is told all the same.
            said = read(self.path("server.log")).splitlines()[-3:] + self.lines[-3:]
            self.result["stopped"] = "%s: %s; %s" % (type(error).__name__, error, " | ".join(said))
        finally:
            for process in (self.load, self.server):
                process.kill()
                process.wait()
        self.figures()
        return self.result


# ---- the result -----------------------------------------------------------------------------------------------------

def is_whole(result):
    load, count = result.get("load"), result["connections_wanted"]
    whole = load and load["connections"] == count and not load["connections_failed"] and not load["errors"]
    if whole and result["mode"] == "fanout":
        whole = load["published"] == MESSAGES and load["messages"] == MESSAGES * (count - 1) and not load["lost_messages"]
    return bool(whole) and result.get("server_closes") == {"1000 (peer)": result.get("server_opened")}


def milliseconds(micros):
    return "%.1f ms" % (micros / 1e3) if micros < 1e6 else "%.2f s" % (micros / 1e6)


def rows(result):
    load = result.get("load")
    stopped = [("stopped", result["stopped"])] if "stopped" in result else []
    if not load:
        return stopped + [("the load tool said", " / ".join(result["load_said"]))]
    found = [("connections", "%d of %d" % (load["connections"], result["connections_wanted"])),
             ("failed, and why", "%d %s" % (load["connections_failed"], load["errors"] or "")),
             ("connect", "%.1f s, %.0f per second" % (load["connect_s"], result["connects_per_s"]))]
    per = result.get("per_connection")
    if per:
        slope = "%.0f B" % per["server_bytes"] if per["server_bytes"] else "unknown"
        found += [("server, user space, per connection", "%s (slope), %.0f B from zero" % (slope, per["server_bytes_from_zero"])),
                  ("load tool, user space, per connection", "%.0f B" % per["load_bytes_from_zero"]),
                  ("kernel slab per connection, both ends", "%.0f B" % per["kernel_slab_bytes_both_ends"])]
    if result["mode"] == "fanout" and load["latency_us"]:
        times = load["latency_us"]
        found.append(("a message to all (%d of them)" % load["published"],
                      "first %s, p50 %s, p99 %s, last %s; %d deliveries, %d lost; %.2f us of server CPU each (pings included)"
                      % (*(milliseconds(times[key]) for key in ("min", "p50", "p99", "max")), load["messages"],
                         load["lost_messages"], load["server_cpu_us_per_message"])))
    if "idle_cpu" in result:
        idle = result["idle_cpu"]
        found.append(("CPU while idle with pings", "server %.1f %%, load tool %.1f %% of a CPU (%.0f s)"
                      % (100 * idle["server_share"], 100 * idle["load_share"], idle["seconds"])))
    found.append(("pings answered", "%d" % load["pings"] if load["pings"] else "none was due in so short a hold"))
    for name, what in (("echo_beside_pings", "100 echo connections beside it"),
                       ("echo_beside_message", "the same while a message goes to all")):
        echo = result.get(name)
        if echo and echo["latency_us"]:
            found.append((what, "p50 %s, p99 %s, max %s (%d messages)" % (
                *(milliseconds(echo["latency_us"][key]) for key in ("p50", "p99", "max")), echo["messages"])))
    if "server_closes" in result:
        closes = ", ".join("%d with %s" % (n, why) for why, n in result["server_closes"].items())
        found.append(("close", "%.1f s; %s; %d sockets left" % (result["close_s"], closes, result["sockets_left"])))
    found.append(("packets dropped on loopback", "%d" % result["netdev_dropped"]))
    return found + stopped + [("server log", line) for line in result.get("server_log", [])]


def markdown(result):
    title = "%s, `--driver %s`, hold %.0f s, %d workers, kernel %s, %d CPUs" % (
        result["mode"], result["driver"], result["hold_s"], result["workers"], result["kernel"], result["cpus"])
    return "\n".join(["| %s | |" % title, "|---|---|"] + ["| %s | %s |" % row for row in rows(result)])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--driver", choices=("epoll", "uring"), default="epoll")
    parser.add_argument("--mode", choices=("fanout", "idle"), default="fanout")
    parser.add_argument("--hold", type=quantity, default=300.0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--keep-free", type=quantity, default=2.0**30)
    parser.add_argument("--set-sysctls", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--program", default=os.path.join(HOME, "target/release/wingbeat"))
    return parser.parse_args()


def main():
    args = arguments()
    if not os.access(args.program, os.X_OK):
        sys.exit("%s is not there: --help says how it is built" % args.program)
    available, needed = meminfo()["MemAvailable"], args.connections * BYTES_PER_CONNECTION + args.keep_free
    if available < needed:
        sys.exit("needs about %.1f GiB of memory, %.1f are available" % (needed / 2**30, available / 2**30))
    small = check_sysctls(args.connections, args.set_sysctls)
    try:
        for name, (_, wanted) in small.items():
            set_sysctl(name, wanted)
        result = Run(args).run()
    finally:
        for name, (before, _) in small.items():
            set_sysctl(name, before)
    result["whole"] = is_whole(result)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
    print(markdown(result))
    return 0 if result["whole"] else 1


sys.exit(main())
