"""A line between a client and a server of this machine, each of whose connections is slow.

So are those to a store far away: what counts there is how many of them work at once. On a free
port, which is printed:

    python -m benchmarks.line 9000 8
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Final

_MIB: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 10


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_s: float
) -> None:
    """Hand on what comes, no faster than the line is."""
    now = asyncio.get_running_loop().time
    free_s = now()
    try:
        while data := await reader.read(_PIECE_BYTES):
            free_s = max(free_s, now()) + len(data) / bytes_s
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(free_s - now())
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _connect(
    port: int, bytes_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    server = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE_BYTES)
    there, back = (reader, server[1]), (server[0], writer)
    await asyncio.gather(_carry(*there, bytes_s), _carry(*back, bytes_s))


async def _serve(port: int, bytes_s: float) -> None:
    way = partial(_connect, port, bytes_s)
    server = await asyncio.start_server(way, "127.0.0.1", 0, limit=_PIECE_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) * _MIB))
