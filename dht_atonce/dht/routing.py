"""The routing table: who has a seat, who waits for one, who is nearest to a key.

Kademlia (Maymounkov and Mazières 2002), sections 2.2, 2.4 and 4.2, on `kademlia`'s classes. What differs, and why:

- A seat needs proof of the address, which the caller has: only `on_proved` seats. To ask is no answer: who only asks
  may take a seat or move it, but does not seem alive by it, and does not come back to a seat that it lost by silence.
- Nothing here sends or starts a task; each input says what happened (rust-libp2p's `kbucket`).
- One lost packet evicts nobody. A *failing* contact is asked last and never passed on; it goes after three failures.
  While everybody fails, the fault is ours, and nobody's failures count.
- The k nearest are the true k nearest, found in a sorted list of ids: the smallest subtree round the target that holds
  k of them is one slice of it, and only that slice is sorted by distance.
- A seat is an index of three lists in step (id, contact, time), 24 B: a bucket is a slice of them and keeps no seats
  itself. A simulation holds thousands of tables.
- A bucket's depth and its refresh time come from its range and from our own lookups, not from its members or from
  queries.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator

from kademlia.routing import RoutingTable as StockRoutingTable

from dht_atonce.config import DhtConfig
from dht_atonce.dht.buckets import ID_BITS, KBucket, Seat, Seating
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.density import CROWDED, IDS, network_size, radius
from dht_atonce.dht.doubts import Doubts
from dht_atonce.dht.sorted_ids import count_nearer, smallest_subtree
from dht_atonce.endpoints import subnet

__all__ = ["ID_BITS", "KBucket", "RoutingTable", "Seat", "Seating"]

_SPLIT_EVERY = 5  # Kademlia section 4.2, b = 5: buckets away from us are split to depths that are multiples of it
_FEWEST = 4  # neighbours that tell anything of how many nodes there are
_UNSURE = 5  # one in so many of the k nearest to a key may be nearer than we know of
_SPARSE = 1.5  # times farther than is to be expected the k-th nearest node to a key may be
_MAX_NEWS = 4096  # of seats, that nobody fetched
_LONG_S = 60.0  # who failed for longer has missed what newcomers are told
_ALL = 1 << ID_BITS


class RoutingTable(StockRoutingTable):
    """All buckets of one node in one address family. `now` is monotonic seconds throughout.

    From kademlia: `node` (ourselves), `ksize`, `buckets`, and the meaning of `find_neighbors` and `get_bucket_for`.
    """

    buckets: list[KBucket]

    def __init__(self, own: Contact, ksize: int, config: DhtConfig, *, local: bool, now: float) -> None:
        self._config = config
        self._local = local
        self._created = now
        self._answered_at = -math.inf
        self.left = 0
        """How often a live seat was lost: its node began to fail, or it went."""
        super().__init__(None, ksize, own)

    def flush(self) -> None:
        """Forget everybody."""
        self.left += 1
        self.buckets = [KBucket(self, 0, ID_BITS, self._created)]
        self._lowers = [0]
        # All seats that are not failing, sorted by id, in step: the id, the contact, when it answered last
        self._live: list[int] = []
        self._contacts: list[Contact] = []
        self._heard = array("d")
        # Those that are, by id
        self._failing: dict[int, Seat] = {}
        self._doubts = Doubts(self._config.missing_first_s)
        self._subnets: Counter[bytes] | None = None if self._local else Counter()
        self._seated: list[Contact] = []
        self._gone: list[Contact] = []
        # Worked out when they are asked for: the distance of the k-th neighbour, the size of the network
        self._reach: int | None = None
        self._nodes: float | None = None

    # --- getters ---

    def __len__(self) -> int:
        return len(self._live) + len(self._failing)

    def __iter__(self) -> Iterator[Seat]:
        """How each seat fares at this moment."""
        yield from map(Seat, self._contacts, self._heard)
        yield from self._failing.values()

    def get_bucket_for(self, node: Contact) -> int:
        """Index of the bucket whose range holds `node`."""
        return bisect_right(self._lowers, node.long_id) - 1

    def is_new_node(self, node: Contact) -> bool:
        """Whether `node` has no seat."""
        return self._live_at(node.long_id) < 0 and node.long_id not in self._failing

    def is_live(self, contact: Contact) -> bool:
        """Whether `contact` has a seat, at this address, and is not failing."""
        at = self._live_at(contact.long_id)
        return at >= 0 and self._contacts[at].address == contact.address

    def proved_within(self, contact: Contact, span_s: float, now: float) -> bool:
        """Whether `contact` has a seat at this address and proved within `span_s` seconds that it is there."""
        at = self._live_at(contact.long_id)
        return at >= 0 and now - self._heard[at] < span_s and self._contacts[at].address == contact.address

    def seat_of(self, node_id: bytes) -> Seat | None:
        """The seat of the node with this `NodeId`, as it is at this moment."""
        long_id = int.from_bytes(node_id, "big")
        at = self._live_at(long_id)
        return Seat(self._contacts[at], self._heard[at]) if at >= 0 else self._failing.get(long_id)

    def seats_of(self, bucket: KBucket) -> list[Seat]:
        """The seats in the range of `bucket`."""
        first, last = self._span(bucket)
        return [
            *map(Seat, self._contacts[first:last], self._heard[first:last]),
            *(self._failing[long_id] for long_id in self._failing_in(bucket)),
        ]

    def count_of(self, bucket: KBucket) -> int:
        """How many seats are in the range of `bucket`."""
        first, last = self._span(bucket)
        return last - first + len(self._failing_in(bucket))

    @property
    def live_count(self) -> int:
        """How many seats are not failing."""
        return len(self._live)

    def failing(self) -> list[Contact]:
        """Those who did not answer lately, the longest failing first."""
        return [seat.contact for seat in self._failing.values()]

    def unheard(self, since: float, most: int) -> list[Contact]:
        """Up to `most` live ones that were not heard since then, the longest silent first."""
        silent = [at for at, heard in enumerate(self._heard) if heard < since]
        silent.sort(key=self._heard.__getitem__)
        return [self._contacts[at] for at in silent[:most]]

    def live_contacts(self) -> list[tuple[float, Contact]]:
        """All contacts that are not failing, and when each answered last."""
        return list(zip(self._heard, self._contacts, strict=True))

    def find_neighbors(  # type: ignore[override] # takes the id itself: no Node has to be made for it
        self, target: int, k: int | None = None, *, exclude: bytes | None = None, failing: bool = False
    ) -> list[Contact]:
        """The `k` (default: ksize) seated contacts nearest to `target` by XOR, nearest first, without the id `exclude`.

        Failing ones are left out, since they must not be passed on; with `failing` they follow behind all others.
        """
        k = k or self.ksize
        live = self._live
        first, last = smallest_subtree(live, target, k if exclude is None else k + 1)
        ids, contacts = live[first:last], self._contacts[first:last]
        if exclude is not None:
            excluded = int.from_bytes(exclude, "big")
            at = bisect_left(ids, excluded)
            if at < len(ids) and ids[at] == excluded:
                del ids[at], contacts[at]
        # The dearest step of an answer: what is done for each contact is done in C.
        distances = list(map(target.__xor__, ids))
        order = sorted(range(len(ids)), key=distances.__getitem__)
        found = list(map(contacts.__getitem__, order[:k]))
        if failing and len(found) < k and self._failing:
            broken = [seat.contact for seat in self._failing.values() if seat.contact.id != exclude]
            broken.sort(key=lambda contact: contact.long_id ^ target)
            found += broken[: k - len(found)]
        return found

    def count_within(self, target: int, bits: int) -> int:
        """How many seats that are not failing are nearer to `target` than 2 ** bits."""
        lower = target >> bits << bits
        first = bisect_left(self._live, lower)
        return bisect_left(self._live, lower + (1 << bits), first) - first

    def count_nearer(self, target: int, than: int, most: int) -> int:
        """How many seats that are not failing are nearer to `target` than the id `than` is; no more than `most` are
        counted, or a few above it."""
        return count_nearer(self._live, target, than, most)

    def is_responsible(self, long_id: int, target: int) -> bool:
        """Whether the node `long_id` (we, or one of the table) is surely one of those that the owner of `target`'s
        record stores it at.

        It is if it is so near that only somebody who chose his ids could have k nearer ones; or if it is among the
        nearest of those we know, with some room, since we need not know all who are nearer. Nobody is beyond where half
        as many again as k are to be expected, however few of them we know: tables are thin far from home.
        """
        k, distance = self.ksize, long_id ^ target
        reach = radius(self.nodes, k)
        if distance < CROWDED * reach:
            return True
        return distance < _SPARSE * reach and self.count_nearer(target, long_id, k) < k - k // _UNSURE

    @property
    def nodes(self) -> float:
        """How many nodes the network has, about, with ourselves."""
        if self._nodes is None:
            # All of the k nearest have seats, if they were met; beyond them we know some and not others.
            k = self.ksize
            self._nodes = network_size(self._live, self.node.long_id, max(_FEWEST, k // 2), k - k // _UNSURE)
        return self._nodes

    def lonely_buckets(self, now: float) -> list[KBucket]:  # type: ignore[override] # is told the time
        """Buckets in which no lookup of ours ended for `refresh_s`."""
        return [b for b in self.buckets if now - b.last_updated >= self._config.refresh_s]

    def thin_buckets(self) -> list[KBucket]:
        """Buckets in which we know fewer than half as many as would fit, though there are more."""
        k, nodes, thin = self.ksize, self.nodes, []
        for bucket in self.buckets:
            lower, upper = bucket.range
            first, last = self._span(bucket)
            if last - first < k // 2 and (upper - lower) / IDS * nodes >= k:
                thin.append(bucket)
        return thin

    # --- inputs ---

    def on_proved(self, contact: Contact, now: float, *, answered: bool = True) -> Seating:
        """`contact` is who and where it says: it answered us, or (not `answered`) it asked with a valid cookie."""
        if answered:
            self._answered_at = now
        long_id, live = contact.long_id, self._live
        at = bisect_left(live, long_id)
        if at < len(live) and live[at] == long_id:
            if answered:
                self._heard[at] = now
            known = self._contacts[at]
            if known is contact or known.address == contact.address:
                return Seating.KEPT
            return self._move(at, contact, now)
        if contact.id == self.node.id:
            return Seating.REFUSED
        seat = self._failing.get(long_id) if self._failing else None
        if not answered and (seat is not None or long_id in self._doubts):
            return self._on_doubted_asks(seat, contact, now)
        self._doubts.on_answer(long_id)
        return self._on_back(seat, contact, now) if seat is not None else self._seat(contact, now)

    def on_failure(self, contact: Contact, now: float) -> None:
        """`contact` did not answer any try of a request."""
        bucket = self._bucket(contact.long_id)
        if bucket.waiting and any(waiting == contact for waiting in bucket.waiting):
            bucket.forget(contact.id)
        at = self._live_at(contact.long_id)
        seat = Seat(self._contacts[at], self._heard[at]) if at >= 0 else self._failing.get(contact.long_id)
        # At another address it is not the contact that we know which failed.
        if seat is None or seat.contact.address != contact.address:
            return
        if seat.failures and now - self._answered_at > self._config.witness_s:
            return
        if not seat.failures:
            seat.failing_since = now
            self._leave_live(at)
            self._failing[contact.long_id] = seat
            self._doubts.on_silent(contact.long_id, now)
        seat.failures += 1
        if seat.failures >= self._config.failures_to_go:
            if len(self._gone) >= _MAX_NEWS:
                del self._gone[0]
            self._gone.append(seat.contact)
            self._remove(bucket, seat)

    def on_lookup_done(self, target: int, now: float) -> None:
        """A lookup of our own for `target` ended."""
        self._bucket(target).refreshed(now)

    def add_contact(self, node: Contact) -> None:
        """Refused: in the stock table anybody who speaks gets a seat."""
        raise TypeError("a seat needs proof of the address: on_proved()")

    def remove_contact(self, node: Contact) -> None:
        """Refused: in the stock table one lost packet takes the seat away."""
        raise TypeError("a seat is lost by on_failure()")

    # --- drain ---

    def take_seated(self) -> list[Contact]:
        """Who got a seat since the last call, at once or after waiting for one, or answered again after long."""
        seated, self._seated = self._seated, []
        return seated

    def take_gone(self) -> list[Contact]:
        """Who lost its seat, since it did not answer, since the last call."""
        gone, self._gone = self._gone, []
        return gone

    # --- inside ---

    def _bucket(self, long_id: int) -> KBucket:
        return self.buckets[bisect_right(self._lowers, long_id) - 1]

    def _live_at(self, long_id: int) -> int:
        """Where the live seat with this id stands, -1 if there is none."""
        at = bisect_left(self._live, long_id)
        return at if at < len(self._live) and self._live[at] == long_id else -1

    def _span(self, bucket: KBucket) -> tuple[int, int]:
        """The slice of the live seats in the range of `bucket`."""
        lower, upper = bucket.range
        first = bisect_left(self._live, lower)
        return first, bisect_right(self._live, upper, first)

    def _failing_in(self, bucket: KBucket) -> list[int]:
        """The ids of the failing seats in the range of `bucket`."""
        if not self._failing:
            return []
        lower, upper = bucket.range
        return [long_id for long_id in self._failing if lower <= long_id <= upper]

    def _on_back(self, seat: Seat, contact: Contact, now: float) -> Seating:
        """A failing one answered."""
        del self._failing[contact.long_id]
        self._enter_live(seat.contact, now)
        if now - seat.failing_since > _LONG_S:
            self._tell_seated(seat.contact)
        if seat.contact.address == contact.address:
            return Seating.KEPT
        return self._move(self._live_at(contact.long_id), contact, now)

    def _on_doubted_asks(self, seat: Seat | None, contact: Contact, now: float) -> Seating:
        """It has not answered lately, and asks: which makes up for nothing. If from elsewhere, it is asked there."""
        if seat is not None and seat.contact.address != contact.address:
            if not self._may_move(seat.contact, contact):
                self._remove(self._bucket(contact.long_id), seat)
                return Seating.REFUSED
            seat.contact = contact
        if self._doubts.take(contact.long_id, now):
            return Seating.DOUBTED
        return Seating.REFUSED if seat is None else Seating.KEPT

    def _seat(self, contact: Contact, now: float) -> Seating:
        while True:
            index = self.get_bucket_for(contact)
            bucket = self.buckets[index]
            bucket.forget(contact.id)
            if not self._subnet_has_room(bucket, contact):
                return Seating.REFUSED
            if len(bucket) < self.ksize:
                self._take_seat(contact, now)
                return Seating.SEATED
            splits = bucket.has_in_range(self.node) or bucket.depth() % _SPLIT_EVERY != 0 or self._is_neighbour(contact)
            if not splits or bucket.bits == 0:
                bucket.wait(contact, now)
                return Seating.WAITING
            self._split(index)

    def _move(self, at: int, contact: Contact, now: float) -> Seating:
        """The live seat at this index is `contact`'s, who proved another address."""
        old = self._contacts[at]
        if not self._may_move(old, contact):
            self._remove(self._bucket(contact.long_id), Seat(old, now))
            return Seating.REFUSED
        self._contacts[at] = contact
        return Seating.MOVED

    def _may_move(self, old: Contact, contact: Contact) -> bool:
        """Whether there is room in the subnet of `contact` for the seat that is at `old`; if so it is counted there
        from now on."""
        self._leave_subnet(old)
        fits = self._subnet_has_room(self._bucket(contact.long_id), contact, moving=old)
        self._enter_subnet(contact if fits else old)
        return fits

    def _is_neighbour(self, contact: Contact) -> bool:
        """Whether `contact` is among the k nearest to us: they all have seats, whatever bucket must be split for it
        (Kademlia section 2.4)."""
        own: int = self.node.long_id
        return contact.long_id ^ own < self._neighbourhood()

    def _neighbourhood(self) -> int:
        """The distance of the k-th of our neighbours; all ids, while there are fewer."""
        if self._reach is None:
            own: int = self.node.long_id
            nearest = self.find_neighbors(own)
            self._reach = _ALL if len(nearest) < self.ksize else nearest[-1].long_id ^ own
        return self._reach

    def _split(self, index: int) -> None:
        halves = self.buckets[index].halves()
        self.buckets[index : index + 1] = halves
        self._lowers[index : index + 1] = [half.range[0] for half in halves]
        for half in halves:
            self._fill(half)

    def _fill(self, bucket: KBucket) -> None:
        """Give free seats to those who wait, the latest first."""
        for contact in reversed(list(bucket.waiting)):
            if len(bucket) >= self.ksize:
                return
            if self._subnet_has_room(bucket, contact):
                waited = bucket.forget(contact.id)
                if waited is not None:
                    self._take_seat(*waited)

    def _take_seat(self, contact: Contact, heard: float) -> None:
        self._tell_seated(contact)
        self._enter_live(contact, heard)
        self._enter_subnet(contact)

    def _tell_seated(self, contact: Contact) -> None:
        if len(self._seated) >= _MAX_NEWS:
            del self._seated[0]
        self._seated.append(contact)

    def _remove(self, bucket: KBucket, seat: Seat) -> None:
        if self._failing.pop(seat.contact.long_id, None) is None:
            self._leave_live(self._live_at(seat.contact.long_id))
        self._leave_subnet(seat.contact)
        self._fill(bucket)

    def _enter_live(self, contact: Contact, heard: float) -> None:
        at = bisect_left(self._live, contact.long_id)
        self._live.insert(at, contact.long_id)
        self._contacts.insert(at, contact)
        self._heard.insert(at, heard)
        self._reach = self._nodes = None

    def _leave_live(self, at: int) -> None:
        del self._live[at], self._contacts[at], self._heard[at]
        self._reach = self._nodes = None
        self.left += 1

    def _subnet_has_room(self, bucket: KBucket, contact: Contact, moving: Contact | None = None) -> bool:
        if self._subnets is None:
            return True
        net = subnet(contact.ip)
        if self._subnets[net] >= self._config.table_seats_per_subnet:
            return False
        first, last = self._span(bucket)
        seated = self._contacts[first:last] + [self._failing[long_id].contact for long_id in self._failing_in(bucket)]
        inside = sum(1 for other in seated if other is not moving and subnet(other.ip) == net)
        return inside < self._config.bucket_seats_per_subnet

    def _enter_subnet(self, contact: Contact) -> None:
        if self._subnets is not None:
            self._subnets[subnet(contact.ip)] += 1

    def _leave_subnet(self, contact: Contact) -> None:
        if self._subnets is not None:
            net = subnet(contact.ip)
            self._subnets[net] -= 1
            if not self._subnets[net]:
                del self._subnets[net]
