#!/usr/bin/env python3
"""Latency: at a fixed rate beside uWebSockets, with and without a large publish; and of one connection that spins.

    benches/latency.py [--pairs 11] [--seconds 1] [--rate 20000] [--only steady,publish,spin] [--json FILE]

Prints Markdown. In each round every server runs once, fresh, under the same load, in turn (A B C A B C); ratios are
taken within a round. Median over the rounds, with the 95 % interval of a seeded bootstrap. About five minutes. The
server has core 0, the clients core 1. Nothing else may run meanwhile, no build, no test. It needs the right to raise a
priority. benches/latency.md says more.

Build first:  cargo build --release --features cli
              (cd benches/peers && cargo run --release -- --quick --only echo --peers uws)   # builds uWebSockets
(or name the program in WINGBEAT, and the folder of the program `uws` in WINGBEAT_PEERS).
"""
import argparse
import json
import os
import sys
import time

from common import (CLIENT_CORE, PEERS, WINGBEAT, Load, Server, interval, load, median, milliseconds, ratio, spread,
                    table, warn_if_busy)

CONNECTIONS = 100
SUBSCRIBERS = 10_000
NICE = -10  # of the client that measures: it shares its core with the one of the subscribers
GOAL_SPIN_US = 45
TOPIC = "ws://{0}/topics?topic=all"


def ours(driver, spin_us):
    return [WINGBEAT, "serve", "--bind", "127.0.0.1:0", "--workers", "1", "--driver", driver, "--spin-us", str(spin_us)]


UWS = [os.path.join(PEERS, "uws"), "--bind", "127.0.0.1:0"]
# Name: command, whether it spins. The first of a load is what the others are compared with.
BLOCKING = {
    "uWebSockets": (UWS, False),
    "wingbeat, epoll": (ours("epoll", 0), False),
    "wingbeat, io_uring": (ours("uring", 0), False),
}
SPINNING = {
    "wingbeat, epoll, spins 50 us": (ours("epoll", 50), True),
    "wingbeat, io_uring, spins 50 us": (ours("uring", 50), True),
}
ALONE = {name: server for name, server in [*BLOCKING.items(), *SPINNING.items()] if name != "uWebSockets"}


def echo(server, arguments, connections, rate=None):
    paced = ["-r", str(rate)] if rate else []
    command = ["echo", "ws://{0}/echo", "-c", str(connections), "--payload", "20", *paced]
    return [*command, "-d", milliseconds(arguments.seconds), "--warmup", "300ms"], server


def steady(server, arguments):
    return load(*echo(server, arguments, CONNECTIONS, arguments.rate), nice=NICE)


def beside_publish(server, arguments):
    """The same, while a publish per second goes to subscribers on connections of their own."""
    command = ["fanout", TOPIC, "-r", "1", "--subscribers", str(SUBSCRIBERS), "--warmup", "1ms", "-d", "600s"]
    crowd = Load(command, server, spins=False)
    crowd.wait_for_connections(SUBSCRIBERS)
    time.sleep(0.3)  # the last of them still shake hands
    report = load(*echo(server, arguments, CONNECTIONS, arguments.rate), nice=NICE)
    crowd.interrupt()
    report["deliveries"] = crowd.finish()["messages"]
    if not report["deliveries"]:
        sys.exit("nothing was published")
    return report


def one_connection(server, arguments):
    return load(*echo(server, arguments, 1))


def rounds(servers, run, arguments):
    """Reports by server, one per round."""
    kept = {name: [] for name in servers}
    for at in range(arguments.pairs):
        print("round %d of %s" % (at + 1, run.__name__), file=sys.stderr)
        for name, (command, spins) in servers.items():
            with Server(command, spins=spins) as server:
                report = run(server, arguments)
            quantiles = {key: report["latency_us"][key] for key in ("p50", "p99", "p99_9", "max")}
            kept[name].append({**quantiles, "rate": report["messages_per_s"], "share": report["server_cpu_share"],
                               "cpu_us": report["server_cpu_us_per_message"], "deliveries": report.get("deliveries")})
    return kept


def column(runs, key, digits=0):
    return "%.*f" % (digits, median([run[key] for run in runs]))


def compare(title, kept):
    """A table of every server's figures beside those of the first."""
    base = next(iter(kept.values()))
    rows = []
    for name, runs in kept.items():
        ratios = [[ratio(mine[key], its[key]) for mine, its in zip(runs, base)] for key in ("p50", "p99")]
        cells = [spread(values) if runs is not base else "1" for values in ratios]
        rows.append([name, column(runs, "rate"), column(runs, "p50", 1), cells[0], column(runs, "p99"), cells[1],
                     column(runs, "p99_9"), column(runs, "cpu_us", 1), column(runs, "share", 2)])
    head = ["server", "messages/s", "p50 us", "p50 ratio (95 %)", "p99 us", "p99 ratio (95 %)", "p99.9 us",
            "server CPU us per message", "of its core"]
    table(title, head, rows)


def judge(kept):
    rows = []
    for name, runs in kept.items():
        low, _ = interval([run["p50"] for run in runs])
        verdict = "-" if "spins" not in name else "reached" if low <= GOAL_SPIN_US else "not reached"
        rows.append([name, column(runs, "rate"), spread([run["p50"] for run in runs], 1), column(runs, "p99"),
                     column(runs, "cpu_us", 1), column(runs, "share", 2), verdict])
    head = ["server", "messages/s", "p50 us (95 %)", "p99 us", "server CPU us per message", "of its core",
            "p50 <= %d us" % GOAL_SPIN_US]
    table("One connection, one message in flight", head, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11, help="rounds")
    parser.add_argument("--seconds", type=float, default=1, help="of each run; twice that beside a publish")
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--only", default="steady,publish,spin")
    parser.add_argument("--json", help="where to write every run")
    arguments = parser.parse_args()
    only, kept = arguments.only.split(","), {}
    if len(os.sched_getaffinity(0)) <= CLIENT_CORE:
        sys.exit("it takes two cores")
    warn_if_busy()
    what = "%d messages/s over %d connections, open loop" % (arguments.rate, CONNECTIONS)
    if "steady" in only:
        kept["steady"] = rounds({**BLOCKING, **SPINNING}, steady, arguments)
        compare(what, kept["steady"])
    if "publish" in only:
        longer = argparse.Namespace(**{**vars(arguments), "seconds": arguments.seconds * 2})
        kept["publish"] = rounds(BLOCKING, beside_publish, longer)
        compare("%s, beside a publish per second to %d subscribers" % (what, SUBSCRIBERS), kept["publish"])
    if "spin" in only:
        kept["spin"] = rounds(ALONE, one_connection, arguments)
        judge(kept["spin"])
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(kept, out)


main()
