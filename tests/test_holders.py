"""What the nodes that watch for us are told, and when: without any network."""

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from support import contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.holders import Batch, Holders
from dht_atonce.dht.reach import Reach
from dht_atonce.dht.wire import MAX_WATCHES, NEARER, WATCHED

CONFIG = DhtConfig()
ALICE, BOB = contact(1), contact(2)
LEASE = 300


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def holders(*, local: bool = True, **changes: Any) -> tuple[Holders, Reach]:
    config = replace(CONFIG, **changes)
    reach = Reach(config, local=local)
    return Holders(config, random.Random(1), reach), reach


def agree(ours: Holders, now: float, outcome: int = WATCHED) -> list[Batch]:
    """All that is due, answered at once."""
    batches = []
    while taken := ours.take(now):
        batches += taken
        for batch in taken:
            ours.on_watching(batch, LEASE, bytes([outcome if batch.lease_s else 0] * len(batch.keys)), now)
    return batches


def test_a_key_is_watched_once_its_holder_says_so() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    assert ours.deadline(0.0) == 0.0
    assert ours.is_pending(ALICE, key(1))
    (batch,) = ours.take(0.0)
    assert batch == Batch(ALICE, LEASE, [key(1)], False)
    assert ours.take(0.0) == []
    assert ours.is_pending(ALICE, key(1))
    assert ours.on_watching(batch, LEASE, bytes([WATCHED]), 1.0) == []
    assert not ours.is_pending(ALICE, key(1))
    assert ours.watches(ALICE, key(1))


def test_watches_are_renewed_at_a_third_of_their_lease() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    times = []
    for _ in range(50):
        now = ours.deadline(0.0)
        (batch,) = agree(ours, now)
        assert batch.is_renewal
        times.append(now)
    gaps = [after - before for before, after in pairwise(times)]
    assert 90 <= min(gaps) < 95
    assert 105 < max(gaps) <= 110


@pytest.mark.parametrize(("granted", "soonest", "latest"), [(60, 18, 22), (1, 9, 11), (100_000, 90, 110)])
def test_a_shorter_lease_is_renewed_sooner_within_reason(granted: int, soonest: float, latest: float) -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    (batch,) = ours.take(0.0)
    ours.on_watching(batch, granted, bytes([WATCHED]), 0.0)
    assert soonest <= ours.deadline(0.0) <= latest


def test_many_watches_at_one_node_are_renewed_in_few_requests_one_after_another() -> None:
    ours, _ = holders()
    for number in range(1000):
        ours.enter(ALICE, key(number))
    assert len(ours.take(0.0)) == 1  # the next goes when it has answered
    ours, _ = holders()
    for number in range(1000):
        ours.enter(ALICE, key(number))
    agree(ours, 0.0)
    batches = agree(ours, ours.deadline(0.0))
    assert len(batches) == math.ceil(1000 / MAX_WATCHES)
    assert Counter(one for batch in batches for one in batch.keys) == Counter(key(number) for number in range(1000))


def test_a_key_that_comes_later_joins_the_renewal_of_the_others() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    due = ours.deadline(0.0)
    ours.enter(ALICE, key(2))
    (batch,) = agree(ours, 50.0)
    assert batch.keys == [key(2)]
    assert not batch.is_renewal
    assert ours.deadline(50.0) == due
    (batch,) = agree(ours, due)
    assert batch.keys == [key(1), key(2)]


def test_who_says_that_others_are_nearer_is_reported() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    ours.enter(ALICE, key(2))
    (batch,) = ours.take(0.0)
    assert ours.on_watching(batch, LEASE, bytes([WATCHED, WATCHED | NEARER]), 0.0) == [key(2)]


@pytest.mark.parametrize("outcomes", [bytes(1), b"", bytes([WATCHED]) * 32])
def test_outcomes_of_any_length_do_no_harm(outcomes: bytes) -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    (batch,) = ours.take(0.0)
    ours.on_watching(batch, LEASE, outcomes, 0.0)
    assert ours.watches(ALICE, key(1)) == (len(outcomes) == 32)
    # Who had no room is asked again with the next renewal.
    (batch,) = agree(ours, ours.deadline(0.0))
    assert ours.watches(ALICE, key(1))


# --- leaving ---


def test_a_holder_is_told_of_the_end() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    ours.enter(ALICE, key(2))
    agree(ours, 0.0)
    ours.leave(ALICE, key(1))
    (batch,) = agree(ours, 1.0)
    assert batch[:3] == (ALICE, 0, [key(1)])
    assert ours.watches(ALICE, key(2))
    ours.leave(ALICE, key(2))
    agree(ours, 1.0)
    assert len(ours) == 0
    assert agree(ours, 1000.0) == []


def test_who_was_never_asked_is_not_told() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    ours.leave(ALICE, key(1))
    assert ours.take(0.0) == []
    assert len(ours) == 0


def test_the_end_is_told_though_the_answer_was_not_there_yet() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    (asked,) = ours.take(0.0)
    ours.leave(ALICE, key(1))
    assert ours.take(0.0) == []
    ours.on_watching(asked, LEASE, bytes([WATCHED]), 1.0)
    assert not ours.watches(ALICE, key(1))
    (ending,) = agree(ours, 1.0)
    assert ending.lease_s == 0
    assert len(ours) == 0


def test_who_comes_back_before_the_end_was_told_stays() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    ours.leave(ALICE, key(1))
    ours.enter(ALICE, key(1))
    assert [batch.lease_s for batch in agree(ours, 1.0)] == [LEASE]
    assert ours.watches(ALICE, key(1))


def test_a_silent_node_is_forgotten_with_all_that_was_for_it() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    ours.enter(BOB, key(1))
    agree(ours, 0.0)
    ours.enter(ALICE, key(2))
    (asked,) = ours.take(1.0)
    assert ours.on_silent(ALICE) == [key(1), key(2)]
    assert ours.on_silent(ALICE) == []
    assert ours.on_watching(asked, LEASE, bytes([WATCHED]), 2.0) == []
    assert not ours.watches(ALICE, key(2))
    assert {batch.contact for batch in agree(ours, 500.0)} == {BOB}


# --- keeping the way open ---


def pings(ours: Holders, until: float) -> list[float]:
    """When pings go out, all of them answered, and all watches renewed."""
    times, now = [], 0.0
    while (now := max(now, ours.deadline(now))) <= until:
        agree(ours, now)
        for who in ours.take_pings(now):
            times.append(now)
            ours.on_alive(who, now)
    return times


def test_behind_a_nat_each_holder_is_pinged_before_the_way_shuts() -> None:
    ours, _ = holders(local=False)
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    times = pings(ours, 600.0)
    gaps = [after - before for before, after in pairwise(times)]
    # A renewal does the same service.
    assert max(gaps) <= 2 * CONFIG.keep_alive_s
    assert 600 / CONFIG.keep_alive_s - 7 <= len(times) <= 600 / CONFIG.keep_alive_s


def test_where_strangers_come_through_nobody_is_pinged() -> None:
    ours, reach = holders(local=False)
    reach.on_stranger(0.0)
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    times = pings(ours, 1000.0)
    # Nor is it believed for ever.
    assert CONFIG.reach_life_s < times[0] < CONFIG.reach_life_s + 110 + CONFIG.keep_alive_s


def test_pings_stop_when_a_stranger_came_through() -> None:
    ours, reach = holders(local=False)
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    assert len(pings(ours, 60.0)) == 2
    reach.on_stranger(60.0)
    assert [at for at in pings(ours, 500.0) if at > 60] == []


def test_pings_are_bounded() -> None:
    ours, _ = holders(local=False, max_keep_alives=10)
    for number in range(100):
        ours.enter(contact(number), key(1))
    agree(ours, 0.0)
    assert len(ours.take_pings(26.0)) == 10


def test_in_a_local_network_nobody_is_pinged() -> None:
    ours, _ = holders()
    ours.enter(ALICE, key(1))
    agree(ours, 0.0)
    assert pings(ours, 1000.0) == []
