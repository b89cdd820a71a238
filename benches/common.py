"""What the measuring scripts share: pinned servers and clients, medians and their intervals, Markdown.

A server runs on core 0 and the load tool on core 1. Both choose at their start, by the CPUs that they may use
(sched_getaffinity), whether there is one to spin on: a process that is pinned when it starts never spins. So what is to
spin is started on both cores and pinned once its threads exist.
"""
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WINGBEAT = os.environ.get("WINGBEAT", os.path.join(HOME, "target/release/wingbeat"))
PEERS = os.environ.get("WINGBEAT_PEERS", os.path.join(HOME, "benches/peers/target/release"))
SERVER_CORE, CLIENT_CORE = 0, 1
PATIENCE_S = 30


class Server:
    """A server that listens, on its core. Pinned from its start, unless it `spins`.

    `places` puts threads, by name, on other cores than the first.
    """

    def __init__(self, command, spins=False, places=None, listeners=1, through=()):
        must_exist(command[0])
        self.process = subprocess.Popen(
            [*through, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            preexec_fn=lambda: prepare(None if spins or places else SERVER_CORE))
        self.addresses = [self.process.stdout.readline().strip().split(" ")[-1] for _ in range(listeners)]
        if not all(self.addresses):
            sys.exit("%s does not listen" % " ".join(command))
        self.pid = child_of(self.process.pid) if through else self.process.pid
        if spins or places:
            pin(self.pid, SERVER_CORE, places or {})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The server itself, not what it may run under: that ends with it.
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


class Load:
    """A run of `wingbeat load` with one thread, on its core."""

    def __init__(self, arguments, server, nice=0, spins=True):
        must_exist(WINGBEAT)
        self.out = tempfile.NamedTemporaryFile(suffix=".json")
        command = [WINGBEAT, "load", *[part.format(*server.addresses) for part in arguments]]
        command += ["-t", "1", "--server-pid", str(server.pid), "--json", self.out.name]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: prepare(None if spins else CLIENT_CORE, nice))
        if spins:
            self.wait_for(lambda: thread_named(self.process.pid, "load-0"), "it starts no thread")
            pin(self.process.pid, CLIENT_CORE, {})

    def wait_for_connections(self, count):
        """Until it has this many descriptors."""
        folder = "/proc/%d/fd" % self.process.pid
        self.wait_for(lambda: len(os.listdir(folder)) >= count, "%d connections do not come about" % count)

    def wait_for(self, condition, complaint):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.fail(complaint)
            time.sleep(0.001)

    def fail(self, complaint):
        self.process.kill()
        sys.exit("`%s`: %s\n%s" % (" ".join(self.process.args), complaint, self.process.communicate()[1]))

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def finish(self):
        """Its report, as docs/load-json.md describes it."""
        self.process.communicate()
        text = self.out.read()
        if not text:
            self.fail("it wrote no JSON")
        report = json.loads(text)
        if report["errors"] or report.get("lost_messages"):
            self.fail("errors: %s, lost: %s" % (report["errors"], report.get("lost_messages")))
        return report


def load(arguments, server, nice=0, spins=True):
    return Load(arguments, server, nice, spins).finish()


def must_exist(program):
    if not os.access(program, os.X_OK):
        sys.exit("%s is not there: --help says how it is built" % program)


def prepare(core, nice=0):
    """In the child, before it becomes the program."""
    os.sched_setaffinity(0, {SERVER_CORE, CLIENT_CORE} if core is None else {core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if nice:
        os.nice(nice)


def pin(pid, core, places):
    """Puts every thread of a process on a core, those with a name in `places` elsewhere."""
    for task in tasks(pid):
        os.sched_setaffinity(task, {places.get(thread_name(pid, task), core)})


def tasks(pid):
    return [int(task) for task in os.listdir("/proc/%d/task" % pid)]


def thread_name(pid, task):
    with open("/proc/%d/task/%d/comm" % (pid, task)) as file:
        return file.read().strip()


def thread_named(pid, name):
    """The thread of this name, or none."""
    return next((task for task in tasks(pid) if thread_name(pid, task) == name), None)


def cpu_s(pid, task):
    """CPU seconds that a thread has used."""
    with open("/proc/%d/task/%d/schedstat" % (pid, task)) as file:
        return int(file.read().split()[0]) / 1e9


def child_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return int(file.read().split()[0])


def milliseconds(seconds):
    """As the load tool takes a time."""
    return "%dms" % round(seconds * 1000)


def interval(values):
    """The 95 % interval of the median, by a seeded bootstrap."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def ratio(mine, its):
    return mine / its if its else float("nan")


def median(values):
    return statistics.median(values)


def spread(values, digits=2):
    """Median and interval, as a cell of a table."""
    low, high = interval(values)
    return "%.*f (%.*f to %.*f)" % (digits, median(values), digits, low, digits, high)


def table(title, head, rows):
    """Prints a Markdown table; all columns but the first two are numbers."""
    print("\n## %s\n" % title)
    print("| %s |" % " | ".join(head))
    print("|%s" % "".join("---|" if at < 2 else "---:|" for at in range(len(head))))
    for row in rows:
        print("| %s |" % " | ".join(str(cell) for cell in row))
    sys.stdout.flush()


def warn_if_busy():
    """The figures are worthless beside a build or another benchmark."""
    idle, total = jiffies()
    time.sleep(0.5)
    after = jiffies()
    share = 1 - (after[0] - idle) / max(1, after[1] - total)
    if share > 0.1:
        print("the machine is not quiet: %.0f %% of its CPU time is in use" % (share * 100), file=sys.stderr)


def jiffies():
    """Idle and all jiffies of the machine."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return fields[3] + fields[4], sum(fields)
