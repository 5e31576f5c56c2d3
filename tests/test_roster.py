"""The members of a topic at one node: as many as fit, and of more a sample in which nobody can better its chances."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import INCARNATION, NOW, PUBLIC, identity, public_ip

from dht_atonce.config import DhtConfig
from dht_atonce.dht.roster import Lottery, Roster, place_of
from dht_atonce.endpoints import Address
from dht_atonce.identity import PeerId
from dht_atonce.records import GONE, MembershipRecord, topic_key

KEY = topic_key(PUBLIC, "a room")
CONFIG = replace(DhtConfig(), topic_members=40, topic_undialled=10, topic_goodbyes=10)
EPOCH = int(CONFIG.lottery_epoch_s)
LATER = NOW + 3600

IDS = [identity(number).id for number in range(120)]


def roster(config: DhtConfig = CONFIG, *, local: bool = False, seed: int = 1) -> Roster:
    return Roster(KEY, config, Lottery(random.Random(seed), config.lottery_epoch_s), local=local)


def member(
    number: int, *ips: str, seq: int = 1, expires: int = LATER, gone: bool = False, size: int = 100
) -> MembershipRecord:
    """As a parser would give it, in a subnet of its own if none is named; the roster does not look at signatures."""
    where = () if gone else tuple(Address(ip, 4000) for ip in ips or (public_ip(number),))
    return unsigned(IDS[number], where, seq=seq, expires=expires, gone=gone, size=size)


def undialled(number: int) -> MembershipRecord:
    return unsigned(IDS[number], ())


def unsigned(
    peer_id: PeerId,
    where: tuple[Address, ...],
    *,
    seq: int = 1,
    expires: int = LATER,
    gone: bool = False,
    size: int = 100,
) -> MembershipRecord:
    return MembershipRecord(
        peer_id=peer_id,
        seq=seq,
        incarnation=INCARNATION,
        expires=expires,
        key=KEY,
        blob=(peer_id.key + seq.to_bytes(8, "big")).ljust(size),
        topic="a room",
        status=GONE if gone else "online",
        endpoints=where,
        data=b"",
    )


def offer(ours: Roster, record: MembershipRecord, now: float = NOW) -> bool:
    """As the store does; whether it has a place now."""
    losers = ours.losers(record, now)
    for loser in losers or []:
        ours.leave(loser)
    if losers is not None:
        ours.enter(record, record.expires)
    return losers is not None


def numbers(ours: Roster) -> list[int]:
    return [IDS.index(record.peer_id) for record in ours.records()]


# --- one for each identity ---


def test_all_that_come_have_a_place_and_each_has_one() -> None:
    ours = roster()
    for number in range(5):
        assert offer(ours, member(number))
        assert offer(ours, member(number, seq=2))
    assert len(ours) == ours.live_count == 5
    assert all(record.seq == 2 for record in ours.records())


def test_who_has_left_is_remembered_but_not_counted() -> None:
    ours = roster()
    for number in range(3):
        offer(ours, member(number))
    assert offer(ours, member(1, seq=2, gone=True))
    assert (len(ours), ours.live_count) == (3, 2)
    assert offer(ours, member(1, seq=3))
    assert (len(ours), ours.live_count) == (3, 3)


def test_a_member_is_over_at_its_expiry_or_sooner_if_the_store_says_so() -> None:
    ours = roster()
    first, second = member(0, expires=NOW + 100), member(1)
    ours.enter(first, first.expires)
    ours.enter(second, NOW + 50)
    assert ours.live(IDS[0].key, NOW + 99) is first
    assert ours.live(IDS[0].key, NOW + 100) is None
    assert ours.live(IDS[1].key, NOW + 49) is second
    assert ours.live(IDS[1].key, NOW + 50) is None
    ours.enter(member(1, seq=2), LATER)
    assert ours.live(IDS[1].key, NOW + 50) is not None


# --- more than fit ---


def test_of_more_than_fit_so_many_stay() -> None:
    ours = roster()
    for number in range(120):
        offer(ours, member(number))
    assert ours.live_count == 40


def test_whatever_the_order_and_however_often_they_come_the_same_stay() -> None:
    stayed = []
    for shuffled in range(4):
        ours = roster()
        order = [number for number in range(120) for _ in range(1 + number % 3)]
        random.Random(shuffled).shuffle(order)
        for seq, number in enumerate(order):
            offer(ours, member(number, seq=seq))
        stayed.append(sorted(numbers(ours)))
    assert stayed[0] == stayed[1] == stayed[2] == stayed[3]


def test_the_sample_is_fair() -> None:
    # 120 members, 40 places, 100 nodes: each member should have 33.3 places. The statistic has 119 degrees of freedom
    # and a factor for draws without replacement; 170 is passed by chance in one of a thousand.
    def unfairness(counts: Counter[int]) -> float:
        expected = 100 * 40 / 120
        return sum((counts[number] - expected) ** 2 for number in range(120)) / (expected * (1 - 40 / 120))

    fair, first_come = Counter[int](), Counter[int]()
    for seed in range(100):
        ours = roster(seed=seed)
        for number in range(120):
            offer(ours, member(number))
        fair.update(numbers(ours))
        first_come.update(range(40))
    assert unfairness(fair) < 170
    assert unfairness(first_come) > 1000  # the control: who comes first stays


def test_the_next_epoch_draws_anew_so_that_nobody_stays_away_for_ever() -> None:
    ours, seen = roster(), set[int]()
    for epoch in range(12):
        for number in range(120):
            offer(ours, member(number, seq=1 + epoch, expires=NOW + 100 * EPOCH), NOW + epoch * EPOCH)
        seen.update(numbers(ours))
    assert len(seen) >= 115  # 120 · (1 − (2/3)^12) = 119


def test_within_an_epoch_to_announce_again_changes_nothing() -> None:
    ours = roster()
    for number in range(120):
        offer(ours, member(number))
    stayed = sorted(numbers(ours))
    left_out = next(number for number in range(120) if number not in stayed)
    begun = NOW // EPOCH * EPOCH
    for seq in range(50):
        assert not offer(ours, member(left_out, seq=seq), begun + EPOCH - 1 - seq)
    assert sorted(numbers(ours)) == stayed


# --- subnets, those that cannot be dialled, goodbyes ---


def test_a_subnet_has_eight_places() -> None:
    ours = roster(DhtConfig())
    for number in range(20):
        offer(ours, member(number))
    for number in range(20, 120):
        offer(ours, member(number, f"51.9.9.{number}"))
    hostile = [number for number in numbers(ours) if number >= 20]
    assert len(hostile) == 8
    assert hostile != list(range(20, 28))  # and not just those that came first
    assert len(ours) == 28


def test_an_ipv6_subnet_is_a_48() -> None:
    ours = roster(DhtConfig())
    for number in range(20):
        offer(ours, member(number, f"2606:4700:1:{number:x}::1"))
    assert len(ours) == 8


def test_a_member_at_several_subnets_needs_a_place_in_each() -> None:
    ours = roster(DhtConfig())
    for number in range(50):
        offer(ours, member(number, "51.1.1.1", f"51.2.{number}.1"))
    assert len(ours) == 8


def test_who_moves_into_a_full_subnet_needs_a_place_there() -> None:
    ours = roster(DhtConfig())
    for number in range(8, 16):
        offer(ours, member(number, "51.1.1.1"))
    outcomes = set()
    for number in range(8):
        offer(ours, member(number))
        outcomes.add(offer(ours, member(number, "51.1.1.1", seq=2)))
        assert len([one for one in ours.records() if one.endpoints[0].ip == "51.1.1.1"]) == 8
    assert outcomes == {True, False}


def test_a_local_network_has_no_subnets() -> None:
    ours = roster(local=True)
    for number in range(35):
        assert offer(ours, member(number, "10.0.0.1"))
    assert ours.live_count == 35


def test_who_cannot_be_dialled_has_a_quarter_of_the_places() -> None:
    ours = roster()
    for number in range(60):
        offer(ours, undialled(number))
    assert ours.live_count == 10
    for number in range(60, 85):
        assert offer(ours, member(number))
    assert ours.live_count == 35


def test_goodbyes_have_a_quarter_and_do_not_crowd_out_the_living() -> None:
    ours = roster()
    for number in range(40):
        offer(ours, member(number))
    for number in range(40, 120):
        offer(ours, member(number, gone=True))
    assert ours.live_count == 40
    assert len(ours) == 50


# --- pages ---


def pages(ours: Roster, seed: bytes, *, room: int = 450, most: int = 16, now: float = NOW) -> list[MembershipRecord]:
    found, start = [], 0
    for _ in range(200):
        page, following = ours.page(seed, start, now, room=room, most=most)
        assert sum(len(record.blob) + 3 for record in page) <= room
        assert len(page) <= most
        found += page
        if not following:
            return found
        assert following > start
        start = following
    raise AssertionError("it never ends")


@settings(max_examples=25)
@given(st.binary(min_size=8, max_size=8), st.integers(1, 16), st.integers(515, 1000))
def test_the_pages_together_have_each_member_once_in_the_order_of_the_seed(seed: bytes, most: int, room: int) -> None:
    ours = roster()
    for number in range(30):
        offer(ours, member(number, size=100 + 13 * number))
    found = pages(ours, seed, room=room, most=most)
    assert sorted(IDS.index(record.peer_id) for record in found) == list(range(30))
    places = [place_of(seed, record.peer_id.key) for record in found]
    assert places == sorted(places)


def test_what_comes_and_goes_between_two_pages_neither_repeats_nor_hides_anybody() -> None:
    ours, seed = roster(), bytes(8)
    for number in range(30):
        offer(ours, member(number))
    found, start, number = Counter[int](), 0, 30
    while True:
        page, following = ours.page(seed, start, NOW, room=350, most=16)
        found.update(IDS.index(record.peer_id) for record in page)
        if not following:
            break
        start = following
        ours.leave(page[0])
        offer(ours, member(number))
        number += 1
    assert all(found[number] == 1 for number in range(30))
    assert max(found.values()) == 1


def test_what_is_over_is_on_no_page() -> None:
    ours = roster()
    for number in range(20):
        offer(ours, member(number, expires=NOW + 100 + number))
    assert len(pages(ours, bytes(8), now=NOW + 110)) == 9


def test_a_record_for_which_there_is_no_room_is_on_the_next_page() -> None:
    ours = roster()
    offer(ours, member(0, size=500))
    assert ours.page(bytes(8), 0, NOW, room=502, most=16) == ([], place_of(bytes(8), IDS[0].key))


def test_one_can_go_through_all_of_them_whatever_changes() -> None:
    ours = roster()
    for number in range(30):
        offer(ours, member(number))
    through, at = [], b""
    while (record := ours.following(at, NOW)) is not None:
        at = record.peer_id.key
        through.append(at)
        offer(ours, member(len(through) % 30, seq=2))
    assert through == sorted(peer_id.key for peer_id in IDS[:30])
    assert ours.following(b"", LATER) is None


@pytest.mark.parametrize("leaves", ["last", "any"])
def test_nothing_is_left_of_those_who_leave(leaves: str) -> None:
    ours = roster()
    for number in range(120):
        offer(ours, member(number, gone=number % 3 == 0))
    while len(ours):
        ours.leave(ours.last(NOW) if leaves == "last" else ours.records()[0])
    assert ours.live_count == 0
    assert ours.records() == []
    assert pages(ours, bytes(8)) == []


def test_a_lottery_draws_no_key_before_it_is_asked_and_one_for_each_epoch() -> None:
    rng = random.Random(1)
    lottery, state = Lottery(rng, 100.0), rng.getstate()
    assert rng.getstate() == state
    first = lottery.secret(150.0)
    assert lottery.secret(199.9) == first
    assert lottery.secret(200.0) != first
