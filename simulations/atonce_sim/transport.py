"""What code gets that opens its datagram endpoints through the loop, as asyncio's users do: a transport over a virtual
socket."""

import asyncio
from collections.abc import Callable
from typing import Any

from dht_atonce.datagrams import DatagramNet, DatagramSocket
from dht_atonce.endpoints import Address

__all__ = ["VirtualTransport", "open_endpoint"]


class VirtualTransport(asyncio.DatagramTransport):
    """Addresses are (ip, port), and the protocol is called as asyncio calls it."""

    def __init__(self, datagrams: DatagramNet, local: Address, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._socket: DatagramSocket = datagrams.open(local, self._on_datagram)

    def _on_datagram(self, data: bytes, source: Address) -> None:
        if not self._closing:
            self._protocol.datagram_received(data, (source.ip, source.port))

    def sendto(self, data: Any, addr: Any | None = None) -> None:
        if not self._closing and addr is not None:
            self._socket.send(bytes(data), Address(addr[0], addr[1]))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._socket.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return tuple(self._socket.address) if name == "sockname" else default


async def open_endpoint(
    datagrams: DatagramNet, protocol_factory: Callable[[], Any], local_addr: tuple[str, int]
) -> tuple[VirtualTransport, Any]:
    """`create_datagram_endpoint` of the host whose datagrams these are. Raises `PortInUse`."""
    protocol = protocol_factory()
    transport = VirtualTransport(datagrams, Address(*local_addr), protocol)
    asyncio.get_running_loop().call_soon(protocol.connection_made, transport)
    await asyncio.sleep(0)
    return transport, protocol
