"""Who takes seats to be in the way: sybils round a key, crowds round a victim, and those who fall silent."""

import msgspec

from atonce_sim.hostile.gang import Gang, Plan
from atonce_sim.hostile.kinds import Blackhole, Eclipse, Sybil
from atonce_sim.hostile.lies import sought
from atonce_sim.hostile.rogues import Rogue, RogueNode
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.operations import Asked
from dht_atonce.dht.wire import FindValue, Found, Ping, Reply, Store
from dht_atonce.errors import RecordError
from dht_atonce.records import RecordParser

__all__ = ["BlackholePlan", "EclipsePlan", "SybilPlan"]

_FIRST_PAUSE_S = 0.5  # between two knocks at somebody new: his answer brings the cookie that the second one shows


class SybilPlan(Plan):
    """Censors the aimed keys."""

    def __init__(self, gang: Gang, kind: Sybil) -> None:
        super().__init__(gang)

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        if isinstance(asked.request, Store):
            return self._stored(me, asked, wall)
        target = sought(asked)
        reply = me.honest(asked, wall)
        if target is None or self.gang.aim_at(target) is None or not isinstance(reply, Found):
            return reply
        # Whoever looks for the neighbourhood of a key is kept among us; the record of another key there is not hidden.
        censored = isinstance(asked.request, FindValue) and any(aim.key == target for aim in self.gang.aims)
        record = b"" if censored else reply.record
        named = self.gang.fellows(target, me, 8 if record else 16)
        return msgspec.structs.replace(reply, contacts=named, other=[], record=record)

    def _stored(self, me: Rogue, asked: Asked, wall: float) -> Reply:
        """A record of an aimed key is swallowed; others are kept, as honest nodes keep them."""
        assert isinstance(asked.request, Store)
        try:
            record = RecordParser(self.gang.network, me.host.memo).parse(asked.request.record, wall)
        except RecordError:
            return me.honest(asked, wall)
        if asked.proved and any(aim.key == record.key for aim in self.gang.aims):
            return me.taken(asked, wall)
        return me.honest(asked, wall)


class EclipsePlan(Plan):
    """Wants all seats of one table."""

    def __init__(self, gang: Gang, kind: Eclipse) -> None:
        super().__init__(gang)
        self._knocks_s = kind.knocks_s

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        target, reply = sought(asked), me.honest(asked, wall)
        if target is None or not isinstance(reply, Found):
            return reply
        return msgspec.structs.replace(reply, contacts=self.gang.fellows(target, me), other=[], record=b"")

    async def act(self, me: Rogue) -> None:
        gang = self.gang
        contacts = [victim.contact for victim in gang.victims]
        await knock(gang, me, contacts)
        while True:
            await gang.pause(_FIRST_PAUSE_S)
            await knock(gang, me, contacts)  # now with a cookie
            await gang.pause(gang.rng.uniform(0.9, 1.1) * self._knocks_s)


class BlackholePlan(Plan):
    """Asks and does not answer."""

    def __init__(self, gang: Gang, kind: Blackhole) -> None:
        super().__init__(gang)
        self._answers_pings = kind.answers == "pings"
        self._knocks_s = kind.knocks_s

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        if isinstance(asked.request, Ping) and self._answers_pings:
            return me.honest(asked, wall)
        return None

    async def act(self, me: Rogue) -> None:
        assert isinstance(me, RogueNode)
        while True:
            await self.gang.pause(self.gang.rng.uniform(0.5, 1.0) * self._knocks_s)
            await knock(self.gang, me, me.running.live_contacts(1000))


async def knock(gang: Gang, me: Rogue, contacts: list[Contact]) -> None:
    """Ask `contacts` whether they are there, one every few milliseconds; nobody waits for the answers."""
    for contact in contacts:
        me.protocol.ping(contact, lambda _: None)
        await gang.pause(0.005)
