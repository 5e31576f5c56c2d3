"""OpenDHT (C++), through Debian's python3-opendht: unsigned values, and its limit of requests off."""

import asyncio
from collections.abc import Callable
from typing import Any

from benchmarks.dht.rival import Rival, Skipped, make_deaf

__all__ = ["make"]


class _OpenDht(Rival):
    says_when_joined = False  # its bootstrap goes on in threads of its own
    settle_s = 3.0

    def __init__(self, opendht: Any) -> None:
        self._opendht = opendht
        self._nodes: list[Any] = []
        self._loop = asyncio.get_running_loop()
        self._kept: list[Any] = []

    async def join(self, entry: int | None) -> None:
        config = self._opendht.DhtConfig()
        config.setRateLimit(-1, -1)
        node = self._opendht.DhtRunner()
        node.run(port=0, config=config)
        self._nodes.append(node)
        if entry is not None:
            node.bootstrap("127.0.0.1", str(self._port(entry)))

    async def put(self, owner: int, number: int, value: bytes) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._nodes[owner].put(self._key(number), self._opendht.Value(value), lambda *_: self._settle(done, None))
        await done

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        done: asyncio.Future[bytes | None] = self._loop.create_future()

        def on_value(value: Any) -> bool:
            self._settle(done, value.data)
            return False

        self._nodes[node].get(self._key(number), on_value, lambda *_: self._settle(done, None))
        return await done

    async def watch(self, node: int, owner: int, number: int, heard: Callable[[], None]) -> None:
        def on_value(value: Any, expired: bool) -> bool:
            self._loop.call_soon_threadsafe(heard)
            return True

        self._kept.append(self._nodes[node].listen(self._key(number), on_value))
        await asyncio.sleep(0.1)  # it does not say when it listens

    async def silence(self, node: int) -> None:
        make_deaf(self._port(node))

    def _port(self, node: int) -> int:
        port: int = self._nodes[node].getBound().getPort()
        return port

    def _key(self, number: int) -> Any:
        return self._opendht.InfoHash.get(f"value {number}")

    def _settle(self, future: "asyncio.Future[Any]", result: object) -> None:
        """From one of its threads: the first result counts."""

        def settle() -> None:
            if not future.done():
                future.set_result(result)

        self._loop.call_soon_threadsafe(settle)


def make() -> Rival:
    """A network of `DhtRunner`s."""
    try:
        import opendht
    except ImportError:
        raise Skipped("python3-opendht is not installed (make bench-rivals)") from None
    return _OpenDht(opendht)
