"""False records, none at all, and far too many: forgers, hoarders, stuffers."""

import msgspec

from atonce_sim.hostile.gang import Gang, Plan
from atonce_sim.hostile.kinds import Forger, Hoarder, Stuffer
from atonce_sim.hostile.rogues import Rogue
from atonce_sim.keyspace import as_long
from dht_atonce.dht.operations import Asked
from dht_atonce.dht.wire import MIN_CONTACTS_BESIDE_RECORD, FindValue, Found, Reply, Store
from dht_atonce.identity import Identity
from dht_atonce.records import PresenceRecord, ValueRecord, value_key

__all__ = ["ForgerPlan", "HoarderPlan", "StufferPlan"]

_WAYS = ("tampered", "signed-by-us", "other-key", "old", "noise")
_SIGNATURE = slice(2, 66)  # of a record, docs/wire.md section 2
_BURST_S = 0.05  # between two bursts of puts


class ForgerPlan(Plan):
    """Each answer another forgery, or always the same kind. What the gang was given is all that it has to start from;
    where it has nothing of a key, it gives a record of another key."""

    def __init__(self, gang: Gang, kind: Forger) -> None:
        super().__init__(gang)
        self._ways = _WAYS if kind.gives == "any" else (kind.gives,)
        self._identity = Identity.generate(gang.rng)

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        if isinstance(asked.request, Store) and asked.proved:
            return me.taken(asked, wall)
        reply = me.honest(asked, wall)
        if not isinstance(asked.request, FindValue) or not isinstance(reply, Found):
            return reply
        if reply.record:
            self.gang.on_record(asked.request.key, reply.record)  # from when they were not awake
        record = self._forged(asked.request.key, wall)
        contacts = reply.contacts[:MIN_CONTACTS_BESIDE_RECORD]
        return msgspec.structs.replace(reply, contacts=contacts, other=[], record=record)

    def _forged(self, key: bytes, wall: float) -> bytes:
        rng, genuine = self.gang.rng, self.gang.seen.get(key)
        match rng.choice(self._ways):
            case "noise":
                return rng.randbytes(rng.randrange(1, 513))
            case "old" if genuine:
                return genuine[0]
            case "tampered" if genuine:
                spoiled = bytearray(genuine[-1])
                spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
                return bytes(spoiled)
            case "signed-by-us" if genuine:
                blob = genuine[-1]
                said = b"atonce record v1" + blob[1:2] + self.gang.network.network_id + blob[_SIGNATURE.stop :]
                return blob[: _SIGNATURE.start] + self._identity.sign(said) + blob[_SIGNATURE.stop :]
            case _:
                return self._of_another_key(wall)

    def _of_another_key(self, wall: float) -> bytes:
        """Genuine, and of our own."""
        record = PresenceRecord.sign(
            self._identity, self.gang.network, seq=1 << 62, incarnation=bytes(8), expires=int(wall) + 600
        )
        return record.blob


class HoarderPlan(Plan):
    """Nobody can tell it from a node that was never given anything."""

    def __init__(self, gang: Gang, kind: Hoarder | Stuffer) -> None:
        super().__init__(gang)

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        if isinstance(asked.request, Store) and asked.proved:
            return me.taken(asked, wall)
        reply = me.honest(asked, wall)
        return msgspec.structs.replace(reply, record=b"") if isinstance(reply, Found) else reply


class StufferPlan(HoarderPlan):
    """Fills the stores round the aimed key, or round a victim's id. What it is given itself it hoards: it is near
    too."""

    def __init__(self, gang: Gang, kind: Stuffer) -> None:
        super().__init__(gang, kind)
        self._kind = kind
        self.put = 0
        """Records that were handed in so far."""

    async def act(self, me: Rogue) -> None:
        gang, kind = self.gang, self._kind
        identity = Identity.generate(gang.rng)
        centres = [aim.key for aim in gang.aims] or [victim.node_id for victim in gang.victims]
        centre = centres[gang.members.index(me) % len(centres)]
        by_distance = sorted(gang.honest, key=lambda resident: as_long(resident.node_id) ^ as_long(centre))
        contacts = [resident.contact for resident in by_distance[: kind.nodes]]
        for contact in contacts:
            me.protocol.ping(contact, lambda _: None)  # for their cookies
        await gang.pause(2.0)
        for number in range(kind.puts):
            for contact in contacts:
                # Nearer to each of them than the key is: the farthest goes first.
                record = self._record(identity, contact.id, number)
                me.protocol.store(contact, record, lambda _: None)
                self.put += 1
            await gang.pause(1 / kind.per_s)

    def _record(self, identity: Identity, centre: bytes, number: int) -> bytes:
        """Under a name that was tried for until its key lies near the centre."""
        network, shift = self.gang.network, 160 - self._kind.grind
        wanted, tried = as_long(centre) >> shift, 0
        while as_long(value_key(network, identity.id, name := f"{number} {tried}")) >> shift != wanted:
            tried += 1
        expires = int(self.gang.world.wall) + network.record_life_s
        record = ValueRecord.sign(
            identity, network, seq=1, incarnation=bytes(8), expires=expires, name=name, value=bytes(300)
        )
        return record.blob
