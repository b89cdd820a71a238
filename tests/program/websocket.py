"""A WebSocket client of a hundred lines for the tests: blocking, no judgement of its own, standard library only."""
import os
import socket
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE_S = 20


def dial(address):
    """`IP:PORT`, `[IPv6]:PORT` or `unix:PATH` to a connected socket."""
    if address.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(PATIENCE_S)
        stream.connect(address[len("unix:"):])
        return stream
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S)


def head_of(stream):
    """Status and headers of a response, and the bytes that came after them."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(4096)
        if not piece:
            raise EOFError("ended within the response: %r" % data)
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
    return int(lines[0].split()[1]), headers, rest


def get(address, path):
    """Status and body of a plain GET."""
    with dial(address) as stream:
        stream.sendall(("GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % path).encode())
        status, headers, body = head_of(stream)
        while len(body) < int(headers.get("content-length", "0")):
            piece = stream.recv(4096)
            if not piece:
                break
            body += piece
        return status, body


class Refused(Exception):
    """The opening handshake was answered with another status than 101."""

    def __init__(self, status):
        super().__init__("status %d" % status)
        self.status = status


class WebSocket:
    def __init__(self, address, path):
        self.stream = dial(address)
        self.stream.sendall(("GET %s HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                             % path).encode())
        status, _, self.buffer = head_of(self.stream)
        if status != 101:
            self.stream.close()
            raise Refused(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def send(self, opcode, payload):
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65536:
            head += b"\xfe" + struct.pack(">H", length)
        else:
            head += b"\xff" + struct.pack(">Q", length)
        key = os.urandom(4)
        mask = int.from_bytes((key * (length // 4 + 1))[:length], "big")
        masked = (int.from_bytes(payload, "big") ^ mask).to_bytes(length, "big")
        self.stream.sendall(head + key + masked)

    def exactly(self, count):
        while len(self.buffer) < count:
            piece = self.stream.recv(1 << 20)
            if not piece:
                raise EOFError("ended within a frame")
            self.buffer += piece
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    def receive(self):
        """Opcode and payload of the next frame; the tests' servers send no fragments."""
        first, second = self.exactly(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack(">H", self.exactly(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.exactly(8))[0]
        return first & 0x0F, self.exactly(length)

    def close_code(self):
        """The code of the Close frame that has to come next."""
        opcode, payload = self.receive()
        assert opcode == CLOSE, "opcode %d instead of Close" % opcode
        return struct.unpack(">H", payload[:2])[0]
