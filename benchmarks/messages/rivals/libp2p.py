"""py-libp2p: one stream over noise and yamux, messages with their length in front of them. It runs on trio."""

from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.messages.rival import Channel, Info, Skipped

__all__ = ["make", "run"]

_PROTOCOL = "/bench/1"


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self._stream.write(len(data).to_bytes(4, "big") + data)

    async def recv(self) -> bytes:
        while len(self._buffer) < 4 or len(self._buffer) < 4 + (size := int.from_bytes(self._buffer[:4], "big")):
            more = await self._stream.read(65_536)
            if not more:
                raise EOFError
            self._buffer += more
        data, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]
        return data


class _Libp2p:
    def __init__(self) -> None:
        self._host: Any = None
        self._accepted: Any = None

    async def _start(self) -> None:
        import libp2p
        import multiaddr
        import trio

        self._host = libp2p.new_host()
        self._accepted, send = None, None
        send, self._accepted = trio.open_memory_channel(1)

        async def on_stream(stream: Any) -> None:
            await send.send(_Stream(stream))
            await trio.sleep_forever()

        self._host.set_stream_handler(_PROTOCOL, on_stream)
        started = trio.Event()

        async def serve() -> None:
            async with self._host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
                started.set()
                await trio.sleep_forever()

        trio.lowlevel.spawn_system_task(serve)
        await started.wait()

    async def listen(self) -> Info:
        await self._start()
        return {"at": str(self._host.get_addrs()[0])}

    async def accept(self) -> Channel:
        channel: Channel = await self._accepted.receive()
        return channel

    async def dial(self, info: Info) -> Channel:
        import multiaddr
        from libp2p.peer.peerinfo import info_from_p2p_addr

        await self._start()
        peer = info_from_p2p_addr(multiaddr.Multiaddr(info["at"]))
        await self._host.connect(peer)
        return _Stream(await self._host.new_stream(peer.peer_id, [_PROTOCOL]))


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Instead of asyncio's. Raises `Skipped`."""
    try:
        import libp2p  # noqa: F401
        import trio
    except ImportError:
        raise Skipped("not installed: make bench-rivals") from None
    return trio.run(main)


def make() -> _Libp2p:
    return _Libp2p()
