"""A profile: what of a peer or a seed survives a restart.

- `identity.key`: the identity's secret seed, 32 B; the one file that must never be lost or shown.
- `node.key`: the DHT node's secret, 32 B.
- `messages.db`: durable messages, an SQLite database that is made when the first of them comes or goes.
- `state`: contacts, network, ports, incarnations as msgpack; written often, and losing it costs a visit to a seed.
- what a feature keeps, in a file of its own.
"""

import itertools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from dht_atonce.codec import Bytes8, Bytes32, WireStruct, decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.disk import Disk, MemoryDisk
from dht_atonce.endpoints import pack_address, unpack_address
from dht_atonce.errors import ProfileError, WireError
from dht_atonce.host import Host
from dht_atonce.identity import Identity, NodeKey

__all__ = ["Profile", "State"]

MAX_CONTACTS = 200
_MAX_INCARNATIONS = 8
_IDENTITY, _NODE_KEY, _STATE = "identity.key", "node.key", "state"

Port = Annotated[int, Meta(ge=0, le=0xFFFF)]


class _SavedNetwork(WireStruct, frozen=True):
    name: str
    authority_key: bytes
    k: int
    local: bool
    record_life_s: int


class _SavedState(WireStruct, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    network: _SavedNetwork | None
    udp_ports: Annotated[list[Port], Meta(min_length=2, max_length=2)]
    tcp_port: Port
    contacts: Annotated[list[tuple[Bytes32, bytes]], Meta(max_length=MAX_CONTACTS)]
    incarnations: Annotated[list[Bytes8], Meta(max_length=_MAX_INCARNATIONS)]


_STATE_DECODER = msgspec.msgpack.Decoder(_SavedState)


@dataclass(slots=True)
class State:
    """What is written while we run."""

    network: NetworkConfig | None = None
    udp_ports: tuple[int, int] = (0, 0)
    """IPv4, IPv6: tried first at the next start."""
    tcp_port: int = 0
    contacts: tuple[Contact, ...] = ()
    incarnations: tuple[bytes, ...] = ()
    """The latest one first."""


class Profile:
    """An opened profile; whoever opens it owns it until `close`."""

    def __init__(self, disk: Disk, host: Host, *, is_lasting: bool = True) -> None:
        self.disk = disk
        self.is_lasting = is_lasting
        """False: all of it is gone with the process."""
        self._host = host
        self.is_new = disk.read(_IDENTITY) is None
        self.identity = Identity(self._secret(_IDENTITY))
        self.node_key = NodeKey(self._secret(_NODE_KEY))
        self.state = self._read_state()
        self._written = b""
        self._writing = threading.Lock()
        self._saves = itertools.count(1)
        self._last_save = 0

    @classmethod
    def open(cls, folder: Path | str | None, host: Host) -> "Profile":
        """The profile in `folder`, made if it is new; None: one that is gone with the process.

        Raises `ProfileError`, `ProfileInUse`.
        """
        disk: Disk = MemoryDisk() if folder is None else host.disk(Path(folder).expanduser())
        try:
            return cls(disk, host, is_lasting=folder is not None)
        except BaseException:
            disk.close()
            raise

    def begin_run(self) -> bytes:
        """A new incarnation, remembered with the last ones."""
        incarnation = self._host.rng.randbytes(8)
        self.state.incarnations = (incarnation, *self.state.incarnations)[:_MAX_INCARNATIONS]
        return incarnation

    async def save(self) -> None:
        """Write the state, if it has changed, without holding up the loop. Raises `ProfileError`."""
        data = self._encoded()
        if data == self._written:
            return
        number = next(self._saves)

        def write() -> None:
            # A save that was cancelled goes on in its thread; it must not replace what a later one wrote.
            with self._writing:
                if number > self._last_save:
                    self.disk.write(_STATE, data)
                    self._last_save = number

        await self._host.offload.run(write)
        self._written = data

    def read(self, name: str) -> bytes | None:
        """A feature's file; None if there is none. Raises `ProfileError`."""
        return self.disk.read(name)

    async def write(self, name: str, data: bytes) -> None:
        """Replace a feature's file, without holding up the loop. One at a time. Raises `ProfileError`."""
        await self._host.offload.run(lambda: self.disk.write(name, data))

    def close(self) -> None:
        """Let others have the profile."""
        self.disk.close()

    def _secret(self, name: str) -> bytes:
        data = self.disk.read(name)
        if data is None:
            data = self._host.rng.randbytes(32)
            self.disk.write(name, data)
        if len(data) != 32:
            raise ProfileError(
                f"the profile's {name} is damaged: it has {len(data)} bytes instead of 32; restore it from a backup, "
                "or delete it to begin anew under another key"
            )
        return data

    def _read_state(self) -> State:
        data = self.disk.read(_STATE)
        if data is None:
            return State()
        try:
            saved = decode(_STATE_DECODER, data)
            return State(
                NetworkConfig(*msgspec.structs.astuple(saved.network)) if saved.network is not None else None,
                (saved.udp_ports[0], saved.udp_ports[1]),
                saved.tcp_port,
                tuple(Contact(key, unpack_address(address)) for key, address in saved.contacts),
                tuple(saved.incarnations),
            )
        except (WireError, ValueError):
            raise ProfileError(
                f"the profile's file {_STATE!r} is damaged; delete it: the identity is kept, saved contacts are lost"
            ) from None

    def _encoded(self) -> bytes:
        state, network = self.state, self.state.network
        saved = None
        if network is not None:
            saved = _SavedNetwork(network.name, network.authority_key, network.k, network.local, network.record_life_s)
        contacts = [(contact.key, pack_address(contact.address)) for contact in state.contacts[:MAX_CONTACTS]]
        return encode(_SavedState(1, saved, list(state.udp_ports), state.tcp_port, contacts, list(state.incarnations)))
