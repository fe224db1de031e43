"""Sends every message of a WebSocket back. Prints its port once it listens."""

import asyncio

import websockets


async def echo(connection):
    try:
        async for message in connection:
            await connection.send(message)
    except websockets.ConnectionClosed:
        # By a code that stands for an error.
        pass


async def main():
    # The library compresses messages where the client agrees.
    options = {"subprotocols": ["chat"], "max_size": None}
    async with websockets.serve(echo, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
