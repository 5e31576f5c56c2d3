"""The machines of durable messages, courier and intake, over stores and a link that a test holds in its hands: every
note can be late, every process can die, every commit can fail."""

import random
from collections import deque
from typing import NamedTuple

import pytest

from dht_atonce.config import DurableConfig
from dht_atonce.disk import MemoryDisk
from dht_atonce.durable.courier import Courier, Row, Stage
from dht_atonce.durable.intake import Intake, Round, Verdict
from dht_atonce.durable.store import Arrival, Store
from dht_atonce.durable.wire import Note, Parcel, Refused, Settled, Stored, Why
from dht_atonce.identity import Identity

ALICE, BOB = (Identity.generate(random.Random(number)).id for number in (1, 2))
CONFIG = DurableConfig(window_messages=4, inbox_messages=24)
NOW_MS = 1_000_000
NEVER_MS = NOW_MS + 86_400_000


class Write(NamedTuple):
    """Messages that Bob has taken and not written."""

    round: Round
    arrivals: list[Arrival]


class Deletion(NamedTuple):
    """Messages that Alice has heard acknowledged and not deleted."""

    courier: Courier
    position: tuple[bytes, int]
    numbers: list[int]


class Delivery:
    """Alice sends, Bob receives. Their stores outlive them; all else does not."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.alices, self.bobs = Store.open(MemoryDisk()), Store.open(MemoryDisk())
        self.to_bob: deque[Note] = deque()
        self.to_alice: deque[Note] = deque()
        self.is_linked = False
        self.posted: list[bytes] = []
        self.acknowledged: list[bytes] = []
        self.delivered: list[bytes] = []
        """Ids that came to the app, each once, in the order in which they came first."""
        self.done: set[bytes] = set()
        self.numbers: dict[bytes, int] = {}
        self.courier = Courier(CONFIG, self.rng, self.now)
        self.intake = Intake(CONFIG)
        self.writes: list[Write] = []
        self.deletions: list[Deletion] = []
        self.given_out: set[bytes] = set()

    # --- Alice ---

    def post(self, count: int) -> None:
        for _ in range(count):
            message_id = len(self.posted).to_bytes(16, "big")
            self.posted.append(message_id)
            (number,) = self.alices.perform(
                [lambda store, message_id=message_id: store.add_outgoing([(BOB.key, message_id, NEVER_MS, message_id)])]
            )[0]
            self.courier.on_added(Row(number, message_id, NEVER_MS, message_id))
        self.pump()

    def pump(self) -> None:
        while True:
            while (parcel := self.courier.take(self.now, NOW_MS)) is not None:
                self.to_bob.append(parcel)
            load = self.courier.take_load()
            if load is None:
                return
            (rows,) = self.alices.perform([lambda store, load=load: store.outgoing(BOB.key, load.after, load.limit)])
            self.courier.on_loaded(load, rows)

    def delete(self, works: bool) -> None:
        if not self.deletions:
            return
        deletion = self.deletions.pop(0)
        if works:
            (there,) = self.alices.perform([lambda store: store.delete_outgoing(deletion.numbers)])
            deletion.courier.on_deleted(*deletion.position, sum(there))
            if (settled := self.courier.take_settled()) is not None:
                self.to_bob.append(settled)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.courier.on_timer(self.now)
        self.pump()

    def alice_dies(self, heard: int) -> None:
        self.cut()
        self.to_bob.clear()
        self.forget(self.to_alice, heard)
        self.deletions.clear()
        self.courier = Courier(CONFIG, self.rng, self.now)
        (outbox,) = self.alices.perform([lambda store: store.outbox()])
        self.courier.on_found(sum(held.messages for held in outbox))

    # --- the link ---

    def cut(self) -> None:
        if self.is_linked:
            self.is_linked = False
            self.courier.on_unlinked(self.now)

    def link(self) -> None:
        """What was on its way still is: links come and go below the sequence numbers of a delivery."""
        self.is_linked = True
        self.courier.on_linked(able=True)
        self.pump()

    @staticmethod
    def forget(notes: deque[Note], count: int) -> None:
        """Those that had left are lost with the process that they were sent to; the others go to the next one."""
        for _ in range(min(count, len(notes))):
            notes.popleft()

    def bob_hears(self, count: int) -> None:
        if not self.is_linked:
            return
        batch: list[Parcel] = []
        for _ in range(min(count, len(self.to_bob))):
            note = self.to_bob.popleft()
            if isinstance(note, Parcel):
                batch.append(note)
            elif isinstance(note, Settled):
                numbers = self.intake.on_settled(ALICE, note.round, note.count)
                self.bobs.perform([lambda store, numbers=numbers: store.settle(numbers)])
        write: Write | None = None
        for parcel in batch:
            verdict = self.intake.on_parcel(ALICE, parcel, NOW_MS)
            if verdict is Verdict.TAKE:
                round_ = self.intake.round(ALICE)
                if write is None or write.round is not round_:
                    write = Write(round_, [])
                    self.writes.append(write)
                write.arrivals.append(Arrival(0, ALICE.key, parcel.id, parcel.expires_ms, parcel.data))
            elif verdict.why is not None:
                self.to_alice.append(Refused(parcel.round, verdict.why))

    def alice_hears(self, count: int) -> None:
        if not self.is_linked:
            return
        for _ in range(min(count, len(self.to_alice))):
            note = self.to_alice.popleft()
            if isinstance(note, Stored):
                rows = self.courier.on_stored(note.round, note.count, self.now)
                self.acknowledged += [row.id for row in rows]
                if rows:
                    numbers = [row.number for row in rows]
                    self.deletions.append(Deletion(self.courier, self.courier.position, numbers))
            elif isinstance(note, Refused):
                self.courier.on_refused(note.round, self.now)
        self.pump()

    # --- Bob ---

    def write(self, works: bool, is_told: bool) -> None:
        """The oldest write; if he is not told, he dies between the commit and the acknowledgement."""
        if not self.writes:
            return
        write = self.writes.pop(0)
        if not works or write.round.has_failed:
            for arrival in write.arrivals:
                self.intake.count(ALICE, -1, -len(arrival.data), -1)
            if not write.round.has_failed:
                self.intake.on_failed(write.round)
                self.to_alice.append(Refused(write.round.name, Why.DISK))
            return
        (places,) = self.bobs.perform([lambda store: store.add_arrivals(write.arrivals)])
        if not is_told:
            self.bob_dies(0)
            return
        for arrival, (number, is_new) in zip(write.arrivals, places, strict=True):
            if is_new:
                self.give(arrival._replace(number=number))
            else:
                self.intake.count(ALICE, -1, -len(arrival.data), -1)
        stored = self.intake.on_written(write.round, [number for number, _ in places])
        self.to_alice.append(Stored(write.round.name, stored))

    def give(self, arrival: Arrival) -> None:
        assert arrival.id not in self.done, "it came after it was done"
        self.numbers[arrival.id] = arrival.number
        self.given_out.add(arrival.id)
        if arrival.id not in self.delivered:
            self.delivered.append(arrival.id)

    def bob_dies(self, lost: int) -> None:
        self.cut()
        self.to_alice.clear()
        self.forget(self.to_bob, lost)
        self.writes.clear()
        self.given_out.clear()
        self.intake = Intake(CONFIG)
        ((held, _), arrivals) = self.bobs.perform([lambda store: store.inbox(), lambda store: store.arrivals(0, 1000)])
        for one in held:
            self.intake.count(ALICE, one.messages, one.size, one.ids)
        for arrival in arrivals:
            self.give(arrival)

    def app_is_done(self, which: int) -> None:
        if not self.given_out:
            return
        message_id = sorted(self.given_out)[which % len(self.given_out)]
        self.given_out.discard(message_id)
        number = self.numbers[message_id]
        ((is_news, is_forgotten),) = self.bobs.perform([lambda store: store.done([number])])[0]
        assert is_news
        self.intake.count(ALICE, -1, -16, -1 if is_forgotten else 0)
        self.done.add(message_id)

    # --- what must be true ---

    def what_is_acknowledged_is_on_bobs_disk_or_done(self) -> None:
        (arrivals,) = self.bobs.perform([lambda store: store.arrivals(0, 1000)])
        there = {arrival.id for arrival in arrivals}
        assert {message_id for message_id in self.acknowledged if message_id not in self.done} <= there

    def step(self) -> None:
        """Something happens, mostly something usual."""
        rng = self.rng
        what = rng.choices(
            [
                lambda: self.post(rng.randrange(1, 7)),
                lambda: self.bob_hears(rng.randrange(1, 5)),
                lambda: self.write(rng.random() < 0.8, rng.random() < 0.9),
                lambda: self.alice_hears(rng.randrange(1, 3)),
                lambda: self.delete(rng.random() < 0.8),
                lambda: self.app_is_done(rng.randrange(1000)),
                lambda: self.wait(rng.choice([0.1, 3.0, 30.0])),
                self.cut,
                self.link,
                lambda: self.alice_dies(rng.randrange(5)),
                lambda: self.bob_dies(rng.randrange(5)),
            ],
            [8, 20, 12, 12, 8, 8, 3, 2, 6, 1, 1],
        )[0]
        what()
        self.what_is_acknowledged_is_on_bobs_disk_or_done()
        assert self.delivered == sorted(self.delivered)
        assert set(self.delivered) <= set(self.posted)

    def calm_down(self) -> None:
        """All is well from now on: everything arrives, and nothing is left anywhere."""
        self.link()
        for _ in range(200):
            self.bob_hears(100)
            while self.writes:
                self.write(True, True)
            while self.given_out:
                self.app_is_done(0)
            self.alice_hears(100)
            while self.deletions:
                self.delete(True)
            self.wait(3.0)
            if self.courier.stage is Stage.AWAY:
                self.link()
        assert self.delivered == self.posted
        assert self.done == set(self.posted)
        # What Alice could not delete is sent again with the next link only.
        self.alice_dies(100)
        self.link()
        for _ in range(100):
            self.bob_hears(100)
            while self.writes:
                self.write(True, True)
            self.alice_hears(100)
            while self.deletions:
                self.delete(True)
            self.wait(3.0)
        assert self.alices.perform([lambda store: store.outbox()]) == [[]]
        assert (self.intake.total.messages, self.intake.total.size) == (0, 0)


@pytest.mark.parametrize("first", range(0, 400, 40))
def test_whatever_happens_nothing_is_lost_doubled_or_out_of_order(first: int) -> None:
    for seed in range(first, first + 40):
        delivery = Delivery(seed)
        for _ in range(120):
            delivery.step()
        delivery.calm_down()


# --- what the storm does not show by itself ---


def row(number: int, expires_ms: int = NEVER_MS) -> Row:
    return Row(number, number.to_bytes(16, "big"), expires_ms, b"x" * 10)


def linked(*rows: Row, config: DurableConfig = CONFIG) -> Courier:
    courier = Courier(config, random.Random(1), 0.0)
    courier.on_linked(able=True)
    for one in rows:
        courier.on_added(one)
    return courier


def sent(courier: Courier, now: float = 0.0, now_ms: int = NOW_MS) -> list[Parcel]:
    parcels = []
    while (parcel := courier.take(now, now_ms)) is not None:
        parcels.append(parcel)
    return parcels


def test_an_acknowledgement_of_another_round_or_of_what_was_not_sent_is_nothing() -> None:
    courier = linked(row(1), row(2))
    first, _ = sent(courier)
    assert courier.on_stored(bytes(8), 1, 0.0) == []
    assert courier.on_stored(first.round, 3, 0.0) == []
    assert courier.on_stored(first.round, 0, 0.0) == []
    assert [one.number for one in courier.on_stored(first.round, 1, 0.0)] == [1]
    assert courier.on_stored(first.round, 1, 0.0) == []
    courier.on_unlinked(0.0)
    courier.on_linked(able=True)
    assert courier.on_stored(first.round, 2, 0.0) == []


def test_what_was_settled_in_an_earlier_round_is_not_said_of_this_one() -> None:
    courier = linked(row(1), row(2))
    first, _ = sent(courier)
    courier.on_stored(first.round, 2, 0.0)
    position = courier.position
    courier.on_unlinked(0.0)
    courier.on_linked(able=True)
    courier.on_added(row(3))
    courier.on_deleted(*position, 2)
    assert courier.take_settled() is None
    assert courier.count == 1


def test_what_is_over_is_left_out_and_leaves_no_gap() -> None:
    courier = linked(row(1), row(2, NOW_MS), row(3))
    assert [(parcel.index, parcel.id[-1]) for parcel in sent(courier)] == [(0, 1), (1, 3)]


def test_a_stall_begins_another_round_and_progress_puts_it_off() -> None:
    courier = linked(row(1), row(2))
    first, second = sent(courier, 0.0)
    assert courier.deadline == CONFIG.stall_s
    assert not courier.on_timer(CONFIG.stall_s - 1)
    courier.on_stored(first.round, 1, 10.0)
    assert courier.deadline == 10.0 + CONFIG.stall_s
    courier.on_timer(10.0 + CONFIG.stall_s)
    (again,) = sent(courier, 40.0)
    assert (again.id, again.index) == (second.id, 0)
    assert again.round != second.round


def test_who_refuses_is_asked_again_after_pauses_that_grow() -> None:
    courier, now, pauses = linked(row(1)), 0.0, []
    for _ in range(9):
        (parcel,) = sent(courier, now)
        courier.on_refused(bytes(8), now)
        assert courier.stage is Stage.OPEN
        courier.on_refused(parcel.round, now)
        assert courier.stage is Stage.PAUSED
        pauses.append(courier.deadline - now)
        now = courier.deadline
        assert not courier.on_timer(now)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0, 120.0]


def test_who_is_away_is_called_after_pauses_that_grow_and_at_once_when_seen() -> None:
    courier, now, pauses = Courier(CONFIG, random.Random(1), 0.0), 0.0, []
    assert courier.deadline == float("inf")  # there is nothing for him
    courier.on_added(row(1))
    assert courier.deadline == 0.0
    for _ in range(4):
        assert courier.on_timer(now)
        assert not courier.on_timer(now)  # it is known that he is being called
        courier.on_unlinked(now)
        pauses.append(courier.deadline - now)
        now = courier.deadline
    assert pauses == [2.0, 4.0, 8.0, 16.0]
    courier.on_return(now - 1)
    assert courier.deadline == now - 1


def test_who_cannot_take_them_is_sent_nothing() -> None:
    courier = linked(row(1))
    courier.on_linked(able=False)
    assert sent(courier) == []
    assert courier.deadline == float("inf")
    assert courier.take_load() is None


def test_the_window_is_bounded_by_messages_and_bytes() -> None:
    assert len(sent(linked(*map(row, range(1, 9))))) == CONFIG.window_messages
    assert len(sent(linked(*map(row, range(1, 9)), config=DurableConfig(window_bytes=25)))) == 2
    assert len(sent(linked(*map(row, range(1, 9)), config=DurableConfig(window_bytes=5)))) == 1


def parcel(index: int, round_: bytes = b"round 01", size: int = 1, expires_ms: int = NEVER_MS) -> Parcel:
    return Parcel(round_, index, index.to_bytes(16, "big"), expires_ms, bytes(size))


def test_a_round_begins_at_its_beginning_and_leaves_nothing_out() -> None:
    intake = Intake(CONFIG)
    assert intake.on_parcel(ALICE, parcel(1), NOW_MS) is Verdict.AGAIN
    assert intake.on_parcel(ALICE, parcel(0), NOW_MS) is Verdict.DROP  # refused once is refused
    assert intake.on_parcel(ALICE, parcel(0, b"round 02"), NOW_MS) is Verdict.TAKE
    assert intake.on_parcel(ALICE, parcel(2, b"round 02"), NOW_MS) is Verdict.AGAIN
    assert intake.on_parcel(ALICE, parcel(1, b"round 02"), NOW_MS) is Verdict.DROP
    assert intake.on_parcel(ALICE, parcel(0, b"round 03"), NOW_MS) is Verdict.TAKE
    assert intake.on_parcel(ALICE, parcel(0, b"round 03"), NOW_MS) is Verdict.AGAIN


@pytest.mark.parametrize(
    ("bounds", "taken"),
    [({"inbox_messages": 10}, 5), ({"inbox_bytes": 1000}, 5), ({"remembered": 6}, 3)],
)
def test_one_sender_gets_half_and_others_still_find_room(bounds: dict[str, int], taken: int) -> None:
    intake = Intake(DurableConfig(**bounds))
    verdicts = [intake.on_parcel(ALICE, parcel(index, size=100), NOW_MS) for index in range(taken + 1)]
    assert verdicts == [Verdict.TAKE] * taken + [Verdict.FULL]
    assert intake.on_parcel(BOB, parcel(0, size=100), NOW_MS) is Verdict.TAKE


def test_what_would_have_to_be_remembered_too_long_is_refused() -> None:
    limit_ms = NOW_MS + 31 * 86_400_000
    assert Intake(CONFIG).on_parcel(ALICE, parcel(0, expires_ms=limit_ms), NOW_MS) is Verdict.TAKE
    assert Intake(CONFIG).on_parcel(ALICE, parcel(0, expires_ms=limit_ms + 1), NOW_MS) is Verdict.INVALID
    assert Intake(CONFIG).on_parcel(ALICE, parcel(0, expires_ms=2**64 - 1), NOW_MS) is Verdict.INVALID


def test_senders_are_remembered_up_to_a_bound() -> None:
    intake = Intake(DurableConfig(max_senders=2))
    people = [Identity.generate(random.Random(number)).id for number in range(3)]
    for person in people:
        assert intake.on_parcel(person, parcel(0), NOW_MS) is Verdict.TAKE
    assert intake.on_parcel(people[0], parcel(1), NOW_MS) is Verdict.AGAIN
    assert intake.on_parcel(people[2], parcel(1), NOW_MS) is Verdict.TAKE


def test_settled_is_believed_of_the_present_round_only() -> None:
    intake = Intake(CONFIG)
    for index in range(3):
        intake.on_parcel(ALICE, parcel(index), NOW_MS)
    assert intake.on_written(intake.round(ALICE), [7, 8, 9]) == 3
    assert intake.on_settled(ALICE, b"another1", 3) == []
    assert intake.on_settled(BOB, b"round 01", 3) == []
    assert intake.on_settled(ALICE, b"round 01", 2) == [7, 8]
    assert intake.on_settled(ALICE, b"round 01", 2) == []
    assert intake.on_settled(ALICE, b"round 01", 2**32 - 1) == [9]
