#!/usr/bin/env python3
"""Writes the seeds that are made, not found: fuzz/corpus/TARGET/seed-*. Run it again after a change of the input format."""
import os
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
SERVER, CLIENT = 0, 1  # our role: bit 0 of the choices; bits 1 and 2: limits
TEXT = 8               # bit 3: the round trip sends text


def frame(opcode, payload=b"", fin=True, key=b"\x12\x34\x56\x78", length=None):
    """A frame with a minimal header; key None: unmasked."""
    size = len(payload) if length is None else length
    mask = 0x80 if key else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", size)
    if key:
        return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return head + payload


def parts(opcode, payloads, **more):
    last = len(payloads) - 1
    return b"".join(frame(opcode if i == 0 else 0, p, fin=i == last, **more) for i, p in enumerate(payloads))


def chunked(choices, chunks, data):
    return bytes([choices, len(chunks), *chunks]) + data


def seeds(target, named):
    directory = os.path.join(CORPUS, target)
    os.makedirs(directory, exist_ok=True)
    for name, data in named.items():
        with open(os.path.join(directory, "seed-" + name), "wb") as file:
            file.write(data)


MIXED = "kosme: κόσμε, 水, 😀".encode()
FRAMES = {
    "hello": chunked(SERVER, [], frame(1, b"Hello")),
    "hello-cut": chunked(SERVER | TEXT, [3, 1, 4], frame(1, b"Hello, cut in the payload") + frame(2, bytes(range(40)))),
    "client-hello": chunked(CLIENT, [2, 5], frame(1, b"Hello", key=None) + frame(1, b"x" * 200, key=None)),
    "text-in-fragments": chunked(SERVER | TEXT, [7], parts(1, [MIXED[:8], MIXED[8:9], MIXED[9:16], b"", MIXED[16:]])),
    "ping-between": chunked(SERVER, [9], frame(1, b"one ", fin=False) + frame(9, b"ping") + frame(0, b"two") + frame(10)),
    "length-16": chunked(SERVER, [100], frame(2, b"\xa5" * 300)),
    "length-64": chunked(SERVER, [255], frame(2, b"", length=70000) + b"\x01" * 600),
    "too-big": chunked(SERVER | 2, [1], frame(2, b"y" * 150, fin=False) + frame(0, b"z" * 51)),
    "too-many-fragments": chunked(SERVER | 4, [6], parts(2, [b"a"] * 6)),
    "nothing-allowed": chunked(SERVER | 6, [2], frame(1) + frame(9, b"p") + frame(1, fin=False) + frame(0)),
    "close": chunked(SERVER, [3], frame(8, b"\x03\xe8bye") + frame(1, b"after")),
    "close-empty": chunked(SERVER, [], frame(8)),
    "close-bad-code": chunked(SERVER, [1], frame(8, b"\x03\xed")),
    "close-bad-reason": chunked(SERVER, [4], frame(8, b"\x0b\xb8\xff\xfe")),
    "bad-text": chunked(SERVER, [2], frame(1, b"good \xce\xba\xe1\xbd\xb9 bad \xed\xa0\x80")),
    "cut-text": chunked(SERVER, [5], frame(1, b"\xf0\x9f\x98", fin=False) + frame(0, b"\x80") + frame(1, b"\xf0\x9f")),
    "reserved": chunked(SERVER, [], b"\xc1\x80"),
    "not-minimal": chunked(SERVER, [1], b"\x82\xfe\x00\x7d" + bytes(4)),
    "not-minimal-64": chunked(SERVER, [3], b"\x82\xff" + struct.pack(">Q", 65535) + bytes(4)),
    "too-large": chunked(SERVER, [1], b"\x82\xff\x80" + bytes(20)),
    "unmasked": chunked(SERVER, [], frame(1, b"Hello", key=None)),
    "masked": chunked(CLIENT, [], frame(1, b"Hello")),
    "long-ping": chunked(SERVER, [], frame(9, b"p" * 126)),
}

REQUEST = (b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
REQUESTS = {
    "upgrade": chunked(0, [40, 7], REQUEST + b"\r\n" + frame(1, b"with the request")),
    "upgrade-all": chunked(0, [1], REQUEST + b"Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
                           b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"),
    "plain": chunked(0, [9], b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    "post": chunked(0, [5], b"POST /x HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc"),
    "absolute": chunked(0, [5], b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
    "options": chunked(0, [5], b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "old": chunked(0, [3], b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
    "two-hosts": chunked(0, [3], b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "two-lengths": chunked(0, [3], b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
    "chunked": chunked(0, [3], b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "bare-lf": chunked(0, [3], b"GET / HTTP/1.1\nHost: a\n\n"),
    "folded": chunked(0, [3], b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
    "nul": chunked(0, [3], b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
    "large": chunked(1, [50], b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300),
    "many": chunked(1, [50], b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 9 + b"\r\n"),
    "version-8": chunked(0, [50], REQUEST.replace(b"Version: 13", b"Version: 8") + b"\r\n"),
    "short-key": chunked(0, [50], REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZQ==") + b"\r\n"),
}

RESPONSE = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
RESPONSES = {
    "accept": chunked(0, [30, 2], RESPONSE + b"\r\n" + frame(1, b"first", key=None)),
    "protocol": chunked(2, [1], RESPONSE + b"Sec-WebSocket-Protocol: superchat\r\n\r\n"),
    "unrequested-protocol": chunked(0, [9], RESPONSE + b"Sec-WebSocket-Protocol: chat\r\n\r\n"),
    "unrequested-extension": chunked(0, [9], RESPONSE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    "refused": chunked(0, [9], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "old": chunked(0, [9], b"HTTP/1.0 101 x\r\n\r\n"),
    "wrong-accept": chunked(0, [9], RESPONSE.replace(b"s3pP", b"S3pP") + b"\r\n"),
    "large": chunked(1, [50], RESPONSE + b"X: " + b"x" * 300),
}

EXTENSIONS = {
    "deflate": b"permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
    "quoted": b"a; b=\"c\" ;d , e",
    "empty-elements": b", a,, b\t,",
    "no-param": b"a;",
    "no-value": b"a; b=",
    "open-quote": b"a; b=\"c, d",
    "two-words": b"a b",
}

SUBSCRIBE, UNSUBSCRIBE, PUBLISH, WALK, CATCH_UP, CLOSE = 0, 1, 2, 5, 6, 7


def topics(joins, *operations):
    return bytes([joins]) + b"".join(bytes(operation) for operation in operations)


TOPICS = {
    "walk": topics(1, *[(SUBSCRIBE, c, 0) for c in range(5)], *[(PUBLISH, 0, 0)] * 4, (WALK, 0, 9), (WALK, 0, 15)),
    "two-topics": topics(0, (SUBSCRIBE, 0, 0), (SUBSCRIBE, 0, 1), (SUBSCRIBE, 1, 1), (PUBLISH, 0, 0), (PUBLISH, 0, 1),
                         (PUBLISH, 0, 0), (WALK, 0, 3), (PUBLISH, 0, 1), (WALK, 0, 15)),
    "leave-in-a-walk": topics(1, *[(SUBSCRIBE, c, 0) for c in range(6)], (PUBLISH, 0, 0), (PUBLISH, 0, 0), (WALK, 0, 5),
                              (UNSUBSCRIBE, 1, 0), (CLOSE, 4, 0), (SUBSCRIBE, 1, 0), (CATCH_UP, 5, 0), (WALK, 0, 15)),
    "except": topics(1, (SUBSCRIBE, 0, 0), (SUBSCRIBE, 1, 0), (PUBLISH, 0x80, 0), (PUBLISH, 0, 0), (WALK, 0, 15)),
    "limits": topics(0, *[(SUBSCRIBE, 0, t) for t in range(5)], *[(SUBSCRIBE, 1, t) for t in (4, 3, 2)],
                     *[(CLOSE, c, 0) for c in (0, 1)], (SUBSCRIBE, 2, 4), (PUBLISH, 0, 0)),
}

CONNECT, COMMAND, MISBEHAVE, END, STALL, FAULTS, ADVANCE, HANDLE, TURNS = 0, 1, 8, 9, 10, 11, 12, 13, 14
ECHO, JOIN, LEAVE, SAY, TELL, QUIT = range(6)  # what a command's second operand says, by its remainder of 6


def workers(settings, *operations):
    return bytes([1, settings]) + b"".join(bytes(operation) for operation in operations)


MEET = [(CONNECT, c, c) for c in range(6)] + [(TURNS, 0, 3)]
ALL_JOIN = [(COMMAND, c, JOIN) for c in range(6)] + [(TURNS, 0, 3)]
WORKERS = {
    "echo": workers(0, *MEET, *[(COMMAND, c | 8, ECHO + 60) for c in range(6)] * 3, (TURNS, 0, 7)),
    "echo-cut": workers(4, (FAULTS, 0, 1), *MEET, *[(COMMAND, c, ECHO + 240) for c in range(6)] * 3, (TURNS, 0, 7)),
    "publish": workers(0, *MEET, *ALL_JOIN, *[(COMMAND, c, SAY) for c in range(6)] * 2, (COMMAND, 0, ECHO),
                       (COMMAND, 1, TELL), (HANDLE, 0, 5), (COMMAND, 2, LEAVE), (TURNS, 0, 7)),
    "small-limits": workers(8, *MEET, *ALL_JOIN, *[(COMMAND, c, SAY + 120) for c in range(6)] * 5, (TURNS, 0, 7)),
    "slow": workers(8 | 4 | 1, *MEET, *ALL_JOIN, (STALL, 2, 1), *[(COMMAND, 0, SAY + 120), (TURNS, 0, 1)] * 20,
                    (STALL, 2, 0), (TURNS, 0, 7)),
    "slow-drop-oldest": workers(8 | 4 | 2, *MEET, *ALL_JOIN, (STALL, 2, 1), *[(COMMAND, 0, SAY + 120), (TURNS, 0, 1)] * 20),
    "slow-disconnect": workers(8 | 4, *MEET, *ALL_JOIN, (STALL, 2, 1), *[(COMMAND, 0, SAY + 120), (TURNS, 0, 1)] * 20),
    "bad": workers(0, *MEET, *[(MISBEHAVE, c, c) for c in range(6)], (TURNS, 0, 7)),
    "ends": workers(0, *MEET, *ALL_JOIN, *[(END, c, c) for c in range(3)], (COMMAND, 4, SAY), (COMMAND, 5, QUIT), (TURNS, 0, 7)),
    "hostile": workers(0, (FAULTS, 0, 2), *MEET, *ALL_JOIN, *[(COMMAND, c, SAY) for c in range(6)] * 6, (TURNS, 0, 7)),
    "idle": workers(0, *MEET, (ADVANCE, 0, 210), (TURNS, 0, 1), (ADVANCE, 0, 150), (TURNS, 0, 7)),
}

ENVELOPES = {
    "v2-join": b'["1","1","room:a","phx_join",{"token":"t"}]',
    "v2-heartbeat": b'[null,"2","phoenix","heartbeat",{}]',
    "v2-types": b'[7,"7",8.5e-1,["x",{}],null]',
    "v2-more": b'["1","2","t","e",5,"more",{"and":[]},null]',
    "v2-four": b'["1","2","t","e"]',
    "v2-white": b' [ "1" ,\t"2"\r\n, true, false , { "a" : [ { } , [ ] ] } ] ',
    "v2-escapes": '["\\u0031","r\\u00e9\\n","\\ud83d\\ude00","é😀\\"\\\\\\/",{"\\b\\f\\r\\t":-0.0}]'.encode(),
    "v2-half-pair": b'["1","2","\\ud800","e",{}]',
    "v2-half-pair-inside": b'["1","2","t","e",{"\\ud800":1e999}]',
    "v2-deep": b'["1","2","t","e",' + b'[{"a":' * 70 + b"1" + b"}]" * 70 + b"]",
    "v2-cut": b'["1","2","t","e",{"a":[1,2',
    "v2-bad-number": b'["1","2","t","e",01]',
    "v2-control": b'["1","2","t\n","e",{}]',
    "v2-not-utf8": b'["1","2","\xff","e",{}]',
    "v1-join": b'{"topic":"room:a","event":"phx_join","payload":{"t":1},"ref":"1"}',
    "v1-join-ref": b'{"join_ref":"1","ref":7,"event":null,"topic":[],"payload":"p"}',
    "v1-twice": b'{"topic":"old","to\\u0070ic":"new","event":"e","ref":null,"ref":"1","x":[{}],"payload":1,"payload":[2]}',
    "v1-twice-half-pair": b'{"topic":"\\udc00","topic":"t","event":"e","ref":"1","payload":1}',
    "v1-missing": b'{"topic":"t","event":"e","payload":{}}',
    "scalar": b"-1.25E+3",
    "empty": b"",
}
BINARIES = {
    "push": b"\x00\x01\x02\x06\x04728room:ablob\x09\x08\x07",
    "push-empty": b"\x00\x00\x00\x00\x00",
    "push-unicode": "\0\x02\x04\x03\0é😀€[]".encode(),
    "push-long": b"\x00\xff\xff\xff\xff" + b"x" * 1020 + b"data",
    "push-cut": b"\x00\x01\x02\x06\x04728room:abl",
    "not-utf8": b"\x00\x00\x00\x02\x00\xc3\x28",
    "cut-code-point": b"\x00\x00\x00\x01\x01\xc3\xa9",
    "reply": b"\x01\x01\x02\x06\x02728room:aok\x09\x08\x07",
    "broadcast": b"\x02\x06\x09room:abcast_bin\x01\x02\x03",
    "empty": b"",
}
BODIES = {  # 0: no content type, 1: a batch, n: a content type of n bytes
    "text": b'\x00["1","1","room:a","phx_join",{}]\n',
    "other-type": b"\x18application/json; more=1[1]\n[2]",
    "batch-named": b'\x14application/x-ndjson["1"]\r\n["2"]',
    "batch": b'\x01["1","1","room:a","phx_join",{}]\n["1","2","room:a","e",{}]\r\nAAECBgE3MnJvb206YWUJCAc=',
    "trailing-newline": b"\x01[]\n",
    "empty-items": b"\x01\n\r\n\r\r\n",
    "more-than-100": b"\x01" + b"[]\n" * 130,
    "bad-behind-100": b"\x01" + b"[]\n" * 100 + b"???",
    "padding": b"\x01QQ==\nQUI=\nQUJD",
    "bad-padding": b"\x01QQ=",
    "leftover-bits": b"\x01QR==",
    "inner-padding": b"\x01QQ==QQ==",
    "url-safe": b"\x01_-_-",
    "object": b'\x01{"topic":"t"}',
    "empty": b"",
}

PHX_JOIN, PHX_LEAVE, PUSH, HEARTBEAT, BROKEN, OUTSIDE, TIMER, JOINED, REPLIED, RECONNECT = 0, 2, 3, 6, 7, 8, 9, 10, 11, 12
HOWS = ["ok", "reply", "refuse", "panic", "later", "forgotten", "nobody", "busy"]
EVENTS = ["echo", "quiet", "later", "push", "broadcast", "broadcast_from", "broadcast and reply", "spied", "watch", "unwatch",
          "timer", "cancel", "push_to", "disconnect", "stop", "stop reply", "panic", "nobody knows this"]


def sockets(settings, *operations):
    return bytes([settings]) + b"".join(bytes(operation) for operation in operations)


def join(socket, topic, how="ok", nameless=0):
    choice = next(c for c in range(4, 8) if c % 3 == socket) if nameless else socket
    return PHX_JOIN, choice, topic + 5 * HOWS.index(how)


def push(socket, topic, event, other=0):
    choice = next(c for c in range(other << 4, (other + 1) << 4) if c % 3 == socket and c >> 2 & 3 < 2)
    return PUSH, choice, topic + 5 * EVENTS.index(event)


ALL = [join(s, t, "busy") for s in range(3) for t in range(3)]
SOCKETS = {
    "joins": sockets(0, *[join(0, t, how) for how in HOWS for t in (0, 1)], *[(JOINED, 0, 0)] * 9, *[(PHX_LEAVE, 0, t) for t in range(5)]),
    "events": sockets(0, *[o for e in EVENTS for o in (join(0, 0), join(1, 0), push(0, 0, e), (REPLIED, 0, 0))]),
    "nameless": sockets(0, *[o for e in EVENTS for o in (join(0, 0, nameless=1), push(0, 0, e))], (PHX_LEAVE, 0, 0)),
    "censored": sockets(0, *[join(s, 2) for s in range(3)], push(0, 2, "spied"), (OUTSIDE, 0, 2 + 5), *[(PHX_LEAVE, s, 2) for s in range(3)]),
    "watch": sockets(0, *ALL, *[push(0, 0, "watch", t) for t in range(5)], *[push(s, 1, "broadcast", t) for s in range(3) for t in range(5)],
                     (PHX_LEAVE, 0, 1), (OUTSIDE, 0, 1), push(0, 0, "unwatch", 1), join(0, 1), (PHX_LEAVE, 0, 0)),
    "crowded": sockets(3, *ALL, *[push(1, 0, "watch", t) for t in range(5)], push(1, 0, "panic"), *ALL),
    "timers": sockets(2, *ALL, *[push(s, t, "timer") for s in range(3) for t in range(3)], (TIMER, 0, 0), push(1, 0, "cancel"),
                      (PHX_LEAVE, 2, 1), (TIMER, 2, 0), (RECONNECT, 0, 0)),
    "ends": sockets(0, *ALL, push(0, 0, "push_to"), push(0, 0, "disconnect", 3), (OUTSIDE, 0, 3 + 10), (BROKEN, 0, 0), (HEARTBEAT, 1, 0), *ALL),
    "held": sockets(0, join(0, 0), join(0, 0, "later"), push(0, 0, "echo"), (HEARTBEAT, 0, 0), join(0, 1, "later"), (PHX_LEAVE, 0, 0),
                    (OUTSIDE, 0, 0), (JOINED, 0, 0), (JOINED, 0, 24), (HEARTBEAT, 0, 0)),
}

seeds("frame_decoder", FRAMES)
seeds("message_reader", FRAMES)
seeds("handshake_request", REQUESTS)
seeds("handshake_response", RESPONSES)
seeds("extensions", EXTENSIONS)
seeds("topic_ops", TOPICS)
seeds("worker_sim", WORKERS)
seeds("envelope_json", ENVELOPES)
seeds("envelope_binary", BINARIES)
seeds("longpoll_body", BODIES)
seeds("socket_ops", SOCKETS)
