"""What a node answers: the explicit table of operations.

No sending, no clock: each handler takes a request and gives a reply.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from dht_atonce.config import NetworkConfig
from dht_atonce.datagrams import MAX_DATAGRAM
from dht_atonce.dht.contact import KEY_SIZE, Contact
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.storage import RecordStore
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    FLAG_UNSURE,
    MAX_CONTACTS,
    MAX_PAGE,
    MIN_CONTACTS_BESIDE_RECORD,
    FindMembers,
    FindNode,
    FindValue,
    Found,
    Members,
    NeedCookie,
    Noted,
    NoteOutcome,
    Notify,
    Ping,
    Pong,
    Refusal,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    StoreOutcome,
    Watch,
    Watching,
)
from dht_atonce.endpoints import Family, subnet
from dht_atonce.errors import RecordError
from dht_atonce.records import RecordParser

__all__ = ["Asked", "Granted", "Operations"]

_FOUND_OVERHEAD: Final = 58 + 16 + 3 + 72  # header, MAC, prefix, and a FOUND body without contacts and record
_WATCHING_OVERHEAD: Final = 58 + 16 + 3 + 72  # the same of a WATCHING, without outcomes and records
_MEMBERS_OVERHEAD: Final = _FOUND_OVERHEAD + 5 + 9  # with `total` and `next`, in place of the record's header
_CONTACT_SIZE: Final = {Family.IPV4: 40, Family.IPV6: 52}  # with its two bytes of msgpack
_CHEAP_TOPIC: Final = 100  # members; to put a thousand in order takes 2 ms, which nobody gets for a forged address
_TURNS: Final = 4  # of the contacts in a reply, so many stand for three times as many, each node names others of them
_FARTHER: Final = 8
_PACKED: Final = attrgetter("packed")
_PARTS: Final = 3
_OTHER: Final = {Family.IPV4: Family.IPV6, Family.IPV6: Family.IPV4}

Head = tuple[int, bytes, int, bytes, bytes, int]
"""How each reply begins."""


class Asked(msgspec.Struct, frozen=True):
    """A request as it came."""

    request: Request
    sender: Contact
    proved: bool
    """The sender's address is proved by a cookie."""
    cookie: bytes
    """What the reply hands out, maybe nothing."""
    room: int
    """Bytes that the reply's datagram may have."""


class Granted(NamedTuple):
    """What became of a request to watch; the fields of WATCHING."""

    lease_s: int
    outcomes: bytes
    records: list[bytes]


@cache
def _turns(first: int, count: int) -> list[int]:
    """Which of `count` contacts a node names whose turn begins with `first`: there are three, and they name others."""
    turn = range(first, count, _PARTS)
    others = [at for at in range(count) if at not in turn]
    return sorted([*turn, *others][:_TURNS])


class Operations:
    """Answers requests from a routing table (and that of the other family) and a store."""

    def __init__(
        self,
        family: Family,
        routers: dict[Family, RoutingTable],
        store: RecordStore,
        parser: RecordParser,
        network: NetworkConfig,
        counters: Counter[str],
        *,
        no_seat: bool,
        stores: bool,
    ) -> None:
        self._family = family
        self._contact_size = _CONTACT_SIZE[family]
        self._routers = routers
        self._store = store
        self._parser = parser
        self._network = network
        self._counters = counters
        self._flags = FLAG_NO_SEAT if no_seat else 0
        self._stores = stores
        self.on_watch: Callable[[Contact, Watch, int, float], Granted] | None = None
        """Grants watches to a sender whose address is proved; told how many bytes there are for records, and Unix
        seconds. None: nobody can watch here."""
        self.on_notify: Callable[[Notify, float], bool] | None = None
        """Hears what is pushed to us, and Unix seconds; gives whether it is watched, and raises `RecordError`."""

    def answer(self, asked: Asked, wall: float) -> Reply:
        """The reply to a request; `wall` is Unix seconds."""
        request = asked.request
        head = (
            0,
            request.request_id,
            self._flags,
            asked.cookie,
            asked.sender.packed[KEY_SIZE:],
            int(wall * 1000),
        )
        match request:
            case Ping():
                return Pong(*head)
            case FindNode():
                return self._found(asked, head, request.target, request.want, b"")
            case FindValue():
                record = self._store.live(request.key, wall)
                if record is not None and not self._is_responsible(request.key):
                    # We were given it before so many came who are nearer to it: its owner does not tell us any more.
                    head = (*head[:2], self._flags | FLAG_UNSURE, *head[3:])
                return self._found(asked, head, request.key, request.want, record.blob if record is not None else b"")
            case Store():
                return self._stored(asked, head, request.record, wall)
            case Watch():
                return self._watching(asked, head, request, wall)
            case Notify():
                return self._noted(head, request, wall)
            case FindMembers():
                return self._members(asked, head, request, wall)

    def _found(self, asked: Asked, head: Head, target: bytes, want: int, record: bytes) -> Found | NeedCookie:
        room = asked.room - _FOUND_OVERHEAD - len(record)
        if record and room < 0:
            # An old cookie and no padding: to leave the record out would say that there is none.
            return NeedCookie(*head)
        return Found(*head, *self._contacts(asked, target, want, room), record)

    def _members(self, asked: Asked, head: Head, request: FindMembers, wall: float) -> Members | NeedCookie:
        roster = self._store.roster(request.key) if self._is_responsible(request.key) else None
        if roster is not None and (asked.room < MAX_DATAGRAM or (not asked.proved and len(roster) > _CHEAP_TOPIC)):
            # As above: a page that is cut short would say that the rest is not there.
            return NeedCookie(*head)
        room = asked.room - _MEMBERS_OVERHEAD
        if roster is None:
            return Members(*head, *self._contacts(asked, request.key, request.want, room), 0, 0, [])
        is_first = request.start == 0
        beside = MIN_CONTACTS_BESIDE_RECORD * self._contact_size if is_first else 0
        page, following = roster.page(request.seed, request.start, wall, room=room - beside, most=MAX_PAGE)
        records = [record.blob for record in page]
        contacts: tuple[list[bytes], list[bytes]] = [], []
        if is_first:
            room -= sum(len(blob) + 3 for blob in records)
            contacts = self._contacts(asked, request.key, request.want, room)
        return Members(*head, *contacts, roster.live_count, following, records)

    def _contacts(self, asked: Asked, target: bytes, want: int, room: int) -> tuple[list[bytes], list[bytes]]:
        """Those nearest to `target` that fit into `room`: of our family, and of the other if it is asked for."""
        long_target = int.from_bytes(target, "big")
        if not want:  # nearly always
            count = min(MAX_CONTACTS, room // self._contact_size)
            return self._nearest(self._family, long_target, count, asked.sender), []
        others: list[bytes] = []
        other = _OTHER[self._family]
        if want & other and other in self._routers:
            own_share = MIN_CONTACTS_BESIDE_RECORD * self._contact_size
            count = min(MAX_CONTACTS // 2, min(room // 2, room - own_share) // _CONTACT_SIZE[other])
            others = self._nearest(other, long_target, count, asked.sender)
            room -= len(others) * _CONTACT_SIZE[other]
        count = min(MAX_CONTACTS, room // self._contact_size)
        return self._nearest(self._family, long_target, count, asked.sender), others

    def _is_responsible(self, key: bytes) -> bool:
        router = self._routers[self._family]
        return router.is_responsible(router.node.long_id, int.from_bytes(key, "big"))

    def _nearest(self, family: Family, target: int, count: int, sender: Contact) -> list[bytes]:
        if count <= 0:
            return []
        router = self._routers[family]
        nearest = router.find_neighbors(target, count + _FARTHER, exclude=sender.id)
        if len(nearest) > count > 2 * _TURNS:
            # If all near the target named the same sixteen, nobody would hear of the k nearest beyond them.
            sure = count - _TURNS
            rest = nearest[sure:]
            nearest[sure:] = [rest[at] for at in _turns(router.node.long_id % _PARTS, len(rest))]
        return list(map(_PACKED, nearest[:count]))

    def _stored(self, asked: Asked, head: Head, blob: bytes, wall: float) -> Reply:
        if not asked.proved:
            return NeedCookie(*head)
        if not self._stores:
            return Refused(*head, Refusal.NOT_HERE)
        try:
            record = self._parser.parse(blob, wall)
        except RecordError as error:
            self._counters[f"record.{error.reason}"] += 1
            return Refused(*head, Refusal.BAD_RECORD)
        source = b"" if self._network.local else subnet(asked.sender.ip)
        keeping = self._store.keep(record, wall, source)
        if keeping.newer is not None:
            return Stored(*head, StoreOutcome.NEWER_HELD, keeping.newer.blob)
        if keeping.passed_over:
            return Stored(*head, StoreOutcome.PASSED_OVER, b"")
        if not keeping.kept:
            return Refused(*head, Refusal.FULL)
        if keeping.changed:
            self._counters["dht.stored"] += 1
        return Stored(*head, StoreOutcome.STORED, b"")

    def _watching(self, asked: Asked, head: Head, request: Watch, wall: float) -> Reply:
        if not asked.proved:
            return NeedCookie(*head)
        if not self._stores or self.on_watch is None:
            return Refused(*head, Refusal.NOT_HERE)
        room = asked.room - _WATCHING_OVERHEAD - len(request.watches)
        return Watching(*head, *self.on_watch(asked.sender, request, room, wall))

    def _noted(self, head: Head, request: Notify, wall: float) -> Reply:
        try:
            is_watched = self.on_notify is not None and self.on_notify(request, wall)
        except RecordError as error:
            self._counters[f"record.{error.reason}"] += 1
            return Refused(*head, Refusal.BAD_RECORD)
        return Noted(*head, NoteOutcome.NOTED if is_watched else NoteOutcome.NOT_WATCHED)
