#!/usr/bin/env python3
"""`wingbeat serve` as its users meet it. WINGBEAT names the program to test."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from websocket import BINARY, CLOSE, TEXT, Refused, WebSocket, dial, get, head_of

WINGBEAT = os.environ.get("WINGBEAT", "target/release/wingbeat")
PATIENCE_S = 30


class Server:
    """A server on a free port; `addresses` are those it says that it listens on."""

    def __init__(self, *flags, binds=("127.0.0.1:0",)):
        command = [WINGBEAT, "serve", *flags]
        for bind in binds:
            command += ["--bind", bind]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        guard = threading.Timer(PATIENCE_S, self.process.kill)
        guard.start()
        self.addresses = [self.listening() for _ in binds]
        guard.cancel()
        self.address = self.addresses[0]

    def listening(self):
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise AssertionError("%r instead of an address; log: %s" % (line, self.logged()))
        return line[len("listening on "):].strip()

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def ended(self):
        """The exit status as a shell reports it."""
        status = self.process.wait(PATIENCE_S)
        return status if status >= 0 else 128 - status

    def signalled(self, number):
        self.process.send_signal(number)
        return self.ended()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def run(*arguments):
    """Status and lines of stderr of a run that has to end by itself."""
    done = subprocess.run([WINGBEAT, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, [line for line in done.stderr.splitlines() if line.strip()]


class Flags(unittest.TestCase):
    def test_a_bad_flag_is_one_line_and_exit_2(self):
        for arguments, named in (
            (("serve", "--nonsense"), "--nonsense"),
            (("serve", "--max-message", "lots"), "lots"),
            (("serve", "--bind", "nowhere"), "nowhere"),
            (("serve", "--bind", "127.0.0.1:65536"), "127.0.0.1:65536"),
            (("serve", "--driver", "magic"), "magic"),
            (("serve", "--workers", "none"), "none"),
            (("serve", "--workers", "0"), "workers"),
            (("serve", "--slow-consumer", "shout"), "shout"),
            (("dance",), "dance"),
            (("load", "echo", "not a url"), "not a url"),
            (("load", "echo", "ws://127.0.0.1:1/", "-d", "soon"), "soon"),
        ):
            with self.subTest(arguments=arguments):
                status, lines = run(*arguments)
                self.assertEqual(status, 2, lines)
                self.assertEqual(len(lines), 1, lines)
                self.assertIn(named, lines[0])

    def test_help_is_no_error(self):
        for arguments in (("--help",), ("serve", "--help"), ("load", "--help"), ("demo", "--help"), ("--version",)):
            self.assertEqual(run(*arguments), (0, []))

    def test_a_refused_connection_is_exit_1(self):
        with socket.socket() as unused:  # bound and not listening: nobody else gets the port
            unused.bind(("127.0.0.1", 0))
            status, lines = run("load", "echo", "ws://127.0.0.1:%d/" % unused.getsockname()[1], "-c", "1", "-d", "1s")
        self.assertEqual(status, 1, lines)
        self.assertTrue(lines)

    def test_a_port_in_use_is_a_clear_line_and_exit_1(self):
        with Server() as first:
            status, lines = run("serve", "--bind", first.address)
            self.assertEqual(status, 1, lines)
            self.assertIn(first.address, lines[-1])
            self.assertEqual(get(first.address, "/healthz")[0], 200)

    def test_a_port_is_shared_when_both_ask_for_it(self):
        with Server("--reuse-port") as first, Server("--reuse-port", binds=(first.address,)) as second:
            self.assertEqual(second.address, first.address)

    def test_max_message_is_inclusive(self):
        with Server("--max-message", "1KiB") as server:
            with WebSocket(server.address, "/echo") as client:
                client.send(BINARY, bytes(1024))
                self.assertEqual(client.receive(), (BINARY, bytes(1024)))
                client.send(BINARY, bytes(1025))
                self.assertEqual(client.close_code(), 1009)

    def test_workers_and_own_descriptor_tables(self):
        for flags in (("--workers", "1"), ("--workers", "3"), ("--workers", "2", "--own-fd-table"), ("--spin-us", "0"),
                      ("--driver", "epoll"), ("--driver", "auto")):
            with self.subTest(flags=flags), Server(*flags) as server:
                clients = [WebSocket(server.address, "/echo") for _ in range(12)]
                for client in clients:
                    client.send(TEXT, b"hello")
                for client in clients:
                    with client:
                        self.assertEqual(client.receive(), (TEXT, b"hello"))
                self.assertEqual(server.signalled(signal.SIGTERM), 0)


class Listeners(unittest.TestCase):
    def test_several(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "wingbeat.sock")
            with Server(binds=("127.0.0.1:0", "127.0.0.1:0", "unix:" + path)) as server:
                self.assertEqual(len(set(server.addresses)), 3)
                self.assertEqual(server.addresses[2], "unix:" + path)
                for address in server.addresses:
                    self.assertEqual(get(address, "/healthz")[0], 200)
                    with WebSocket(address, "/echo") as client:
                        client.send(TEXT, "grüße".encode())
                        self.assertEqual(client.receive(), (TEXT, "grüße".encode()))
                self.assertEqual(server.signalled(signal.SIGTERM), 0)

    def test_topics_join_tcp_and_unix(self):
        with tempfile.TemporaryDirectory() as directory:
            with Server(binds=("127.0.0.1:0", "unix:" + os.path.join(directory, "wingbeat.sock"))) as server:
                tcp, unix = (WebSocket(address, "/topics?topic=t") for address in server.addresses)
                with tcp, unix:
                    settle(tcp, unix)
                    unix.send(TEXT, b"over the socket file")
                    self.assertEqual(tcp.receive(), (TEXT, b"over the socket file"))
                    self.assertEqual(unix.receive(), (TEXT, b"over the socket file"))

    @unittest.skipUnless(os.path.exists("/proc/net/if_inet6"), "no IPv6")
    def test_ipv6(self):
        with Server(binds=("[::1]:0",)) as server:
            self.assertTrue(server.address.startswith("[::1]:"), server.address)
            with WebSocket(server.address, "/echo") as client:
                client.send(TEXT, b"six")
                self.assertEqual(client.receive(), (TEXT, b"six"))


class Http(unittest.TestCase):
    def test_plain_requests(self):
        with Server() as server:
            self.assertEqual(get(server.address, "/healthz")[0], 200)
            self.assertEqual(get(server.address, "/nothing/here")[0], 404)
            self.assertEqual(get(server.address, "/echo")[0], 426)
            with self.assertRaises(Refused) as refused:
                WebSocket(server.address, "/nothing/here")
            self.assertEqual(refused.exception.status, 404)


class Channels(unittest.TestCase):
    def join(self, server, topic, payload):
        client = WebSocket(server.address, "/socket/websocket?vsn=2.0.0&token=0123456789abcdef")
        self.assertEqual(self.ask(client, ["1", "1", topic, "phx_join", payload])["status"], "ok")
        return client

    def ask(self, client, message):
        """The payload of the next message, which is the answer."""
        client.send(TEXT, json.dumps(message).encode())
        answer = json.loads(client.receive()[1])
        self.assertEqual(answer[1:4], [message[1], message[2], "phx_reply"])
        return answer[4]

    def test_the_page_is_whole_and_may_do_little(self):
        with Server() as server:
            with dial(server.address) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                status, headers, _ = head_of(stream)
            self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            body = get(server.address, "/")[1]
            self.assertTrue(body.startswith(b"<!doctype html>") and body.endswith(b"</html>\n"))

    def test_topics_to_measure(self):
        with Server() as server, self.join(server, "room:1", {}) as client:
            self.assertEqual(self.ask(client, ["1", "2", "room:1", "echo", {"n": 1}])["response"], {"n": 1})

    def test_a_short_token_makes_nobody_known(self):
        with Server() as server, WebSocket(server.address, "/socket/websocket?vsn=2.0.0&token=short") as client:
            answer = self.ask(client, ["1", "1", "chat:lobby", "phx_join", {"name": "Ann"}])
            self.assertEqual(answer, {"status": "error", "response": {"reason": "token"}})

    def test_the_rooms_of_strangers_are_not_topics_of_channels(self):
        # What channels would take for a broadcast, were it published to them.
        forged = b"\0\0\0\x03msg{}"
        with Server("--workers", "1") as server, self.join(server, "room:1", {}) as client:
            for path in ("/topics?topic=room:1", "/topics?topic=topics/room:1"):
                with WebSocket(server.address, path) as stranger:
                    stranger.send(TEXT, forged)
                    self.assertEqual(stranger.receive(), (TEXT, forged))
            self.assertEqual(self.ask(client, ["1", "2", "room:1", "echo", {}])["status"], "ok")


def settle(*clients):
    """Every client is subscribed, and nothing is under way: each has got what each has said. (Between publishers on
    different workers there is no order.)"""
    for number, client in enumerate(clients):
        client.send(TEXT, b"hello %d" % number)
    for client in clients:
        missing = {(TEXT, b"hello %d" % number) for number in range(len(clients))}
        while missing:
            missing.discard(client.receive())


class Topics(unittest.TestCase):
    def test_every_subscriber_gets_every_message_in_order(self):
        with Server("--workers", "2") as server:
            inside = [WebSocket(server.address, "/topics?topic=room") for _ in range(16)]
            settle(*inside)
            with WebSocket(server.address, "/topics?topic=elsewhere") as outside, \
                    WebSocket(server.address, "/publish?topic=room") as publisher:
                settle(outside)
                sent = [(TEXT, "Nachricht für %d" .encode() % n) if n % 2 else (BINARY, b"\xff\x00%d" % n)
                        for n in range(200)]
                for opcode, payload in sent:
                    publisher.send(opcode, payload)
                for client in inside:
                    self.assertEqual([client.receive() for _ in sent], sent)
                outside.send(TEXT, b"alone")  # nothing came before it, and nothing came to the publisher
                self.assertEqual(outside.receive(), (TEXT, b"alone"))
                publisher.send(CLOSE, b"\x03\xe8")
                self.assertEqual(publisher.close_code(), 1000)
            for client in inside:
                client.stream.close()

    def test_the_sender_gets_its_own(self):
        with Server() as server, WebSocket(server.address, "/topics?topic=mirror") as client:
            client.send(BINARY, b"me too")
            self.assertEqual(client.receive(), (BINARY, b"me too"))

    def test_names_are_percent_decoded(self):
        with Server() as server:
            plain = WebSocket(server.address, "/topics?topic=caf%C3%A9%20x")
            other = WebSocket(server.address, "/topics?topic=%63%61f%c3%a9%20%78")
            with plain, other:
                settle(plain, other)
                other.send(TEXT, b"same name")
                self.assertEqual(plain.receive(), (TEXT, b"same name"))

    def test_bad_names_are_400(self):
        with Server() as server:
            for endpoint in ("/topics", "/publish"):
                for query in ("", "?", "?topic", "?topic=", "?other=x", "?topic=" + "n" * 256, "?topic=%zz", "?topic=%4"):
                    with self.subTest(endpoint=endpoint, query=query), self.assertRaises(Refused) as refused:
                        WebSocket(server.address, endpoint + query)
                    self.assertEqual(refused.exception.status, 400)
                for name in ("n" * 255, "%6e" * 255):
                    WebSocket(server.address, "%s?topic=%s" % (endpoint, name)).stream.close()


class SlowConsumers(unittest.TestCase):
    MESSAGES, SIZE = 3_000, 8 * 1024  # more than the kernel's buffers of both ends hold, each far below the high watermark

    def flood(self, policy):
        """What a subscriber that slept through a flood still gets: message numbers, and how it ended."""
        with Server("--slow-consumer", policy) as server:
            slow = WebSocket(server.address, "/topics?topic=flood")
            quick = WebSocket(server.address, "/topics?topic=flood")
            settle(slow, quick)
            with slow, quick:
                for number in range(self.MESSAGES):
                    quick.send(BINARY, number.to_bytes(4, "big") + bytes(self.SIZE - 4))
                    self.assertEqual(int.from_bytes(quick.receive()[1][:4], "big"), number)
                numbers = []
                try:
                    quick_done = (self.MESSAGES).to_bytes(4, "big")
                    slow.stream.settimeout(3)
                    while True:
                        opcode, payload = slow.receive()
                        if opcode == CLOSE:
                            return numbers, int.from_bytes(payload[:2], "big")
                        numbers.append(int.from_bytes(payload[:4], "big"))
                except TimeoutError:  # everything that was kept is read: what comes now arrives again
                    slow.stream.settimeout(PATIENCE_S)
                    quick.send(BINARY, quick_done)
                    self.assertEqual(slow.receive(), (BINARY, quick_done))
                    return numbers, None
                except (EOFError, ConnectionResetError):
                    return numbers, 1006

    def test_disconnect(self):
        numbers, code = self.flood("disconnect")
        self.assertIn(code, (1013, 1006))  # the Close is behind what the kernel holds, or the deadline was first
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertLess(len(numbers), self.MESSAGES)

    def test_drop_newest(self):
        numbers, code = self.flood("drop-newest")
        self.assertIsNone(code)
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(numbers[0], 0)
        self.assertLess(len(numbers), self.MESSAGES)

    def test_drop_oldest(self):
        numbers, code = self.flood("drop-oldest")
        self.assertIsNone(code)
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(numbers[-1], self.MESSAGES - 1)
        self.assertLess(len(numbers), self.MESSAGES)


class Ending(unittest.TestCase):
    def test_a_signal_drains_with_1012_and_exit_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number), Server() as server, WebSocket(server.address, "/echo") as client:
                client.send(TEXT, b"before")
                self.assertEqual(client.receive(), (TEXT, b"before"))
                server.process.send_signal(number)
                self.assertEqual(client.close_code(), 1012)
                client.send(CLOSE, (1012).to_bytes(2, "big"))
                self.assertEqual(server.ended(), 0)

    def test_a_second_signal_ends_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number), Server() as server, WebSocket(server.address, "/echo") as client:
                server.process.send_signal(number)
                self.assertEqual(client.close_code(), 1012)  # not answered: the drain would wait for us
                self.assertEqual(server.signalled(number), 128 + number)

    def test_stdout_holds_nothing_else(self):
        with Server() as server:
            self.assertEqual(get(server.address, "/healthz")[0], 200)
            self.assertEqual(server.signalled(signal.SIGTERM), 0)
            self.assertEqual(server.process.stdout.read(), "")


if __name__ == "__main__":
    unittest.main()
