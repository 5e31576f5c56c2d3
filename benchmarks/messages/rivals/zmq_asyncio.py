"""pyzmq's own asyncio sockets, with CURVE."""

from typing import Any

import zmq
import zmq.asyncio

from benchmarks.messages.rival import Channel, Info

__all__ = ["make"]

_HIGH_WATER_MARK = 100_000  # a ROUTER drops what is beyond it


class _Near:
    def __init__(self, dealer: Any) -> None:
        self.send = dealer.send
        self.recv = dealer.recv


class _Far:
    def __init__(self, router: Any) -> None:
        self._router = router
        self._routing_id = b""

    async def recv(self) -> bytes:
        self._routing_id, data = await self._router.recv_multipart()
        return data  # type: ignore[no-any-return]

    async def send(self, data: bytes) -> None:
        await self._router.send_multipart([self._routing_id, data])


class _ZmqAsyncio:
    def __init__(self) -> None:
        self._keys = zmq.curve_keypair()
        self._context: Any = zmq.asyncio.Context()
        self._router: Any = None

    def _socket(self, kind: int) -> Any:
        sock = self._context.socket(kind)
        sock.set_hwm(_HIGH_WATER_MARK)
        sock.curve_publickey, sock.curve_secretkey = self._keys
        return sock

    async def listen(self) -> Info:
        self._router = self._socket(zmq.ROUTER)
        self._router.curve_server = True
        self._router.bind("tcp://127.0.0.1:*")
        return {"at": self._router.last_endpoint.decode(), "key": self._keys[0].decode()}

    async def accept(self) -> Channel:
        return _Far(self._router)

    async def dial(self, info: Info) -> Channel:
        dealer = self._socket(zmq.DEALER)
        dealer.curve_serverkey = info["key"].encode()
        dealer.connect(info["at"])
        return _Near(dealer)


def make() -> _ZmqAsyncio:
    return _ZmqAsyncio()
