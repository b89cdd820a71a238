"""PyPI's websockets as the client of an echo endpoint: client.py URL"""
import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = sys.argv[1]


def dial():
    return connect(URL, max_size=16 << 20)


async def echoed(socket, data):
    await socket.send(data)
    received = await socket.recv()
    assert type(received) is type(data), "the type of the message changed"
    assert received == data, "%d bytes came back changed" % len(data)


async def lengths():
    async with dial() as socket:
        for length in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 10 << 20):
            await echoed(socket, "a" * length)
            await echoed(socket, b"\xa5" * length)
        await echoed(socket, "κόσμε 😀 \U0010ffff" * 10_000)


async def fragments():
    async with dial() as socket:
        for size, times in ((1, 20), (7, 100), (1000, 5000)):
            text = "zwölf Boxkämpfer 😀 " * times
            await socket.send([text[at:at + size] for at in range(0, len(text), size)])
            assert await socket.recv() == text, "fragments of %d characters came back changed" % size


async def pings():
    async with dial() as socket:
        for payload in (b"", b"x", b"y" * 125):
            await asyncio.wait_for(await socket.ping(payload), 60)


async def closes():
    for code, reason in ((1000, ""), (1000, "bye"), (3000, "ädieu"), (4999, "z" * 123)):
        socket = await dial()
        await socket.close(code, reason)
        try:
            await socket.recv()
            raise AssertionError("a message after the closing handshake")
        except ConnectionClosed as closed:
            assert closed.rcvd and closed.rcvd.code == code, "the server did not answer with our code: %r" % closed.rcvd


async def many_at_once():
    async def one(who):
        async with dial() as socket:
            for n in range(50):
                await echoed(socket, "connection %d message %d" % (who, n))

    await asyncio.gather(*(one(who) for who in range(100)))


async def main():
    for part in (lengths, fragments, pings, closes, many_at_once):
        await asyncio.wait_for(part(), 300)
        print("ok", part.__name__, flush=True)


asyncio.run(main())
