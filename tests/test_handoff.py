"""Hand-off: to each newcomer the records that it is to have, and no faster than the network can bear."""

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support import LOCAL, NOW, contact, value_record

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.handoff import HandOff, NearKeys
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.storage import RecordStore

CONFIG = DhtConfig()
ALICE, BOB = contact(1), contact(2)
KEYS = [bytes([number]) * 20 for number in range(100)]


def everything(_contact: Contact, keys: list[bytes]) -> list[bytes]:
    return keys


def drain(hand_off: HandOff, now: float = 0.0) -> list[tuple[float, Contact, bytes]]:
    """Do as the node does, until nothing is left: come back at each deadline."""
    given_away = []
    for _ in range(100_000):
        given_away += [(now, *pair) for pair in hand_off.take(now, everything)]
        deadline = hand_off.deadline(now)
        if deadline is None:
            return given_away
        now = max(now, deadline)
    raise AssertionError("it never ends")


def test_nothing_is_to_be_done_before_somebody_comes() -> None:
    hand_off = HandOff(CONFIG)
    assert hand_off.take(5.0, everything) == []
    assert hand_off.deadline(5.0) is None
    hand_off.on_seated(ALICE, [])
    assert hand_off.deadline(5.0) is None


def test_a_newcomer_gets_what_it_is_to_have() -> None:
    hand_off = HandOff(CONFIG)
    hand_off.on_seated(ALICE, KEYS[:6])
    assert hand_off.deadline(5.0) == 5.0
    asked = []

    def pick(who: Contact, keys: list[bytes]) -> list[bytes]:
        asked.extend((who, key) for key in keys)
        return [key for key in keys if key in KEYS[1:4]]

    assert hand_off.take(5.0, pick) == [(ALICE, key) for key in KEYS[1:4]]
    assert asked == [(ALICE, key) for key in KEYS[:6]]
    assert hand_off.take(6.0, pick) == []
    assert hand_off.deadline(6.0) is None


def test_all_get_all_of_theirs_once() -> None:
    hand_off = HandOff(CONFIG)
    hand_off.on_seated(ALICE, KEYS[:30])
    hand_off.on_seated(BOB, KEYS[20:50])
    counted = Counter((who, key) for _, who, key in drain(hand_off))
    assert counted == Counter([(ALICE, key) for key in KEYS[:30]] + [(BOB, key) for key in KEYS[20:50]])


def test_who_comes_again_gets_it_again_but_not_twice_at_once() -> None:
    hand_off = HandOff(CONFIG)
    hand_off.on_seated(ALICE, KEYS[:3])
    hand_off.on_seated(ALICE, KEYS[:5])
    assert len(drain(hand_off)) == 5
    hand_off.on_seated(ALICE, KEYS[:2])
    assert len(drain(hand_off, 100.0)) == 2


def test_what_is_not_done_comes_again_after_the_others() -> None:
    hand_off, order = HandOff(replace(CONFIG, handoff_per_s=1.0)), list[bytes]()
    hand_off.on_seated(ALICE, KEYS[:3])
    for now in range(10, 15):
        for contact_, key in hand_off.take(float(now), everything):
            order.append(key)
            if key == KEYS[0] and order.count(key) < 4:
                hand_off.again(contact_, key)
    assert order[:4] == [KEYS[0], KEYS[1], KEYS[2], KEYS[0]]
    assert order.count(KEYS[0]) == 4
    assert hand_off.deadline(20.0) is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5), st.integers(0, 60)), max_size=20), st.integers(1, 50))
def test_no_more_than_so_many_a_second(steps: list[tuple[float, int, int]], rate: int) -> None:
    hand_off, now, taken = HandOff(replace(CONFIG, handoff_per_s=float(rate))), 100.0, list[float]()
    for pause, who, keys in steps:
        now += pause
        hand_off.on_seated(contact(who), KEYS[:keys])
        taken += [now] * len(hand_off.take(now, everything))
    taken += [at for at, _, _ in drain(hand_off, now)]
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            # And one burst of what was not used for a second.
            assert last - first + 1 <= rate * (taken[last] - taken[first]) + rate + 2


def test_the_deadline_is_when_the_next_may_go() -> None:
    hand_off = HandOff(CONFIG)
    hand_off.on_seated(ALICE, KEYS)
    begun = len(hand_off.take(10.0, everything))
    assert begun in (20, 21)
    deadline = hand_off.deadline(10.0)
    assert deadline is not None
    assert 10.0 < deadline <= 10.0 + 1 / CONFIG.handoff_per_s + 1e-9
    assert len(hand_off.take(deadline, everything)) == 1


def test_a_full_store_does_not_hold_up_the_loop() -> None:
    looked = 0

    def pick(_who: Contact, keys: list[bytes]) -> list[bytes]:
        nonlocal looked
        looked += len(keys)
        return []

    hand_off = HandOff(CONFIG)
    for number in range(10):
        hand_off.on_seated(contact(number), KEYS)
    calls = 0
    while hand_off.deadline(0.0) is not None:
        before = looked
        hand_off.take(0.0, pick)
        calls += 1
        assert 0 < looked - before <= 256
    assert looked == 10 * len(KEYS)
    assert calls == 4


def test_what_waits_is_bounded() -> None:
    # 20 newcomers and 100 keys, but no more than 50 wait to be sent; the others are looked at when there is room.
    looked = 0

    def pick(_who: Contact, keys: list[bytes]) -> list[bytes]:
        nonlocal looked
        looked += len(keys)
        return keys

    hand_off = HandOff(replace(CONFIG, max_handoff_queue=50))
    for number in range(20):
        hand_off.on_seated(contact(number), KEYS)
    sent = len(hand_off.take(0.0, pick))
    for _ in range(10):
        sent += len(hand_off.take(0.0, pick))
    assert looked <= sent + 50 + 256
    # It does not spin while it waits for room.
    deadline = hand_off.deadline(0.0)
    assert deadline is not None
    assert deadline > 0.0
    assert sent + len(drain(hand_off)) == 20 * len(KEYS)


# --- of which records we are one of the nearest holders ---

RECORDS = [value_record(f"{number}", expires=NOW + 100 + number) for number in range(20)]
CROWD = [contact(number) for number in range(1, 41)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "come", "keep", "keep", "fail", "answer", "expire", "flush"]), st.integers(0, 39)
        ),
        max_size=80,
    ),
    st.integers(1, 4),
)
def test_near_keys_are_those_that_counting_finds(steps: list[tuple[str, int]], limit: int) -> None:
    own = contact(0)
    store = RecordStore(own.long_id, LOCAL, CONFIG, random.Random(1))
    router = RoutingTable(own, 20, CONFIG, local=True, now=0.0)
    near, now = NearKeys(own.long_id, limit), float(NOW)
    for what, number in steps:
        match what:
            case "come" | "answer":
                router.on_proved(CROWD[number], 0.0)
            case "keep":
                store.keep(RECORDS[number % 20], now)
            case "fail":
                router.on_failure(CROWD[number], 0.0)
            case "expire":
                now += number
                store.expire(now)
            case _ if number == 0:
                router.flush()
        live = [seat.contact.long_id for seat in router if not seat.failures]

        def rank(key: bytes, live: list[int] = live) -> int:
            target = int.from_bytes(key, "big")
            return sum(one ^ target < own.long_id ^ target for one in live)

        assert near.look(store, router) == [key for key, _ in store if rank(key) < limit]
