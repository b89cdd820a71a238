#!/usr/bin/env python3
"""What channels cost: server CPU per reply and per delivered broadcast, beside a raw epoll echo.

    benches/channels.py [--pairs 11] [--seconds 1] [--only reply-100,...] [--driver epoll] [--json FILE]

Each run is a fresh server on core 0 and `wingbeat load` with one thread on core 1. A run of the raw echo (100
connections, one message in flight) precedes every run of channels; the cost of channels is divided by that of its echo
and given in units of an echo of 3.9 us, so that the machine's mood cancels. Median over the pairs, with the 95 %
interval of a bootstrap. A goal is reached when the interval touches it. Nothing else may run meanwhile.

Build first:  cargo build --release --features cli  &&  (cd benches/peers && cargo build --release --bin raw-epoll)
"""
import argparse
import json
import os
import statistics

from common import PEERS, WINGBEAT, Server, interval, load

RAW = os.path.join(PEERS, "raw-epoll")
ECHO_US = 3.9  # what the raw echo costs on the machine for which the goals were set

# Name: goal in us, arguments of `load channels`.
CASES = {
    "reply-100": (5.3, ["-c", "100"]),
    "reply-1000": (7.6, ["-c", "1000"]),
    "broadcast-1000": (3.7, ["-c", "1000", "--traffic", "broadcast"]),
    "broadcast-10000": (5.0, ["-c", "10000", "--traffic", "broadcast"]),
    "broadcast-1000x8": (0.9, ["-c", "1000", "--traffic", "broadcast", "-p", "8"]),
    "broadcast-10000x8": (1.2, ["-c", "10000", "--traffic", "broadcast", "-p", "8"]),
}


def cost(server, arguments):
    """Server CPU per message in us, and the whole report."""
    with Server(server) as running:
        report = load([*arguments, "--warmup", "500ms"], running, spins=False)
    return report["server_cpu_us_per_message"], report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--seconds", default="1")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--driver", default="epoll", help="of the server with channels")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    duration = ["-d", arguments.seconds + "s"]
    raw = [RAW, "--bind", "127.0.0.1:0"]
    ours = [WINGBEAT, "serve", "--bind", "127.0.0.1:0", "--workers", "1", "--driver", arguments.driver]
    kept = {}
    print("%-18s %8s %18s %6s %9s %9s  %s" % ("case", "us", "95 %", "goal", "raw us", "p50 us", "share"))
    for name in arguments.only.split(","):
        goal, traffic = CASES[name]
        runs = []
        for _ in range(arguments.pairs):
            echo, _ = cost(raw, ["echo", "ws://{0}/", "-c", "100", "--payload", "20", *duration])
            mine, report = cost(ours, ["channels", "ws://{0}/socket", *traffic, *duration])
            runs.append((mine / echo * ECHO_US, echo, report["latency_us"]["p50"], report["server_cpu_share"]))
        scaled = [run[0] for run in runs]
        low, high = interval(scaled)
        echo, p50, share = (statistics.median(run[at] for run in runs) for at in (1, 2, 3))
        verdict = "reached" if low <= goal else "NOT reached"
        print("%-18s %8.2f [%7.2f,%7.2f] %6.1f %9.2f %9.0f  %.2f %s"
              % (name, statistics.median(scaled), low, high, goal, echo, p50, share, verdict), flush=True)
        kept[name] = runs
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(kept, out)


main()
