"""Keeps records where they belong as neighbours come and go: hands them to newcomers and to whoever takes the place of
one that is gone, and forgets what is none of our business any more."""

from collections.abc import Callable

from dht_atonce.dht.contact import Contact
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.handoff import SCAN, HandOff, NearKeys
from dht_atonce.dht.own import OwnRecords
from dht_atonce.dht.protocol import Answer
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import Stored, StoreOutcome
from dht_atonce.endpoints import Family
from dht_atonce.errors import RecordError
from dht_atonce.memo import Memo
from dht_atonce.records import AnyRecord

__all__ = ["Replicas"]

_LAST = b"\xff" * 32  # no identity comes after it
_FAR = 2  # times k nearer ones: a record has no business with us even if half of them die at once
_MAX_WENT = 1024  # nodes of which we remember that they went; the latest


class Replicas:
    """Of one node, in all families."""

    __slots__ = ("_hand_off", "_near", "_own", "_own_id", "_servers", "_shared", "_shed_from", "_turns", "_went")

    def __init__(self, shared: Shared, servers: dict[Family, FamilyServer], own: OwnRecords) -> None:
        self._shared = shared
        self._servers = servers
        self._own = own
        self._own_id = int.from_bytes(shared.node_key.id, "big")
        self._hand_off = HandOff(shared.config)
        self._near: dict[Family, NearKeys] = {}
        self._shed_from = 0
        # Of whoever is handed the members of a topic, one after another: the identity that it got last
        self._turns: dict[tuple[Contact, bytes], bytes] = {}
        # Ids of those who lost their seats
        self._went: Memo[bytes, bool] = Memo(_MAX_WENT)

    # --- inputs ---

    def on_seated(self, contact: Contact) -> bool:
        """`contact` newly got a seat. Whether there is something for it."""
        keys = self._keys_for(contact, self._servers[contact.address.family].router)
        self._hand_off.on_seated(contact, keys)
        return bool(keys)

    def on_gone(self, contact: Contact) -> None:
        """`contact` lost its seat: of each record that it ought to have had, and that we are to look after, the k-th
        nearest now takes its place (Kademlia section 2.5 republishes each hour instead)."""
        family, k = contact.address.family, self._shared.network.k
        router = self._servers[family].router
        self._went.put(contact.id, True)
        for key in self._near_keys(family).look(self._shared.store, router):
            target = int.from_bytes(key, "big")
            if router.count_nearer(target, contact.long_id, k) >= k:
                continue
            nearest = router.find_neighbors(target, k - 1)  # and we
            if len(nearest) == k - 1:
                self._hand_off.add(nearest[-1], key)

    def hand_over(self, now: float) -> None:
        """Store what is to be handed over by now."""
        for contact, key in self._hand_off.take(now, self._pick):
            record = self._next_for(contact, key, self._shared.wall())
            server = self._servers.get(contact.address.family)
            if record is None or server is None:
                continue
            self._shared.counters["dht.handed_off"] += 1
            server.protocol.store(contact, record.blob, self._on_handed(contact, record))

    def deadline(self, now: float) -> float | None:
        """When `hand_over` has something to do again; None: not before the next newcomer."""
        return self._hand_off.deadline(now)

    def shed(self) -> None:
        """Forget records and topics that many others are nearer to, some of them at each call: we would not be told of
        newer ones."""
        store, routers = self._shared.store, [server.router for server in self._servers.values()]
        most = _FAR * self._shared.network.k
        keys = store.keys(self._shed_from)[:SCAN]
        kept = 0
        for key in keys:
            target = int.from_bytes(key, "big")
            far = all(
                router.count_nearer(target, self._own_id, most) >= most
                and not router.is_responsible(self._own_id, target)
                for router in routers
            )
            if far and key not in self._own:
                store.forget(key)
                self._shared.counters["dht.shed"] += 1
            else:
                kept += 1
        self._shed_from = self._shed_from + kept if len(keys) == SCAN else 0

    # --- inside ---

    def _near_keys(self, family: Family) -> NearKeys:
        if family not in self._near:
            # The newcomer may be nearer than we are, and then sits there already.
            self._near[family] = NearKeys(self._own_id, self._shared.config.handoff_senders + 1)
        return self._near[family]

    def _keys_for(self, contact: Contact, router: RoutingTable) -> list[bytes]:
        """The keys of all records that `contact` may be to have; most contacts are to have none."""
        store, wanting = self._shared.store, self._own.wanting()
        bits = (contact.long_id ^ self._own_id).bit_length()
        if bits > store.reach_bits and router.count_within(self._own_id, bits - 1) >= self._shared.network.k:
            # All our records lie on our side of the tree, and so do k others: nobody has to look at each of them.
            return wanting
        is_back, few = self._went.get(contact.id), self._shared.config.handoff_senders
        if is_back or store.count > SCAN or self._shared.network.k <= few:
            return store.keys()  # looked at a few at a time
        return self._pick(contact, wanting + self._near_keys(contact.address.family).look(store, router))

    def _pick(self, contact: Contact, keys: list[bytes]) -> list[bytes]:
        """The keys whose record we are to hand to `contact`: it is among the k nearest, and we are one of the nearest
        holders; and our own, until there are k of them.

        All whose business a record is hand it to one that went and is back. Where two networks grow together those who
        are nearer than we are went too, and have yet to hear what is new themselves.
        """
        router = self._servers[contact.address.family].router
        wanting = set(self._own.wanting())
        is_live = router.is_live(contact)
        return [key for key in keys if key in wanting or (is_live and self._is_for(router, contact, key))]

    def _is_for(self, router: RoutingTable, contact: Contact, key: bytes) -> bool:
        own_id, target = self._own_id, int.from_bytes(key, "big")
        k, senders = self._shared.network.k, self._shared.config.handoff_senders
        if self._went.get(contact.id) and router.is_responsible(own_id, target):
            senders = k  # who is not may hold what is old
        nearer = router.count_nearer(target, own_id, senders + 1)
        if contact.long_id ^ target < own_id ^ target:
            nearer -= 1  # the newcomer itself
        return min(nearer, k - 1) < senders and router.count_nearer(target, contact.long_id, k) < k

    def _next_for(self, contact: Contact, key: bytes, wall: float) -> AnyRecord | None:
        """What `contact` is handed of `key` now: its record, or of a topic one member after another, while other keys
        have their turn between them; only our own membership if it is not to be a holder."""
        roster, at = self._shared.store.roster(key), self._turns.pop((contact, key), None)
        if roster is None:
            return self._shared.store.live(key, wall)
        if at is None and not self._is_for(self._servers[contact.address.family].router, contact, key):
            own = self._own.get(key)
            return own.record if own is not None else None
        record = roster.following(at or b"", wall)
        if record is not None:
            self._turns[contact, key] = record.peer_id.key
            self._hand_off.again(contact, key)
        return record

    def _on_handed(self, contact: Contact, record: AnyRecord) -> Callable[[Answer | None], None]:
        def on_answer(answer: Answer | None) -> None:
            if answer is None and (contact, record.key) in self._turns:
                self._turns[contact, record.key] = _LAST  # it is gone: the others need not be sent in vain
            if answer is None or not isinstance(answer.reply, Stored):
                return
            if answer.reply.outcome == StoreOutcome.NEWER_HELD:
                self._on_newer(record, answer.reply.record)
                return
            own = self._own.get(record.key)
            if own is None or own.record is not record:
                return
            if answer.reply.outcome == StoreOutcome.STORED:
                self._own.on_stored(record.key, contact.id)
            elif answer.reply.outcome == StoreOutcome.PASSED_OVER:
                self._own.on_passed_over(record.key, contact.id)

        return on_answer

    def _on_newer(self, record: AnyRecord, blob: bytes) -> None:
        """Whom we handed `record` holds a newer one: where two networks grow together, either side has what is new."""
        shared = self._shared
        try:
            newer = shared.parser.parse(blob, shared.wall())
        except RecordError as error:
            shared.counters[f"record.{error.reason}"] += 1
            return
        if (newer.key, newer.peer_id) == (record.key, record.peer_id):
            shared.store.keep(newer, shared.wall())
