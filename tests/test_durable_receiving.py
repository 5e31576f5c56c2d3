"""What is acknowledged is on the disk: the receiver's side over a real store, and commits that a test lets fail."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from support_durable import heard, two
from support_peers import Village, until, virtual

from dht_atonce.config import DurableConfig
from dht_atonce.disk import MemoryDisk
from dht_atonce.durable.receiving import Receiving
from dht_atonce.durable.store import Arrival, Store
from dht_atonce.durable.wire import Note, Parcel, Refused, Stored, Why
from dht_atonce.errors import StoreError
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.receipts import State

ALICE, CAROL = (Identity.generate(random.Random(number)).id for number in (1, 2))
FIRST, SECOND = b"round  1", b"round  2"
NOW_MS = 1_000_000


class HeldWriter:
    """In the place of a `Writer`: a transaction is one `submit`, and goes well or not when the test says so."""

    is_closed = False

    def __init__(self) -> None:
        self.store = Store.open(MemoryDisk())
        self.jobs: list[tuple[Callable[[Store], Any], Callable[[Any], None]]] = []

    def submit(self, job: Callable[[Store], Any], then: Callable[[Any], None]) -> None:
        self.jobs.append((job, then))

    def commit(self) -> None:
        """What was asked for first is done, and is on the disk."""
        job, then = self.jobs.pop(0)
        then(self.store.perform([job])[0])

    def fail(self) -> None:
        """Nothing of what was asked for first is on the disk."""
        _, then = self.jobs.pop(0)
        then(StoreError("the disk is full"))


class Bob:
    """Who receives, and what he says."""

    def __init__(self) -> None:
        self.writer: Any = HeldWriter()
        self.said: list[tuple[PeerId, Note]] = []
        self.counters: Counter[str] = Counter()
        config, say = DurableConfig(), lambda to, note: self.said.append((to, note))
        self.receiving = Receiving(config, self.writer, self.counters, say, lambda: NOW_MS)

    def hear(self, sender: PeerId, round_: bytes, *indexes: int) -> None:
        """Messages with these places in a round come in one frame."""
        parcels = [Parcel(round_, n, n.to_bytes(16, "big"), NOW_MS + 1000, b"%d" % n) for n in indexes]
        self.receiving.on_parcels(sender, parcels)

    @property
    def kept(self) -> list[bytes]:
        """What is on the disk, in its order."""
        rows: list[Arrival] = self.writer.store.perform([lambda store: store.arrivals(0, 100)])[0]
        return [row.data for row in rows]

    @property
    def given(self) -> list[bytes]:
        """What the app gets now."""
        return [message.data for message in iter(self.receiving.take, None)]


async def test_nothing_is_acknowledged_before_it_is_on_the_disk() -> None:
    bob = Bob()
    bob.hear(ALICE, FIRST, 0, 1)
    bob.hear(ALICE, FIRST, 2)
    assert (bob.said, bob.given, bob.kept) == ([], [], [])
    bob.writer.commit()
    assert (bob.said, bob.given, bob.kept) == ([(ALICE, Stored(FIRST, 2))], [b"0", b"1"], [b"0", b"1"])
    bob.writer.commit()
    assert (bob.said[1:], bob.given) == ([(ALICE, Stored(FIRST, 3))], [b"2"])


async def test_behind_what_could_not_be_written_nothing_is_written_or_acknowledged() -> None:
    # The disk is full for one transaction only. What came meanwhile would be the next one, and `Stored(…, 1)` would
    # speak of the message that is lost.
    bob = Bob()
    bob.hear(ALICE, FIRST, 0)
    bob.hear(ALICE, FIRST, 1)
    bob.hear(ALICE, FIRST, 2, 3)
    bob.writer.fail()
    bob.hear(ALICE, FIRST, 4)  # nothing of this round is taken any more
    while bob.writer.jobs:
        bob.writer.commit()
    assert bob.said == [(ALICE, Refused(FIRST, Why.DISK))]  # once
    assert (bob.given, bob.kept) == ([], [])
    assert bob.counters == {"durable.not_written": 4, "durable.not_taken": 1}
    assert not bob.receiving.intake.shares  # it holds no room
    assert bob.receiving.intake.total.messages == bob.receiving.intake.total.ids == 0

    bob.hear(ALICE, SECOND, 0, 1, 2, 3, 4)
    bob.writer.commit()
    assert bob.said[1:] == [(ALICE, Stored(SECOND, 5))]
    assert bob.given == bob.kept == [b"0", b"1", b"2", b"3", b"4"]


async def test_what_was_acknowledged_before_the_failure_stays_so() -> None:
    bob = Bob()
    bob.hear(ALICE, FIRST, 0)
    bob.writer.commit()
    bob.hear(ALICE, FIRST, 1)
    bob.hear(ALICE, FIRST, 2)
    bob.writer.fail()
    bob.writer.commit()
    assert bob.said == [(ALICE, Stored(FIRST, 1)), (ALICE, Refused(FIRST, Why.DISK))]
    assert bob.kept == [b"0"]


async def test_the_failure_of_one_sender_s_round_is_not_another_s() -> None:
    bob = Bob()
    bob.hear(ALICE, FIRST, 0)
    bob.hear(CAROL, FIRST, 0)
    bob.hear(ALICE, FIRST, 1)
    bob.writer.fail()
    bob.writer.commit()
    bob.writer.commit()
    assert bob.said == [(ALICE, Refused(FIRST, Why.DISK)), (CAROL, Stored(FIRST, 1))]
    assert bob.kept == [b"0"]


async def test_an_earlier_round_that_fails_late_does_not_touch_the_present_one() -> None:
    bob = Bob()
    bob.hear(ALICE, FIRST, 0)
    bob.hear(ALICE, SECOND, 0)
    bob.writer.fail()
    bob.writer.commit()
    assert bob.said == [(ALICE, Refused(FIRST, Why.DISK)), (ALICE, Stored(SECOND, 1))]
    assert bob.kept == [b"0"]


def test_a_disk_that_is_full_for_a_moment_changes_no_order_and_loses_nothing() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            await (await alice.peer.send(bob.id, b"before", durable=True))
            await asyncio.sleep(1)
            bob.host.disk_faults.commit_s, bob.host.disk_faults.full = 2.0, True
            first = await alice.peer.send(bob.id, b"first", durable=True)
            await asyncio.sleep(1.5)  # it was not written, and Bob has not heard of that yet
            bob.host.disk_faults.full = False
            second = await alice.peer.send(bob.id, b"second", durable=True)
            await until(lambda: bob.counters.get("durable.not_written") == 2)
            assert (first.state, second.state) == (State.SENT, State.SENT)
            bob.host.disk_faults.commit_s = 0.0
            await asyncio.gather(first, second)
            await heard(bob, b"before", b"first", b"second")

    virtual(main())
