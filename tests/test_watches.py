"""What we watch and what is news there; when a key is looked up: without any network."""

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from support import NOW, contact, presence, value_record

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.watches import KeyChange, Watches, WatchEvent
from dht_atonce.dht.wire import NEARER, WATCHED
from dht_atonce.endpoints import Family
from dht_atonce.records import GONE

CONFIG = DhtConfig()
CROWD = [contact(number) for number in range(20)]
RECORD = value_record(seq=5)
KEY = RECORD.key
LEASE = int(CONFIG.watch_lease_s)


def watches(**changes: Any) -> Watches:
    return Watches(replace(CONFIG, **changes), random.Random(1), local=True)


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def agree(ours: Watches, now: float, outcome: int = WATCHED) -> list[Contact]:
    """Every holder that is asked says yes; gives whom."""
    asked = []
    while batches := ours.at.take(now):
        for batch in batches:
            asked.append(batch.contact)
            ours.on_watching(batch, batch.lease_s, bytes([outcome] * len(batch.keys)), now)
    return asked


def look_up(ours: Watches, now: float, nearest: list[Contact]) -> list[bytes]:
    """All lookups that are due find `nearest`; gives of which keys they were."""
    looked = ours.take_lookups(now)
    for one in looked:
        ours.on_nearest(one, Family.IPV4, nearest)
        ours.on_looked_up(one, now)
    return looked


def watching(now: float = 0.0, **changes: Any) -> Watches:
    """A key that is watched at four nodes."""
    ours = watches(**changes)
    ours.add(KEY)
    look_up(ours, now, CROWD[:4])
    agree(ours, now)
    return ours


# --- where ---


def test_a_key_is_looked_up_and_watched_at_the_four_nearest() -> None:
    ours = watches()
    ours.add(KEY)
    assert ours.deadline(0.0, NOW) == 0.0
    assert not ours.is_settled(KEY)
    assert look_up(ours, 0.0, CROWD) == [KEY]
    assert not ours.is_settled(KEY)
    assert agree(ours, 0.0) == CROWD[:4]
    assert ours.is_settled(KEY)
    assert ours.holders(KEY) == CROWD[:4]
    assert ours.take_lookups(1.0) == []


def test_it_is_looked_up_once_per_lease() -> None:
    ours, now, times = watching(), 0.0, []
    while (now := max(now, ours.deadline(now, NOW))) < 10 * LEASE:
        agree(ours, now)
        times += [now for _ in look_up(ours, now, CROWD[:4])]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) <= LEASE
    assert min(gaps) >= 0.8 * LEASE


def test_when_others_are_nearest_it_is_watched_there_and_ended_where_it_was() -> None:
    ours = watching()
    look_up(ours, 290.0, CROWD[2:6])
    assert ours.take_lookups(290.0) == []
    batches = ours.at.take(290.0)
    assert {batch.contact for batch in batches if batch.lease_s == 0} == set(CROWD[:2])
    for batch in batches:
        ours.on_watching(batch, batch.lease_s, bytes([WATCHED] * len(batch.keys)), 290.0)
    assert ours.holders(KEY) == CROWD[2:6]


def test_each_family_has_its_own_four() -> None:
    there = [contact(number, f"2606:4700::{number + 1:x}") for number in range(4)]
    ours = watching()
    ours.on_nearest(KEY, Family.IPV6, there)
    agree(ours, 0.0)
    assert ours.holders(KEY) == CROWD[:4] + there
    ours.on_nearest(KEY, Family.IPV6, there[1:])
    ours.on_nearest(KEY, Family.IPV4, [])  # nobody answered: better those whom we have
    assert ours.holders(KEY) == CROWD[:4] + there[1:]


def test_a_holder_that_falls_silent_is_replaced_at_once() -> None:
    ours = watching()
    ours.on_silent(CROWD[0], 100.0)
    assert ours.deadline(100.0, NOW) <= 100.0
    assert look_up(ours, 100.0, CROWD[1:5]) == [KEY]
    assert CROWD[4] in agree(ours, 100.0)
    assert ours.holders(KEY) == CROWD[1:5]


def test_who_answers_finds_and_nothing_else_is_found_ever_more_rarely() -> None:
    ours, now, times = watching(), 100.0, []
    while now < 3600:
        ours.on_silent(CROWD[0], now)
        now = max(now, ours.deadline(now, NOW))
        for batch in ours.at.take(now):
            if batch.contact != CROWD[0]:
                ours.on_watching(batch, batch.lease_s, bytes([WATCHED]), now)
        times += [now for _ in look_up(ours, now, CROWD[:4])]
    assert len(times) <= 6 + 3600 / LEASE + 3


def test_who_says_that_others_are_nearer_makes_us_look_and_not_too_often() -> None:
    ours, now, looked = watching(), 0.0, 0
    while (now := max(now, ours.deadline(now, NOW))) < 3600:
        agree(ours, now, WATCHED | NEARER)
        looked += len(look_up(ours, now, CROWD[:4]))
    assert 3600 / LEASE * 1.5 <= looked <= 3600 / (LEASE / 3)


def test_where_nobody_is_found_it_is_tried_again_with_a_growing_pause() -> None:
    ours, now, times = watches(), 0.0, []
    ours.add(KEY)
    while (now := max(now, ours.deadline(now, NOW))) < 600:
        times += [now for _ in look_up(ours, now, [])]
        assert ours.is_settled(KEY)
    gaps = [after - before for before, after in pairwise(times)]
    assert 0.9 <= gaps[0] <= 1.1
    assert 27 <= gaps[-1] <= 33
    look_up(ours, now, CROWD[:4])
    assert agree(ours, now) == CROWD[:4]


def test_a_watch_that_ends_is_forgotten_and_its_holders_are_told() -> None:
    ours = watching()
    ours.remove(KEY)
    ours.remove(KEY)
    batches = ours.at.take(1.0)
    assert [(batch.contact, batch.lease_s) for batch in batches] == [(one, 0) for one in CROWD[:4]]
    for batch in batches:
        ours.on_watching(batch, 0, b"\0", 1.0)
    assert KEY not in ours
    assert ours.take_lookups(1e6) == []
    assert ours.at.take(1e6) == []
    assert ours.deadline(1e6, NOW + 1e6) == math.inf


def test_what_ends_while_it_is_looked_up_stays_ended() -> None:
    ours = watches()
    ours.add(KEY)
    assert ours.take_lookups(0.0) == [KEY]
    ours.remove(KEY)
    ours.on_nearest(KEY, Family.IPV4, CROWD[:4])
    ours.on_looked_up(KEY, 1.0)
    assert ours.at.take(1.0) == []
    ours.add(KEY)
    assert ours.take_lookups(1.0) == [KEY]


def test_the_number_of_keys_is_bounded() -> None:
    ours = watches(max_watched=2)
    for number in (1, 2, 2):
        ours.add(key(number))
    with pytest.raises(ValueError, match="at most 2 keys"):
        ours.add(key(3))


# --- news ---


def test_a_record_is_news_once() -> None:
    ours = watching()
    assert ours.on_record(RECORD, NOW) == WatchEvent(KeyChange.RECORD, RECORD)
    assert ours.on_record(RECORD, NOW) is None
    assert ours.on_record(value_record(seq=4), NOW) is None
    assert ours.on_record(value_record("other"), NOW) is None
    newer = value_record(seq=6, value=b"newer")
    assert ours.on_record(newer, NOW) == WatchEvent(KeyChange.RECORD, newer)
    assert ours.record(KEY) == newer


def test_a_goodbye_is_told_as_one() -> None:
    there, gone = presence(seq=1), presence(seq=2, status=GONE, expires=NOW + 100)
    ours = watches()
    ours.add(there.key)
    ours.on_record(there, NOW)
    assert ours.on_record(gone, NOW) == WatchEvent(KeyChange.GOODBYE, gone)
    assert ours.take_expired(NOW + 101) == []  # that a goodbye ends is no news
    assert ours.is_over(gone.key)
    assert ours.on_record(there, NOW + 102) is None  # nor is what it ended


def test_a_record_is_over_by_its_own_expiry() -> None:
    ours, record = watching(), value_record(seq=5, expires=NOW + 100)
    ours.on_record(record, NOW)
    assert ours.deadline(10.0, NOW) <= 110.0
    assert ours.take_expired(NOW + 99.9) == []
    assert ours.take_expired(NOW + 100) == [WatchEvent(KeyChange.EXPIRED, record)]
    assert ours.take_expired(NOW + 200) == []
    assert ours.on_record(record, NOW + 200) is None
    back = value_record(seq=6, expires=NOW + 300)
    assert ours.on_record(back, NOW + 200) == WatchEvent(KeyChange.RECORD, back)
    assert ours.take_expired(NOW + 300) == [WatchEvent(KeyChange.EXPIRED, back)]


def test_what_is_over_already_is_no_news() -> None:
    assert watching().on_record(value_record(expires=NOW), NOW) is None


def test_a_record_that_is_renewed_all_the_time_has_one_expiry() -> None:
    ours = watching()
    for seq in range(1000):
        ours.on_record(value_record(seq=seq + 10, expires=NOW + 100 + seq), NOW + seq / 100)
    kept = [part for part in vars(ours).values() if isinstance(part, dict | list)]
    assert sum(map(len, kept)) < 10
    assert ours.take_expired(NOW + 150) == []
    assert len(ours.take_expired(NOW + 2000)) == 1


# --- cost ---


def test_ten_thousand_watches_at_rest_cost_renewals_and_bounded_lookups() -> None:
    """10,000 keys at four each of 400 nodes: 100 at each, so four requests per node and renewal."""
    ours, crowd = watches(), [contact(number) for number in range(400)]
    rng = random.Random(2)
    nearest = {key(number): rng.sample(crowd, 4) for number in range(10_000)}
    for one in nearest:
        ours.add(one)
    while due := ours.take_lookups(0.0):
        for one in due:
            ours.on_nearest(one, Family.IPV4, nearest[one])
            ours.on_looked_up(one, 0.0)
    agree(ours, 0.0)
    now, wakes, asked, looked = 0.0, 0, 0, 0
    while (now := max(now, ours.deadline(now, NOW))) < 600:
        wakes += 1
        asked += len(agree(ours, now))
        for one in ours.take_lookups(now):
            looked += 1
            ours.on_nearest(one, Family.IPV4, nearest[one])
            ours.on_looked_up(one, now)
    per_holder = 10_000 * 4 / 400 / 32
    assert asked <= 400 * (per_holder + 1) * (600 / 90)
    assert looked <= 600 * CONFIG.watch_lookups_per_s
    assert wakes <= asked + looked


def test_many_first_lookups_do_not_run_all_at_once() -> None:
    ours = watches()
    for number in range(100):
        ours.add(key(number))
    taken = ours.take_lookups(0.0)
    assert len(taken) == CONFIG.watch_lookups
    ours.on_looked_up(taken[0], 0.0)
    assert len(ours.take_lookups(0.0)) == 1


def test_a_death_that_moves_many_keys_does_not_make_a_storm() -> None:
    ours = watches()
    for number in range(1000):
        ours.add(key(number))
    while look_up(ours, 0.0, CROWD[:4]):
        pass
    agree(ours, 0.0)
    ours.on_silent(CROWD[0], 100.0)
    now, times = 100.0, []
    while (now := max(now, ours.deadline(now, NOW))) < 130:
        times += [now for _ in look_up(ours, now, CROWD[1:5])]
        agree(ours, now)
    assert len(times) == pytest.approx(30 * CONFIG.watch_lookups_per_s, rel=0.1)


def test_the_same_steps_give_the_same_times() -> None:
    def run() -> list[float]:
        ours, now, times = watching(), 0.0, []
        while (now := max(now, ours.deadline(now, NOW))) < 2000:
            agree(ours, now)
            look_up(ours, now, CROWD[:4])
            times.append(now)
        return times

    assert run() == run()
