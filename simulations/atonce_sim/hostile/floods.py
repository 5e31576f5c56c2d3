"""Packets without number: from addresses that are not the sender's, or from one."""

from collections.abc import Callable
from typing import Final

from atonce_sim.hostile.decoys import nowhere
from atonce_sim.hostile.gang import Gang, Plan
from atonce_sim.hostile.kinds import Flooder, Reflector
from atonce_sim.world import VirtualHost
from dht_atonce.codec import encode
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.sealing import NONCE_SIZE, PacketType, Sealer, key_request
from dht_atonce.dht.wire import FindNode, FindValue, Ping, Request, Store
from dht_atonce.endpoints import Address
from dht_atonce.identity import NodeKey

__all__ = ["FlooderPlan", "ReflectorPlan"]

_TICK_S: Final = 0.001
_NOISE_SIZE: Final = 58 + 16 + 40  # as large as a PING: a header, and a box that nobody sealed
_PADDED: Final = 411  # bytes of a FIND that may be answered in full


class FlooderPlan(Plan):
    """What arrives costs its victim the most; that it is answered is not wanted."""

    def __init__(self, gang: Gang, kind: Flooder) -> None:
        super().__init__(gang)
        self._kind = kind
        self._number = 0

    async def rage(self, host: VirtualHost) -> None:
        kind, contacts = self._kind, [victim.contact for victim in self.gang.victims]
        socket = host.datagrams.open(Address("0.0.0.0", 0), lambda data, source: None)  # noqa: S104
        make = self._noise if kind.packets == "noise" else self._sealed

        def send() -> None:
            self._number += 1
            contact = contacts[self._number % len(contacts)]
            data = make(contact)
            if kind.source == "own":
                socket.send(data, contact.address)
            else:
                self.gang.world.spoof(host, data, nowhere(self._number, local=self.gang.network.local), contact.address)

        await steadily(self.gang, kind.per_s, kind.for_s, send)
        socket.close()

    def _noise(self, contact: Contact) -> bytes:
        head = bytes((1, PacketType.REQUEST))
        return head + self.gang.rng.randbytes(_NOISE_SIZE - len(head))

    def _sealed(self, contact: Contact) -> bytes:
        rng = self.gang.rng
        sealer = Sealer(NodeKey.generate(rng), self.gang.network.network_id, 1, self.gang.world.cipher)
        body = encode(FindNode(0, rng.randbytes(8), 0, rng.randbytes(20), 0))
        return sealer.seal(PacketType.REQUEST, contact.key, body, rng.randbytes(NONCE_SIZE), b"", _PADDED)


class ReflectorPlan(Plan):
    """Short questions in an outsider's name. One key for each of those asked, and another for each round."""

    def __init__(self, gang: Gang, kind: Reflector) -> None:
        super().__init__(gang)
        self._kind = kind
        self._number = 0

    async def rage(self, host: VirtualHost) -> None:
        gang, contacts = self.gang, [resident.contact for resident in self.gang.honest]
        outsider = gang.outsider
        assert outsider is not None
        keys = [resident.key for resident in gang.honest]

        def send() -> None:
            self._number += 1
            contact = contacts[self._number % len(contacts)]
            data = self._question(contact, keys[self._number % len(keys)])
            gang.world.spoof(host, data, outsider, contact.address)

        await steadily(gang, self._kind.per_s, self._kind.for_s, send)

    def _question(self, contact: Contact, key: bytes) -> bytes:
        """The shortest of its kind, and each kind in turn: padded or not, with a cookie that is none or without."""
        rng, network = self.gang.rng, self.gang.network
        head = (0, rng.randbytes(8), 0)
        questions: list[tuple[Request, int]] = [
            (Ping(*head), 0),
            (FindNode(*head, key, 0), 0),
            (FindNode(*head, key, 3), _PADDED),
            (FindValue(*head, key, 0), 0),
            (FindValue(*head, key, 3), _PADDED),
            (Store(*head, b""), 0),
        ]
        choice = rng.randrange(len(questions) + 1)
        if choice == len(questions):
            return key_request(rng.randbytes(NONCE_SIZE), network.network_id)
        request, size = questions[choice]
        sealer = Sealer(NodeKey.generate(rng), network.network_id, 1, self.gang.world.cipher)
        cookie = rng.choice((b"", rng.randbytes(16)))
        return sealer.seal(PacketType.REQUEST, contact.key, encode(request), rng.randbytes(NONCE_SIZE), cookie, size)


async def steadily(gang: Gang, per_s: float, for_s: float, send: Callable[[], None]) -> None:
    """Call `send` so often, evenly, for so long."""
    owed = 0.0
    for _ in range(round(for_s / _TICK_S)):
        owed += per_s * _TICK_S
        while owed >= 1:
            owed -= 1
            send()
        await gang.pause(_TICK_S)
