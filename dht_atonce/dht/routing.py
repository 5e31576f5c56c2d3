"""The routing table: who has a seat, who waits for one, who is nearest to a key.

Kademlia (Maymounkov and Mazières 2002), sections 2.2, 2.4 and 4.2, on `kademlia`'s classes. What differs, and why:

- A seat needs proof of the address, which the caller has: only `on_proved` seats.
- Nothing here sends or starts a task; each input says what happened (rust-libp2p's `kbucket`).
- One lost packet evicts nobody. A *failing* contact is asked last and never passed on; it goes after three failures and
  either a verified replacement or 15 minutes. While everybody fails, the fault is ours, and nobody's failures count.
- The k nearest are the true k nearest, found in a sorted list of ids: the smallest subtree round the target that holds
  k of them is one slice of it, and only that slice is sorted by distance.
- A bucket's depth and its refresh time come from its range and from our own lookups, not from its members or from
  queries.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from enum import Enum

from kademlia.routing import KBucket as StockKBucket
from kademlia.routing import RoutingTable as StockRoutingTable

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import subnet

__all__ = ["ID_BITS", "KBucket", "RoutingTable", "Seat", "Seating"]

ID_BITS = 160
_SPLIT_EVERY = 5  # Kademlia section 4.2, b = 5: buckets away from us are split to depths that are multiples of it
_MAX_SEATED = 4096  # news of seats that nobody fetched


class Seating(Enum):
    """What became of a contact that proved itself."""

    SEATED = "seated"
    """It is new in the table."""
    KEPT = "kept"
    """It had this seat already."""
    MOVED = "moved"
    """It had a seat at another address, which is now this one."""
    WAITING = "waiting"
    """Its bucket is full; it comes in when a seat falls free."""
    REFUSED = "refused"
    """Ourselves, or too many of its subnet; one that moves into such a subnet loses its seat."""


class Seat:
    """A contact in a bucket and how it fares."""

    __slots__ = ("contact", "failing_since", "failures", "last_answer")

    def __init__(self, contact: Contact, now: float) -> None:
        self.contact = contact
        self.last_answer = now
        self.failures = 0
        self.failing_since = 0.0


class KBucket(StockKBucket):
    """A range of ids with up to k seats, the longest silent first, and up to k who wait.

    From kademlia: `range` (inclusive), `nodes`, `replacement_nodes`, `has_in_range`, `ksize`, `len()`.
    """

    nodes: OrderedDict[bytes, Seat]
    replacement_nodes: OrderedDict[bytes, Seat]

    def __init__(self, lower: int, bits: int, ksize: int, now: float) -> None:
        super().__init__(lower, lower + (1 << bits) - 1, ksize, replacementNodeFactor=1)
        self.bits = bits
        """log2 of the number of ids in the range."""
        self.last_updated = now

    def touch_last_updated(self) -> None:
        """Does nothing: the stock class calls this from its constructor and reads a clock; `refreshed` is told the
        time."""

    def refreshed(self, now: float) -> None:
        """A lookup of our own ended in this range."""
        self.last_updated = now

    def depth(self) -> int:
        """Number of leading bits that all ids in the range share."""
        return ID_BITS - self.bits

    def wait(self, seat: Seat) -> None:
        """Remember a verified contact for when a seat falls free; the latest comes first."""
        self.replacement_nodes.pop(seat.contact.id, None)
        self.replacement_nodes[seat.contact.id] = seat
        if len(self.replacement_nodes) > self.max_replacement_nodes:
            self.replacement_nodes.popitem(last=False)

    def halves(self, now: float) -> tuple["KBucket", "KBucket"]:
        """Two empty buckets for the two halves of the range."""
        half = self.bits - 1
        lower, upper = self.range[0], self.range[0] + (1 << half)
        one, two = KBucket(lower, half, self.ksize, now), KBucket(upper, half, self.ksize, now)
        one.last_updated = two.last_updated = self.last_updated
        return one, two


class RoutingTable(StockRoutingTable):
    """All buckets of one node in one address family. `now` is monotonic seconds throughout.

    From kademlia: `node` (ourselves), `ksize`, `buckets`, and the meaning of `find_neighbors` and `get_bucket_for`.
    """

    buckets: list[KBucket]

    def __init__(self, own: Contact, ksize: int, config: DhtConfig, *, local: bool, now: float) -> None:
        self._config = config
        self._local = local
        self._created = now
        self._failed_in_a_row = 0
        super().__init__(None, ksize, own)

    def flush(self) -> None:
        """Forget everybody."""
        self.buckets = [KBucket(0, ID_BITS, self.ksize, self._created)]
        self._lowers = [0]
        self._subnets: Counter[bytes] = Counter()
        self._size = 0
        # Ids of all seats that are not failing, sorted, and their contacts
        self._live: list[int] = []
        self._seated: deque[Contact] = deque(maxlen=_MAX_SEATED)
        self._contacts: dict[int, Contact] = {}

    # --- getters ---

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Seat]:
        for bucket in self.buckets:
            yield from bucket.nodes.values()

    def get_bucket_for(self, node: Contact) -> int:
        """Index of the bucket whose range holds `node`."""
        return self._index(node.long_id)

    def is_new_node(self, node: Contact) -> bool:
        """Whether `node` has no seat."""
        return node.id not in self._bucket(node.long_id).nodes

    def seat_of(self, node_id: bytes) -> Seat | None:
        """The seat of the node with this `NodeId`."""
        return self._bucket(int.from_bytes(node_id, "big")).nodes.get(node_id)

    def find_neighbors(  # type: ignore[override] # takes the id itself: no Node has to be made for it
        self, target: int, k: int | None = None, *, exclude: bytes | None = None, failing: bool = False
    ) -> list[Contact]:
        """The `k` (default: ksize) seated contacts nearest to `target` by XOR, nearest first, without the id `exclude`.

        Failing ones are left out, since they must not be passed on; with `failing` they follow behind all others.
        """
        k = k or self.ksize
        excluded = -1 if exclude is None else int.from_bytes(exclude, "big")
        first, last = self._smallest_subtree(target, k + (exclude is not None))
        ids = sorted(self._live[first:last], key=target.__xor__)
        found = [self._contacts[long_id] for long_id in ids if long_id != excluded][:k]
        if failing and len(found) < k:
            broken = [s.contact for s in self if s.failures and s.contact.id != exclude]
            broken.sort(key=lambda contact: contact.long_id ^ target)
            found += broken[: k - len(found)]
        return found

    def count_within(self, target: int, bits: int) -> int:
        """How many seats that are not failing are nearer to `target` than 2 ** bits."""
        first, last = self._subtree(target, bits)
        return last - first

    def lonely_buckets(self, now: float) -> list[KBucket]:  # type: ignore[override] # is told the time
        """Buckets in which no lookup of ours ended for `refresh_s`."""
        return [b for b in self.buckets if now - b.last_updated >= self._config.refresh_s]

    # --- inputs ---

    def on_proved(self, contact: Contact, now: float) -> Seating:
        """`contact` answered us, or asked with a valid cookie: it is who and where it says."""
        self._failed_in_a_row = 0
        if contact.id == self.node.id:
            return Seating.REFUSED
        bucket = self._bucket(contact.long_id)
        seat = bucket.nodes.get(contact.id)
        if seat is not None:
            seat.last_answer = now
            if seat.failures:
                seat.failures = 0
                self._enter_live(seat.contact)
            bucket.nodes.move_to_end(contact.id)
            if seat.contact.address == contact.address:
                return Seating.KEPT
            self._leave_subnet(seat.contact)
            if not self._subnet_has_room(bucket, contact, moving=seat):
                self._enter_subnet(seat.contact)
                self._remove(bucket, seat, now)
                return Seating.REFUSED
            seat.contact = contact
            self._contacts[contact.long_id] = contact
            self._enter_subnet(contact)
            return Seating.MOVED
        bucket.replacement_nodes.pop(contact.id, None)
        return self._seat(Seat(contact, now), now)

    def on_failure(self, contact: Contact, now: float) -> None:
        """`contact` did not answer any try of a request."""
        bucket = self._bucket(contact.long_id)
        waiting = bucket.replacement_nodes.get(contact.id)
        if waiting is not None and waiting.contact.address == contact.address:
            del bucket.replacement_nodes[contact.id]
        self._failed_in_a_row += 1
        seat = bucket.nodes.get(contact.id)
        # At another address it is not the contact that we know which failed.
        if seat is None or seat.contact.address != contact.address:
            return
        if self._failed_in_a_row > self._config.everybody_fails and seat.failures:
            return
        if not seat.failures:
            seat.failing_since = now
            self._leave_live(seat.contact)
        seat.failures += 1
        if self._may_go(seat, now, replaced=bool(bucket.replacement_nodes)):
            self._remove(bucket, seat, now)

    def expire(self, now: float) -> None:
        """Remove who has been failing for too long."""
        for bucket in self.buckets:
            for seat in [s for s in bucket.nodes.values() if s.failures and self._may_go(s, now, replaced=False)]:
                self._remove(bucket, seat, now)

    def on_lookup_done(self, target: int, now: float) -> None:
        """A lookup of our own for `target` ended."""
        self._bucket(target).refreshed(now)

    def add_contact(self, node: Contact) -> None:
        """Refused: in the stock table anybody who speaks gets a seat."""
        raise TypeError("a seat needs proof of the address: on_proved()")

    def remove_contact(self, node: Contact) -> None:
        """Refused: in the stock table one lost packet takes the seat away."""
        raise TypeError("a seat is lost by on_failure() and expire()")

    # --- drain ---

    def take_seated(self) -> list[Contact]:
        """Who newly got a seat since the last call, at once or after waiting for one."""
        seated = list(self._seated)
        self._seated.clear()
        return seated

    # --- inside ---

    def _index(self, long_id: int) -> int:
        return bisect_right(self._lowers, long_id) - 1

    def _bucket(self, long_id: int) -> KBucket:
        return self.buckets[bisect_right(self._lowers, long_id) - 1]

    def _subtree(self, target: int, bits: int) -> tuple[int, int]:
        """The slice of `_live` with the ids that differ from `target` in the last `bits` bits only."""
        lower = target >> bits << bits
        return bisect_left(self._live, lower), bisect_left(self._live, lower + (1 << bits))

    def _smallest_subtree(self, target: int, count: int) -> tuple[int, int]:
        """The slice of the smallest subtree round `target` that holds at least `count`; all, if there are fewer."""
        low, high = 0, ID_BITS
        while low < high:
            bits = (low + high) // 2
            first, last = self._subtree(target, bits)
            if last - first >= count:
                high = bits
            else:
                low = bits + 1
        return self._subtree(target, low)

    def _seat(self, seat: Seat, now: float) -> Seating:
        contact = seat.contact
        while True:
            index = self._index(contact.long_id)
            bucket = self.buckets[index]
            if not self._subnet_has_room(bucket, contact):
                return Seating.REFUSED
            if len(bucket.nodes) < bucket.ksize:
                self._take_seat(bucket, seat)
                return Seating.SEATED
            broken = next((s for s in bucket.nodes.values() if self._may_go(s, now, replaced=True)), None)
            if broken is not None:
                bucket.wait(seat)
                self._remove(bucket, broken, now)
                return Seating.SEATED
            splits = bucket.has_in_range(self.node) or bucket.depth() % _SPLIT_EVERY != 0 or self._is_neighbour(contact)
            if not splits or bucket.bits == 0:
                bucket.wait(seat)
                return Seating.WAITING
            self._split(index, now)

    def _is_neighbour(self, contact: Contact) -> bool:
        """Whether `contact` is among the k nearest to us: they all have seats, whatever bucket must be split for it
        (Kademlia section 2.4)."""
        own = self.node.long_id
        nearest = self.find_neighbors(own)
        return len(nearest) < self.ksize or contact.long_id ^ own < nearest[-1].long_id ^ own

    def _split(self, index: int, now: float) -> None:
        old = self.buckets[index]
        halves = old.halves(now)
        self.buckets[index : index + 1] = halves
        self._lowers[index : index + 1] = [half.range[0] for half in halves]
        for seat in old.nodes.values():
            self._bucket(seat.contact.long_id).nodes[seat.contact.id] = seat
        for seat in old.replacement_nodes.values():
            self._bucket(seat.contact.long_id).wait(seat)
        for half in halves:
            self._fill(half)

    def _fill(self, bucket: KBucket) -> None:
        """Give free seats to those who wait, the latest first."""
        waiting = bucket.replacement_nodes
        for node_id in list(reversed(waiting)):
            if len(bucket.nodes) >= bucket.ksize:
                return
            if self._subnet_has_room(bucket, waiting[node_id].contact):
                self._take_seat(bucket, waiting.pop(node_id))

    def _take_seat(self, bucket: KBucket, seat: Seat) -> None:
        self._seated.append(seat.contact)
        bucket.nodes[seat.contact.id] = seat
        self._enter_live(seat.contact)
        self._enter_subnet(seat.contact)
        self._size += 1

    def _remove(self, bucket: KBucket, seat: Seat, now: float) -> None:
        del bucket.nodes[seat.contact.id]
        if not seat.failures:
            self._leave_live(seat.contact)
        self._leave_subnet(seat.contact)
        self._size -= 1
        self._fill(bucket)

    def _enter_live(self, contact: Contact) -> None:
        insort(self._live, contact.long_id)
        self._contacts[contact.long_id] = contact

    def _leave_live(self, contact: Contact) -> None:
        del self._live[bisect_left(self._live, contact.long_id)]
        del self._contacts[contact.long_id]

    def _may_go(self, seat: Seat, now: float, *, replaced: bool) -> bool:
        if seat.failures < self._config.failures_to_go:
            return False
        return replaced or now - seat.failing_since >= self._config.failing_life_s

    def _subnet_has_room(self, bucket: KBucket, contact: Contact, moving: Seat | None = None) -> bool:
        if self._local:
            return True
        net = subnet(contact.ip)
        if self._subnets[net] >= self._config.table_seats_per_subnet:
            return False
        inside = sum(1 for s in bucket.nodes.values() if s is not moving and subnet(s.contact.ip) == net)
        return inside < self._config.bucket_seats_per_subnet

    def _enter_subnet(self, contact: Contact) -> None:
        if not self._local:
            self._subnets[subnet(contact.ip)] += 1

    def _leave_subnet(self, contact: Contact) -> None:
        if not self._local:
            net = subnet(contact.ip)
            self._subnets[net] -= 1
            if not self._subnets[net]:
                del self._subnets[net]
