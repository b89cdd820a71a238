"""PyPI's websockets as an echo server on a free port; large answers go out in fragments."""
import asyncio

from websockets.asyncio.server import serve

FRAGMENTED = 64 * 1024


async def echo(socket):
    await socket.ping(b"welcome")
    async for message in socket:
        if len(message) < FRAGMENTED:
            await socket.send(message)
        else:
            third = len(message) // 3
            await socket.send([message[:third], message[third:2 * third], message[2 * third:]])


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=16 << 20) as server:
        print("listening on %s:%d" % server.sockets[0].getsockname()[:2], flush=True)
        await server.serve_forever()


asyncio.run(main())
