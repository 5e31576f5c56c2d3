"""Who is asked for which stretch of a topic's order, and when that is enough."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from support import contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.roster import place_of
from dht_atonce.dht.stretches import Ask, Stretches

CONFIG = DhtConfig()
HOLDERS = [contact(number) for number in range(20)]
MEMBERS = [number.to_bytes(32, "big") for number in range(240)]
PAGE = 6


def stretches(total: int = 240, *, config: DhtConfig = CONFIG, holders: int = 20) -> Stretches:
    return Stretches(HOLDERS[:holders], total, config, random.Random(1))


def run(ours: Stretches, silent: int = 0) -> list[list[Ask]]:
    """What is asked in each round trip, if the first `silent` holders say that there is nobody."""
    ordered = sorted((place_of(ours.seed, one), one) for one in MEMBERS)
    rounds, asks = [], ours.next(1000)
    while asks:
        rounds.append(asks)
        following = []
        for ask in asks:
            later = [pair for pair in ordered if pair[0] >= ask.start and ask.contact not in HOLDERS[:silent]]
            for _, one in later[:PAGE]:
                ours.on_listed(ask.contact, one)
            after = ours.on_page(ask, later[PAGE][0] if len(later) > PAGE else 0)
            following += [after] if after is not None else []
        asks = following + ours.next(1000)
    return rounds


def test_all_share_the_work_three_pages_at_once() -> None:
    ours = stretches()
    rounds = run(ours)
    assert ours.is_through
    pages = 240 / PAGE
    assert 3 * pages <= sum(map(len, rounds)) <= 1.3 * 3 * pages
    assert len(rounds) <= 3 * pages / (20 * 3) + 5
    for asks in rounds:
        assert max(Counter(ask.contact for ask in asks).values()) <= 3
    assert max(Counter(ask.contact for asks in rounds for ask in asks).values()) <= 12


def test_each_stretch_is_gone_through_at_three_holders() -> None:
    begun = [ask for asks in run(stretches()) for ask in asks]
    who = {(ask.stretch, ask.contact) for ask in begun}
    assert Counter(stretch for stretch, _ in who) == dict.fromkeys(range(10), 3)
    assert min(ask.start for ask in begun) == 1  # 0 would ask for contacts, too


def test_there_is_room_for_so_many_and_no_more() -> None:
    ours = stretches()
    assert len(ours.next(7)) == 7
    assert ours.next(0) == []


@pytest.mark.parametrize("silent", [3, 10])
def test_who_is_silent_about_a_stretch_is_found_out(silent: int) -> None:
    ours = stretches()
    for at, one in enumerate(MEMBERS):  # what the first pages told
        if at % 2:
            ours.on_listed(HOLDERS[19], one)
    run(ours, silent)
    listed = [stretch.known for stretch in ours._stretches]
    assert sum(map(len, listed)) >= 239


def test_those_known_to_one_alone_are_asked_for_at_others() -> None:
    ours = stretches()
    ours.on_listed(HOLDERS[0], b"made up".ljust(32))
    asked = Counter(stretch for stretch, _ in {(a.stretch, a.contact) for asks in run(ours) for a in asks})
    assert sorted(asked.values()) == [3] * 9 + [20]
    gone = stretches()
    gone.on_listed(HOLDERS[0], b"made up".ljust(32))
    gone.on_gone(b"made up".ljust(32))
    assert len({(a.stretch, a.contact) for asks in run(gone) for a in asks}) == 30


def test_where_each_keeps_a_sample_all_are_gone_through() -> None:
    ours = stretches(total=100)
    rounds = run(ours)
    assert not ours.is_through
    assert {ask.contact for asks in rounds for ask in asks} == set(HOLDERS)
    assert len({(ask.stretch, ask.contact) for asks in rounds for ask in asks}) == 20 * 5


def test_who_told_all_with_the_first_page_is_not_asked_again() -> None:
    ours = stretches(total=3)
    for who in HOLDERS[:3]:
        for one in MEMBERS[:3]:
            ours.on_listed(who, one)
        ours.on_whole(who, counts=True)
    assert ours.is_through
    ours = stretches(total=3)
    for who in HOLDERS[:3]:
        ours.on_whole(who, counts=False)
    assert not ours.is_through
    assert not {ask.contact for ask in ours.next(100)} & set(HOLDERS[:3])


def test_who_fails_or_tells_too_much_is_asked_no_more_and_others_are() -> None:
    ours = stretches(total=24)
    first = ours.next(100)
    assert len(first) == 3
    ours.on_failure(first[0])
    ours.on_silenced(first[1].contact)
    assert ours.on_page(first[1], first[1].start + 1) is None
    second = ours.next(100)
    assert len(second) == 2
    assert not {ask.contact for ask in first} & {ask.contact for ask in second}


def test_what_holders_say_they_have_is_not_believed_beyond_what_one_keeps() -> None:
    ours = stretches(total=10**9, config=replace(CONFIG, topic_members=48))
    assert {ask.stretch for ask in ours.next(10**6)} == {0, 1}
    assert stretches(holders=0).next(100) == []
