"""The package websockets, binary messages, neither TLS nor compression."""

import asyncio
from typing import Any

from benchmarks.messages.rival import Channel, Info, Skipped

__all__ = ["make"]


class _Websockets:
    def __init__(self, websockets: Any) -> None:
        self._websockets = websockets
        self._accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._server: Any = None

    async def listen(self) -> Info:
        serve = self._websockets.asyncio.server.serve
        self._server = await serve(self._on_accepted, "127.0.0.1", 0, compression=None)
        return {"port": self._server.sockets[0].getsockname()[1]}

    async def _on_accepted(self, connection: Any) -> None:
        self._accepted.set_result(connection)
        await connection.wait_closed()

    async def accept(self) -> Channel:
        return await self._accepted

    async def dial(self, info: Info) -> Channel:
        connect = self._websockets.asyncio.client.connect
        connection: Channel = await connect(f"ws://127.0.0.1:{info['port']}", compression=None)
        return connection


def make() -> _Websockets:
    try:
        import websockets.asyncio.client
        import websockets.asyncio.server
    except ImportError:
        raise Skipped("not installed: make bench-rivals") from None
    return _Websockets(websockets)
