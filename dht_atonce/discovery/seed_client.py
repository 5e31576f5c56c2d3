"""The newcomer's side of the seed handshake."""

import asyncio
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig, checked_network
from dht_atonce.dht.contact import Contact, unpack_contact
from dht_atonce.discovery.seed_wire import (
    Authenticate,
    Challenge,
    ChallengeBody,
    Hello,
    Nope,
    NopeCode,
    Ok,
    SeedMessage,
    body_decoder,
    message_decoder,
    sign_authenticate,
    verify_challenge,
)
from dht_atonce.endpoints import Address, Family, SeedUrl, is_local, unpack_address
from dht_atonce.errors import EntryFailed, LinkError, LinkRefused, NetworkMismatch, WireError
from dht_atonce.host import Host
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.links import Link, LinkNet

__all__ = ["SeedSays", "SeedSession"]

_LOOPBACK = ("127.0.0.1", "::1")
_SECOND_DIAL_S = 0.5


@dataclass(frozen=True, slots=True)
class SeedSays:
    """What a seed told us, under its signature."""

    network: NetworkConfig
    you: Address
    """Ourselves as the seed sees us; the port means nothing."""
    node: Contact | None
    """The seed's DHT node in the family by which we reached it, if it has one there."""
    other_node: Contact | None
    """The same in the other family, as far as can be told: a guess that may not answer."""
    time_s: float
    """The seed's Unix time when it answered."""


class SeedSession:
    """One handshake with one seed: `async with SeedSession.open(…) as session`."""

    def __init__(self, url: SeedUrl, ips: list[str], link: Link, identity: Identity, timeout_s: float) -> None:
        self.url = url
        self._ips = ips
        self.says: SeedSays
        self._link = link
        self._identity = identity
        self._timeout_s = timeout_s
        self._body = b""
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=8)
        link.start(self._on_frame, lambda _: self._on_frame(None))

    @classmethod
    async def open(
        cls,
        url: SeedUrl,
        host: Host,
        links: LinkNet,
        identity: Identity,
        network: NetworkConfig | None,
        timeout_s: float,
    ) -> Self:
        """Dial the seed and hear its challenge.

        Raises `EntryFailed`, which says what the seed or the network answered, and `NetworkMismatch`.
        """
        ips = await host.resolver.resolve(url.host)
        link = await cls._dial(url, ips, links, timeout_s)
        session = cls(url, ips, link, identity, timeout_s)
        try:
            session.says = await session._challenge(network)
        except BaseException:
            link.close()
            raise
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    async def authenticate(self, node_key: NodeKey, record: bytes) -> list[Contact]:
        """Prove who we are, after our node proved its address to the seed's; gives the live contacts, maybe none."""
        network = self.says.network
        signature = sign_authenticate(self._identity, network.network_id, self.url.peer_id, node_key.public, self._body)
        self._link.send(encode(Authenticate(0, node_key.public, record, signature)))
        reply = await self._receive()
        if not isinstance(reply, Ok):
            raise EntryFailed("the seed answered out of turn")
        contacts = []
        for raw, family in [(raw, Family.IPV4) for raw in reply.ipv4] + [(raw, Family.IPV6) for raw in reply.ipv6]:
            with contextlib.suppress(WireError):
                contacts.append(unpack_contact(raw, family, local=network.local))
        return contacts

    @staticmethod
    async def _dial(url: SeedUrl, ips: list[str], links: LinkNet, timeout_s: float) -> Link:
        if not ips:
            raise EntryFailed(f"the name {url.host} is not known; check it, and the network")
        answer = ""
        for ip in ips:
            address = Address(ip, url.port)
            try:
                try:
                    return await links.dial(address, url.peer_id.curve_key, timeout_s)
                except LinkRefused:
                    # A machine that stood still for seconds breaks a handshake off just as another key does.
                    await asyncio.sleep(_SECOND_DIAL_S)
                    return await links.dial(address, url.peer_id.curve_key, timeout_s)
            except LinkRefused:
                answer = "holds another key than its seed URL says; check the URL with its operator"
            except LinkError as error:
                answer = answer or f"does not answer ({error})"
        raise EntryFailed(answer)

    async def _challenge(self, network: NetworkConfig | None) -> SeedSays:
        self._link.send(encode(Hello(0, network.name if network else "")))
        reply = await self._receive()
        if not isinstance(reply, Challenge):
            raise EntryFailed("the seed answered out of turn")
        if not verify_challenge(self.url.peer_id, self._identity.id.curve_key, reply):
            raise EntryFailed("the seed could not prove its identity; check the seed URL with its operator")
        try:
            body = decode(body_decoder, reply.body)
            offered = self._network(body)
            you = unpack_address(body.you)
        except WireError as error:
            raise EntryFailed(f"the seed's challenge cannot be read ({error}); is it of a newer version?") from None
        if network is not None and (offered.name, offered.authority_key) != (network.name, network.authority_key):
            raise NetworkMismatch(f"the seed serves the network {offered.name!r}, not {network.name!r}")
        self._body = reply.body
        return SeedSays(offered, you, self._node(body), self._other_node(body), body.time_ms / 1000)

    def _network(self, body: ChallengeBody) -> NetworkConfig:
        remote = self._link.remote
        # A seed on the Internet shall not make us believe that private addresses are fine.
        local = body.local and remote is not None and is_local(remote.ip)
        return checked_network(body.network, body.authority_key, body.k, local, body.record_life_s)

    def _node(self, body: ChallengeBody) -> Contact | None:
        remote = self._link.remote
        if remote is None:
            return None
        port = body.udp_ports[0 if remote.family is Family.IPV4 else 1]
        return Contact(body.node_key, Address(remote.ip, port)) if port else None

    def _other_node(self, body: ChallengeBody) -> Contact | None:
        """By the seed's name, which may have addresses of both families; who listens on one loopback address may on the
        other."""
        remote = self._link.remote
        if remote is None:
            return None
        ips = [*self._ips, *(_LOOPBACK if remote.ip in _LOOPBACK else ())]
        for address in (Address(ip, 0) for ip in ips):
            port = body.udp_ports[0 if address.family is Family.IPV4 else 1]
            if address.family is not remote.family and port:
                return Contact(body.node_key, Address(address.ip, port))
        return None

    async def _receive(self) -> SeedMessage:
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await self._inbox.get()
        except TimeoutError:
            raise EntryFailed("the seed stopped answering") from None
        if data is None:
            raise EntryFailed("the seed closed the connection")
        try:
            message = decode(message_decoder, data)
        except WireError:
            raise EntryFailed("the seed's answer cannot be read; is it of a newer version?") from None
        if isinstance(message, Nope) and message.code == NopeCode.OTHER_NETWORK:
            raise NetworkMismatch(f"the seed said no: {message.reason}")
        if isinstance(message, Nope):
            raise EntryFailed(f"the seed said no: {message.reason}")
        return message

    def _on_frame(self, data: bytes | None) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # a seed says two things; more is its own affair
            self._inbox.put_nowait(data)
