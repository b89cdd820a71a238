#!/usr/bin/env python3
"""Scaling: two workers against one under the same load, and what a publication between two workers costs.

    benches/scaling.py [--pairs 11] [--seconds 0.5] [--only workers,across] [--driver epoll,uring] [--json FILE]

Prints Markdown: medians with the 95 % interval of a seeded bootstrap. About four minutes. Nothing else may run
meanwhile. benches/latency.md says more.

Two cores are too few to show two workers beside a client: the client has core 1, and either both workers share core 0,
which shows what the second costs when it brings nothing, or the second has core 1 with the client. Nothing spins.

`across`: one publisher on the first worker, one subscriber that the kernel puts on either worker (SO_REUSEPORT). The
script sees by the CPU time of the second worker where it is, and compares the two cases. Wake-ups are the writes to
eventfds that strace counts in a run of its own; without strace that column is empty.

Build first:  cargo build --release --features cli     (or name the program in WINGBEAT)
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

from common import (CLIENT_CORE, SERVER_CORE, WINGBEAT, Server, cpu_s, load, median, milliseconds, ratio, spread,
                    table, thread_named, warn_if_busy)

CONNECTIONS = 100
RATE = 40_000
BURSTS = (1, 16)
SECOND = "wingbeat-1"  # the thread of the second worker
APART = {SECOND: CLIENT_CORE}
TOGETHER = {SECOND: SERVER_CORE}
# The subscriber is on the second worker if that has used this part of the server's CPU time.
PART = 0.15
STRACE = ["strace", "-f", "-y", "--seccomp-bpf", "-e", "trace=write", "-e", "signal=none", "-o"]
# Name: workers, where the second one is. The first is what the others are compared with.
PLACES = {
    "1 worker": (1, TOGETHER),
    "2 workers on one core": (2, TOGETHER),
    "2 workers, the second on the client's core": (2, APART),
}
ECHO = ["echo", "ws://{0}/echo", "-c", str(CONNECTIONS), "--payload", "20", "--warmup", "200ms"]


def serve(driver, workers, *binds):
    command = [WINGBEAT, "serve", "--workers", str(workers), "--driver", driver, "--spin-us", "0"]
    return [*command, *[part for bind in binds for part in ("--bind", bind)]]


def workers(driver, _, arguments):
    """One worker and two at a fixed rate, and as fast as it goes."""
    kept = {}
    duration = ["-d", milliseconds(arguments.seconds)]
    for what, paced in (("%d/s, open loop" % RATE, ["-r", str(RATE)]), ("one in flight each", [])):
        runs = {name: [] for name in PLACES}
        for _ in range(arguments.pairs):
            for name, (count, places) in PLACES.items():
                with Server(serve(driver, count, "127.0.0.1:0"), places=places) as server:
                    runs[name].append(load([*ECHO, *paced, *duration], server, spins=False))
        kept[what] = runs
        show_workers("Echo over %d connections, %s: %s" % (CONNECTIONS, what, driver), runs)
    return kept


def show_workers(title, runs):
    base, rows = next(iter(runs.values())), []
    for name, reports in runs.items():
        def ratios(key):
            values = [ratio(mine[key], its[key]) for mine, its in zip(reports, base)]
            return "1" if reports is base else spread(values)
        rows.append([
            name, "%.0f" % median([report["messages_per_s"] for report in reports]), ratios("messages_per_s"),
            "%.2f" % median([report["server_cpu_us_per_message"] for report in reports]),
            ratios("server_cpu_us_per_message"), "%.2f" % median([report["server_cpu_share"] for report in reports]),
            "%.0f" % median([report["latency_us"]["p50"] for report in reports]),
            "%.0f" % median([report["latency_us"]["p99"] for report in reports])])
    head = ["server", "messages/s", "ratio (95 %)", "server CPU us per message", "ratio (95 %)", "CPUs", "p50 us",
            "p99 us"]
    table(title, head, rows)


def fanout(burst, seconds, warmup):
    """Only the first worker listens on a Unix socket."""
    command = ["fanout", "ws://{1}/topics?topic=t", "--publish-url", "ws+{0}:/publish?topic=t"]
    return [*command, "--subscribers", "1", "-p", str(burst), "-d", milliseconds(seconds), "--warmup", warmup]


def deliver(server, burst, seconds, warmup="100ms"):
    """The report of a run, and whether its subscriber was on the second worker."""
    first, second = (thread_named(server.pid, name) for name in ("wingbeat-0", SECOND))
    before = cpu_s(server.pid, first), cpu_s(server.pid, second)
    report = load(fanout(burst, seconds, warmup), server, spins=False)
    used = cpu_s(server.pid, first) - before[0], cpu_s(server.pid, second) - before[1]
    return report, used[1] > PART * sum(used)


def until_both(run, count):
    """Runs until there are so many of either kind: those with the subscriber on the first worker, on the second."""
    kinds = {False: [], True: []}
    for _ in range(20 + 6 * count):
        report, across = run()
        if len(kinds[across]) < count:
            kinds[across].append(report)
        if all(len(reports) == count for reports in kinds.values()):
            return kinds[False], kinds[True]
    sys.exit("all subscribers come to one worker")


def across(driver, folder, arguments):
    kept, rows = {}, []
    binds = "unix:" + os.path.join(folder, driver), "127.0.0.1:0"
    for burst in BURSTS:
        with Server(serve(driver, 2, *binds), places=APART, listeners=2) as server:
            same, other = until_both(lambda: deliver(server, burst, arguments.seconds), arguments.pairs)
        wakes = count_wakes(driver, binds, folder, burst, arguments.seconds)
        for name, reports, wake in (("the publisher's", same, wakes[0]), ("the other", other, wakes[1])):
            added = [mine["latency_us"]["p50"] - its["latency_us"]["p50"] for mine, its in zip(reports, same)]
            rows.append([
                "%d in flight" % burst, name, "%.0f" % median([report["messages_per_s"] for report in reports]),
                *["%.1f" % median([report["latency_us"][key] for report in reports]) for key in ("p50", "p99")],
                "-" if reports is same else spread(added, 1),
                "%.2f" % median([report["server_cpu_us_per_message"] for report in reports]), wake])
        kept[burst] = {"same": same, "other": other, "wakes": wakes}
    head = ["publications", "worker of the subscriber", "deliveries/s", "p50 us", "p99 us", "added to p50, us (95 %)",
            "server CPU us per delivery", "wakes per delivery"]
    table("Publications from one worker to one subscriber: %s" % driver, head, rows)
    return kept


def count_wakes(driver, binds, folder, burst, seconds):
    """Wakes per delivery, with the subscriber on the publisher's worker and on the other."""
    if not shutil.which("strace"):
        return "", ""
    log = os.path.join(folder, "%s.%d" % (driver, burst))
    with Server(serve(driver, 2, *binds), places=APART, listeners=2, through=[*STRACE, log]) as server:
        def run():
            before = eventfd_writes(log)
            report, is_across = deliver(server, burst, seconds, "1ms")
            return (eventfd_writes(log) - before) / report["messages"], is_across
        same, other = until_both(run, 1)
    return "%.3f" % same[0], "%.3f" % other[0]


def eventfd_writes(log):
    with open(log) as file:
        return sum("[eventfd]" in line for line in file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11, help="runs of each kind")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each run")
    parser.add_argument("--only", default="workers,across")
    parser.add_argument("--driver", default="epoll,uring")
    parser.add_argument("--json", help="where to write every run")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) <= CLIENT_CORE:
        sys.exit("it takes two cores")
    warn_if_busy()
    kept = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.only.split(","):
            for driver in arguments.driver.split(","):
                run = {"workers": workers, "across": across}[part]
                kept[part + " " + driver] = run(driver, folder, arguments)
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(kept, out)


main()
