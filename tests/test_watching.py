"""Who is told of a change, how fast, and who is dropped: the holder's side of a watch, without any network."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.watching import Push, Watchers

CONFIG = DhtConfig()
KEY, OTHER = bytes(20), bytes([1] * 20)
ALICE, BOB = contact(1), contact(2)
LEASE = 300.0


def watchers(*, local: bool = True, **changes: Any) -> Watchers:
    return Watchers(replace(CONFIG, **changes), random.Random(1), local=local)


def told(pushes: list[Push]) -> list[Contact]:
    return [push.contact for push in pushes]


def take_all(ours: Watchers, now: float, until: float) -> list[tuple[float, Push]]:
    """What goes out when `take` is called whenever it asks to be."""
    taken = []
    while (now := max(now, ours.deadline())) <= until:
        taken += [(now, push) for push in ours.take(now)]
    return taken


def test_only_the_watchers_of_a_key_are_told() -> None:
    ours = watchers()
    assert ours.watch(ALICE, KEY, LEASE, 0.0)
    assert ours.watch(BOB, OTHER, LEASE, 0.0)
    assert ours.take(1.0) == []
    ours.on_change(KEY, 1.0)
    assert ours.deadline() == 1.0
    assert ours.take(1.0) == [Push(ALICE, KEY, 1.0)]
    assert ours.take(2.0) == []
    ours.on_change(bytes([2] * 20), 2.0)
    assert ours.take(2.0) == []


def test_what_changes_within_a_moment_is_one_push() -> None:
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    pushes = []
    for step in range(100):  # ten changes in a moment, for ten moments' time
        now = step / 100 * 2
        ours.on_change(KEY, now)
        for push in ours.take(now):
            pushes.append(push)
            ours.on_noted(push, still_watched=True)
    assert len(pushes) == pytest.approx(2 / CONFIG.notify_moment_s, abs=1)
    # And the last change is not forgotten.
    assert len(take_all(ours, 2.0, 10.0)) == 1


def test_one_push_of_a_watch_is_under_way_at_most() -> None:
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.on_change(KEY, 0.0)
    (first,) = ours.take(0.0)
    for step in range(1, 5):
        ours.on_change(KEY, float(step))
        assert ours.take(float(step)) == []
    ours.on_noted(first, still_watched=True)
    assert ours.take(5.0) == [Push(ALICE, KEY, 5.0)]
    ours.on_noted(Push(ALICE, KEY, 5.0), still_watched=True)
    assert take_all(ours, 5.0, 100.0) == []


def test_a_thousand_watchers_are_told_at_the_bounded_rate_each_once() -> None:
    ours, crowd = watchers(), [contact(number) for number in range(1000)]
    for one in crowd:
        assert ours.watch(one, KEY, LEASE, 0.0)
    ours.on_change(KEY, 10.0)
    taken = take_all(ours, 10.0, 20.0)
    assert sorted(push.contact.id for _, push in taken) == sorted(one.id for one in crowd)
    times = [at for at, _ in taken]
    assert times[-1] - times[0] == pytest.approx((1000 - CONFIG.notify_burst) / CONFIG.notify_per_s, abs=0.01)
    for first in range(0, 900, 50):
        span = times[first + 99] - times[first]
        assert span * CONFIG.notify_per_s + CONFIG.notify_burst + 1 >= 100


def test_each_holder_begins_with_others() -> None:
    orders = []
    for seed in range(2):
        ours = Watchers(CONFIG, random.Random(seed), local=True)
        for number in range(40):
            ours.watch(contact(number), KEY, LEASE, 0.0)
        ours.on_change(KEY, 10.0)
        orders.append(told(ours.take(10.0)))
    assert orders[0] != orders[1]
    assert sorted(one.id for one in orders[0]) == sorted(one.id for one in orders[1])


# --- who does not answer ---


def test_who_misses_three_is_dropped() -> None:
    ours, now = watchers(), 0.0
    ours.watch(ALICE, KEY, LEASE, now)
    ours.watch(ALICE, OTHER, LEASE, now)
    ours.on_change(KEY, now)
    pauses = []
    for _ in range(2):
        (push,) = ours.take(now)
        assert not ours.on_missed(push, now + 1)
        pauses.append(ours.deadline() - (now + 1))
        now = ours.deadline()
    assert pauses == [1.0, 2.0]
    (push,) = ours.take(now)
    assert ours.on_missed(push, now + 1)
    assert len(ours) == 0
    assert not ours.is_watched(OTHER)
    ours.on_change(OTHER, now + 2)
    assert take_all(ours, now, now + 1000) == []


@pytest.mark.parametrize("sign", ["an answer", "a renewal"])
def test_only_misses_in_a_row_count(sign: str) -> None:
    ours, now = watchers(), 0.0
    ours.watch(ALICE, KEY, 10_000, now)
    for _ in range(5):
        ours.on_change(KEY, now)
        for _ in range(2):
            (push,) = ours.take(now)
            assert not ours.on_missed(push, now)
            now = ours.deadline()
        if sign == "an answer":
            (push,) = ours.take(now)
            ours.on_noted(push, still_watched=True)
        else:
            ours.watch(ALICE, KEY, 10_000, now)
        now += 10
    assert ours.is_watched(KEY)


def test_what_is_lost_together_is_one_miss() -> None:
    ours = watchers()
    keys = [bytes([number] * 20) for number in range(10)]
    for key in keys:
        ours.watch(ALICE, key, LEASE, 0.0)
        ours.on_change(key, 10.0)
    pushes = ours.take(10.0)
    assert len(pushes) == 10
    for push in pushes:
        assert not ours.on_missed(push, 11.0)
    assert len(ours) == 10


def test_who_says_that_it_does_not_watch_is_told_no_more() -> None:
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.watch(ALICE, OTHER, LEASE, 0.0)
    ours.on_change(KEY, 0.0)
    (push,) = ours.take(0.0)
    ours.on_noted(push, still_watched=False)
    assert not ours.is_watched(KEY)
    assert ours.is_watched(OTHER)


def test_an_answer_that_comes_late_is_not_taken_for_another() -> None:
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.on_change(KEY, 0.0)
    (old,) = ours.take(0.0)
    ours.unwatch(ALICE, KEY)
    ours.on_noted(old, still_watched=True)
    assert not ours.on_missed(old, 1.0)
    ours.watch(ALICE, KEY, LEASE, 1.0)
    ours.on_change(KEY, 1.0)
    (new,) = ours.take(1.0)
    ours.on_noted(old, still_watched=False)
    assert ours.is_watched(KEY)
    ours.on_noted(new, still_watched=True)


# --- coming and going ---


def test_a_lease_ends_unless_it_is_renewed() -> None:
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.watch(BOB, KEY, LEASE, 0.0)
    ours.watch(BOB, KEY, LEASE, 100.0)
    ours.take(LEASE)
    assert len(ours) == 1
    ours.on_change(KEY, LEASE)
    assert told(ours.take(LEASE)) == [BOB]
    ours.take(100.0 + LEASE)
    assert len(ours) == 0
    assert ours.deadline() == math.inf


def test_a_renewal_takes_the_place_of_a_push_that_waits() -> None:
    # What is newest goes with its answer.
    ours = watchers()
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.on_change(KEY, 0.0)
    (push,) = ours.take(0.0)
    ours.on_missed(push, 1.0)
    ours.watch(ALICE, KEY, LEASE, 1.5)
    assert take_all(ours, 1.5, 100.0) == []
    ours.tell(ALICE, KEY)  # unless it did not fit
    assert told(ours.take(100.0)) == [ALICE]


def test_a_watcher_that_moved_is_told_at_its_new_address() -> None:
    ours, moved = watchers(local=False), Contact(ALICE.key, contact(77).address)
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.watch(moved, KEY, LEASE, 1.0)
    ours.on_change(KEY, 1.0)
    assert told(ours.take(1.0)) == [moved]
    assert len(ours) == 1


def test_in_each_family_it_is_another_watch() -> None:
    ours, there = watchers(), Contact(ALICE.key, contact(1, "2606:4700::1").address)
    ours.watch(ALICE, KEY, LEASE, 0.0)
    ours.watch(there, KEY, LEASE, 0.0)
    ours.on_change(KEY, 10.0)
    assert sorted(str(one) for one in told(ours.take(10.0))) == sorted(map(str, (ALICE, there)))


# --- bounds ---


@pytest.mark.parametrize(
    ("bound", "refused"),
    [
        ("max_watches", (BOB, OTHER)),
        ("max_watches_per_key", (BOB, KEY)),
        ("max_watches_per_watcher", (ALICE, OTHER)),
        ("max_watches_per_subnet", (contact(9, "51.0.1.99"), OTHER)),
    ],
)
def test_each_bound_holds(bound: str, refused: tuple[Contact, bytes]) -> None:
    ours = watchers(local=False, **{bound: 1})
    assert ours.watch(ALICE, KEY, LEASE, 0.0)
    assert not ours.watch(*refused, LEASE, 0.0)
    assert ours.watch(ALICE, KEY, LEASE, 0.0)  # a renewal takes no room
    ours.unwatch(ALICE, KEY)
    assert ours.watch(*refused, LEASE, 0.0)


def test_subnets_have_no_bound_in_a_local_network() -> None:
    ours = watchers(max_watches_per_subnet=1)
    assert ours.watch(ALICE, KEY, LEASE, 0.0)
    assert ours.watch(contact(9, "51.0.1.99"), KEY, LEASE, 0.0)


def test_who_comes_and_goes_leaves_nothing_behind() -> None:
    ours = watchers(local=False)
    ours.watch(BOB, OTHER, LEASE, 0.0)
    for number in range(5000):
        ours.watch(ALICE, KEY, LEASE, number / 100)
        ours.tell(ALICE, KEY)
        ours.unwatch(ALICE, KEY)
    kept = [part for part in vars(ours).values() if isinstance(part, dict | list)]
    assert sum(map(len, kept)) < 100


# --- cost ---


def test_ten_thousand_watches_at_rest_cost_their_leases_and_nothing_else() -> None:
    ours, wakes, taken = watchers(), 0, 0
    who = [contact(number) for number in range(10)]
    for number in range(10_000):
        ours.watch(who[number % 10], number.to_bytes(20, "big"), LEASE, number / 10_000)
    now = 1.0
    while (now := max(now, ours.deadline())) < LEASE - 1:
        wakes += 1
        ours.take(now)
    assert wakes == 0
    # A change costs its watchers, however many watches there are.
    for number in range(100):
        ours.on_change(number.to_bytes(20, "big"), 10.0)
    while (now := max(10.0, ours.deadline())) < 100:
        pushes = ours.take(now)
        taken += len(pushes)
        wakes += 1
        for push in pushes:
            ours.on_noted(push, still_watched=True)
    assert taken == 100
    assert wakes <= 100
    ours.take(LEASE + 1)
    assert len(ours) == 0


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["watch", "unwatch", "change", "take", "note", "miss", "gone", "tell"]),
            st.integers(0, 3),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.05, 1.0, 100.0]),
        ),
        max_size=80,
    )
)
def test_whoever_watches_hears_of_the_last_change(steps: list[tuple[str, int, int, float]]) -> None:
    """Whatever happens in between: who still watches in the end, and answers from now on, was told after the last
    change or its last renewal."""
    ours, now, under_way = watchers(), 0.0, list[Push]()
    version, knows = [0] * 4, dict[tuple[int, int], int]()
    who, keys = [contact(number) for number in range(4)], [bytes([number] * 20) for number in range(4)]

    def take() -> None:
        for push in ours.take(now):
            assert (push.contact, push.key) not in [(other.contact, other.key) for other in under_way]
            under_way.append(push)

    def note(push: Push) -> None:
        under_way.remove(push)
        ours.on_noted(push, still_watched=True)
        knows[who.index(push.contact), keys.index(push.key)] = version[keys.index(push.key)]

    for what, one, key, pause in steps:
        now += pause
        match what:
            case "watch":
                ours.watch(who[one], keys[key], 1e9, now)
                knows[one, key] = version[key]
            case "unwatch":
                ours.unwatch(who[one], keys[key])
                knows.pop((one, key), None)
                under_way[:] = [push for push in under_way if (push.contact, push.key) != (who[one], keys[key])]
            case "change":
                version[key] += 1
                ours.on_change(keys[key], now)
            case "tell":
                ours.tell(who[one], keys[key])
            case "take":
                take()
            case _ if under_way:
                if what == "note":
                    note(under_way[0])
                elif what == "gone":
                    ours.on_noted(under_way.pop(0), still_watched=False)
                elif ours.on_missed(push := under_way.pop(0), now):
                    under_way[:] = [other for other in under_way if other.contact != push.contact]
    while ours.deadline() < 1e8 or under_way:
        take()
        for push in list(under_way):
            note(push)
        now = max(now, ours.deadline()) if ours.deadline() < 1e8 else now
    for (one, key), known in knows.items():
        if ours.watches(who[one], keys[key]):
            assert known == version[key]
