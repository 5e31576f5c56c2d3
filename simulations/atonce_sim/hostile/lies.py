"""False contacts: liars, and those who send everybody to an outsider."""

import msgspec

from atonce_sim.hostile.gang import Gang, Plan
from atonce_sim.hostile.kinds import Liar, Redirect
from atonce_sim.hostile.rogues import Rogue
from dht_atonce.dht.contact import KEY_SIZE
from dht_atonce.dht.operations import Asked
from dht_atonce.dht.wire import MAX_CONTACTS, FindNode, FindValue, Found, Reply, Store
from dht_atonce.endpoints import Address, pack_address

__all__ = ["LiarPlan", "RedirectPlan", "sought"]

_WAYS = ("dead", "moved", "fellows", "nothing")


def sought(asked: Asked) -> bytes | None:
    """The id or key that a request is about; None if it looks for nothing."""
    match asked.request:
        case FindNode(target=target):
            return target
        case FindValue(key=key):
            return key
        case _:
            return None


class LiarPlan(Plan):
    """Each answer another lie, or always the same."""

    def __init__(self, gang: Gang, kind: Liar) -> None:
        super().__init__(gang)
        self._ways = _WAYS if kind.names == "any" else (kind.names,)
        self._clock_ms = round(kind.clock_s * 1000)

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        target = sought(asked)
        if isinstance(asked.request, Store) and asked.proved:
            return self._late(me.taken(asked, wall))
        reply = me.honest(asked, wall)
        if target is None or not isinstance(reply, Found):
            return self._late(reply)
        contacts = self._contacts(me, reply, target)
        return self._late(msgspec.structs.replace(reply, contacts=contacts, other=[], record=b""))

    def _late(self, reply: Reply) -> Reply:
        if not self._clock_ms:
            return reply
        return msgspec.structs.replace(reply, time_ms=max(0, reply.time_ms + self._clock_ms))

    def _contacts(self, me: Rogue, honest: Found, target: bytes) -> list[bytes]:
        gang = self.gang
        match gang.rng.choice(self._ways):
            case "dead":
                return gang.decoys.dead(target, MAX_CONTACTS)
            case "moved":
                return [contact[:KEY_SIZE] + gang.decoys.address() for contact in honest.contacts]
            case "fellows":
                return gang.fellows(target, me)
            case _:
                return []


class RedirectPlan(Plan):
    """Whatever is looked for, it is at the outsider's."""

    def __init__(self, gang: Gang, kind: Redirect) -> None:
        super().__init__(gang)

    def answer(self, me: Rogue, asked: Asked, wall: float) -> Reply | None:
        target, reply = sought(asked), me.honest(asked, wall)
        outsider = self.gang.outsider
        if target is None or outsider is None or not isinstance(reply, Found):
            return reply
        keys = self.gang.decoys.nearest(target, MAX_CONTACTS)
        # Honest nodes ask one of them per reply and address: a port of its own for each makes no difference to that,
        # and all the difference to who counts by address and port.
        contacts = [key + pack_address(Address(outsider.ip, outsider.port + at)) for at, key in enumerate(keys)]
        self.gang.rng.shuffle(contacts)
        return msgspec.structs.replace(reply, contacts=contacts, other=[], record=b"")
