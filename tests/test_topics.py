"""The members of a topic, put together from pages: all of them, or a sample that nobody can prepare for."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from support import LOCAL, NOW, PUBLIC, contact, identity, membership, public_ip, value_record

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.roster import Lottery, Roster, place_of
from dht_atonce.dht.stretches import Ask
from dht_atonce.dht.topics import MemberList
from dht_atonce.dht.wire import MAX_PAGE, Members
from dht_atonce.endpoints import Address
from dht_atonce.errors import RecordError
from dht_atonce.records import GONE, MembershipRecord, RecordParser, topic_key

CONFIG = DhtConfig()
PAGE = 750
"""Bytes for records in one reply."""

Holder = Callable[[bytes, int], Members]
"""Answers a request for a page: seed and start."""

PARSERS = {network: RecordParser(network) for network in (LOCAL, PUBLIC)}
ALL = [membership(identity(number)) for number in range(120)]


def reply(records: list[bytes], following: int = 0, total: int = 0) -> Members:
    return Members(0, bytes(8), 0, b"", bytes(6), 0, [], [], total, following, records)


def holder(
    members: list[MembershipRecord], *, seed: int = 1, config: DhtConfig = CONFIG, network: NetworkConfig = LOCAL
) -> Holder:
    """An honest one that was told of these members."""
    roster = Roster(members[0].key, config, Lottery(random.Random(seed), 7200), local=network.local)
    for record in members:
        losers = roster.losers(record, NOW)
        for loser in losers or []:
            roster.leave(loser)
        if losers is not None:
            roster.enter(record, record.expires)

    def answers(seed: bytes, start: int) -> Members:
        page, following = roster.page(seed, start, NOW, room=PAGE, most=MAX_PAGE)
        return reply([record.blob for record in page], following, roster.live_count)

    return answers


def searching(
    *, limit: int | None = None, seed: int = 1, config: DhtConfig = CONFIG, network: NetworkConfig = LOCAL
) -> MemberList:
    return MemberList(topic_key(network, "a room"), PARSERS[network], config, random.Random(seed), now=0.0, limit=limit)


def first(members: MemberList, who: Contact, answers: Holder) -> None:
    """The step of the lookup that comes to `who`."""
    ask = members.first(who)
    members.on_page(ask, answers(ask.seed, ask.start), NOW)


def gathered(holders: list[Holder], members: MemberList | None = None) -> tuple[list[int], MemberList]:
    """Go through with a search as the shell does; gives who was found, and the search."""
    members = members or searching()
    asked = {contact(number): answers for number, answers in enumerate(holders)}
    honest = []
    for who, answers in asked.items():
        with suppress(RecordError):
            first(members, who, answers)
            honest.append(who)
    members.settle(honest)
    waiting: list[Ask] = []
    while True:
        waiting += members.next(1.0)
        assert max(Counter(ask.contact for ask in waiting).values(), default=0) <= CONFIG.members_at_once
        assert waiting or not members.is_asking
        if not members.is_asking:
            return [NUMBERS[record.peer_id.key] for record in members.members()], members
        ask = waiting.pop(0)
        with suppress(RecordError):
            waiting += members.on_page(ask, asked[ask.contact](ask.seed, ask.start), NOW)


NUMBERS = {identity(number).id.key: number for number in range(400)}

# --- all of them ---


def test_all_members_are_found_once() -> None:
    found, members = gathered([holder(ALL) for _ in range(4)])
    assert sorted(found) == list(range(120))
    assert found != sorted(found)
    assert members.members() != members.members()  # in random order


def test_a_topic_that_nobody_knows_has_no_members() -> None:
    assert gathered([])[0] == []
    assert gathered([lambda _seed, _start: reply([])] * 3)[0] == []


def test_three_holders_that_agree_are_enough() -> None:
    count = Counter[int]()

    def counted(number: int) -> Holder:
        answers = holder(ALL)

        def counts(seed: bytes, start: int) -> Members:
            count[number] += 1
            return answers(seed, start)

        return counts

    found, members = gathered([counted(number) for number in range(20)])
    assert len(found) == 120
    assert max(count.values()) <= 8  # all of them have a share in it
    assert members.requests == sum(count.values()) <= 20 + 3 * 30  # of four members to a page, in 30 pages


def test_a_few_members_take_no_more_than_the_first_pages() -> None:
    found, members = gathered([holder(ALL[:3]) for _ in range(20)])
    assert sorted(found) == [0, 1, 2]
    assert members.requests == 20


def test_holders_that_keep_a_sample_each_have_all_of_them_together() -> None:
    config = replace(CONFIG, topic_members=40)
    found, _ = gathered([holder(ALL, seed=seed, config=config) for seed in range(20)])
    assert len(found) == 120  # (2/3)^20 of 120 are missed: 0.04 of a member


def test_holders_that_know_nothing_do_not_end_the_search() -> None:
    ignorant: Holder = lambda _seed, _start: reply([])  # noqa: E731
    found, _ = gathered([ignorant] * 2 + [holder(ALL[:50])] + [ignorant] * 2 + [holder(ALL)] * 2)
    assert len(found) == 120


def test_our_own_store_counts_as_a_holder() -> None:
    members = searching()
    members.on_own(ALL[:30])
    assert len(gathered([holder(ALL[20:50])], members)[0]) == 50


# --- what is newer ---


@pytest.mark.parametrize("first", [True, False])
def test_who_has_left_does_not_come_back_where_one_holder_missed_it(first: bool) -> None:
    gone = [membership(identity(number), seq=2, status=GONE) for number in range(20)]
    knows, missed = holder([*ALL[:60], *gone]), holder(ALL[:60])
    found, _ = gathered([knows, missed, missed] if first else [missed, missed, knows])
    assert sorted(found) == list(range(20, 60))


def test_the_newest_record_of_a_member_counts() -> None:
    newer = membership(identity(0), seq=2, data=b"new")
    _, members = gathered([holder(ALL[:3]), holder([newer, *ALL[1:3]]), holder(ALL[:3])])
    assert newer in members.members()
    assert ALL[0] not in members.members()


def test_what_is_over_is_left_out_and_is_no_lie() -> None:
    def answers(seed: bytes, _start: int) -> Members:
        mixed = [membership(identity(200), expires=NOW), *ALL[:2]]
        mixed.sort(key=lambda record: place_of(seed, record.peer_id.key))
        return reply([record.blob for record in mixed])

    assert sorted(gathered([answers])[0]) == [0, 1]


# --- lies ---


def lie(what: str, seed: bytes) -> Members:
    ordered = sorted(ALL[:3], key=lambda record: place_of(seed, record.peer_id.key))
    blobs = [record.blob for record in ordered]
    match what:
        case "another topic":
            return reply([membership(identity(1), "another").blob])
        case "another kind":
            return reply([value_record().blob])
        case "no signature":
            return reply([blobs[0][:-1] + bytes([blobs[0][-1] ^ 1])])
        case "too long a life":
            return reply([membership(identity(1), expires=NOW + 10 * 7200).blob])
        case "out of order":
            return reply(blobs[::-1])
        case "twice":
            return reply([blobs[0], blobs[0]])
        case "nothing, and more to come":
            return reply([], 5)
        case "a next that is not behind the page":
            return reply(blobs, place_of(seed, ordered[-1].peer_id.key))
    raise AssertionError(what)


LIES = [
    "another topic",
    "another kind",
    "no signature",
    "too long a life",
    "out of order",
    "twice",
    "nothing, and more to come",
    "a next that is not behind the page",
]


@pytest.mark.parametrize("what", LIES)
def test_a_page_that_cannot_be_is_believed_in_nothing(what: str) -> None:
    members = searching()
    ask = members.first(contact(0))
    with pytest.raises(RecordError):
        members.on_page(ask, lie(what, ask.seed), NOW)
    members.settle([contact(0)])
    assert members.next(0.0) == []
    assert members.members() == []
    assert not members.is_asking


def test_a_holder_that_never_ends_is_asked_no_more_than_the_budget() -> None:
    config = replace(CONFIG, members_max_requests=50)
    endless: Holder = lambda _seed, start: reply([], start + 1)  # noqa: E731
    found, members = gathered([endless, holder(ALL), holder(ALL)], searching(config=config))
    assert members.requests <= 50
    assert found


def test_a_holder_can_tell_no_more_than_so_many() -> None:
    config = replace(CONFIG, members_from_holder=50)
    found, _ = gathered([holder(ALL)], searching(config=config))
    assert 50 <= len(found) < 50 + 4 * CONFIG.members_at_once


def test_a_search_ends_at_its_deadline() -> None:
    members = searching()
    first(members, contact(0), holder(ALL))
    members.settle([contact(0)])
    assert members.next(CONFIG.members_deadline_s) == []
    assert members.members()


def test_who_does_not_answer_is_asked_no_more() -> None:
    members = searching()
    for number in range(3):
        first(members, contact(number), holder(ALL))
    members.settle([contact(number) for number in range(3)])
    for ask in members.next(0.0):
        members.on_failure(ask)
    assert members.next(0.0) == []
    assert not members.is_asking


# --- samples ---


def test_a_sample_has_as_many_as_it_is_to_have() -> None:
    for limit in (1, 7, 60, 119):
        found, _ = gathered([holder(ALL) for _ in range(8)], searching(limit=limit))
        assert len(found) == len(set(found)) == limit
    assert len(gathered([holder(ALL) for _ in range(8)], searching(limit=500))[0]) == 120


def test_a_small_sample_takes_no_more_than_the_first_pages() -> None:
    _, members = gathered([holder(ALL) for _ in range(20)], searching(limit=20))
    assert members.requests == 20


def unfairness(counts: Counter[int], draws: int, size: int) -> float:
    """Pearson's statistic over 120 members, for draws without replacement: 119 degrees of freedom."""
    expected = draws * size / 120
    return sum((counts[number] - expected) ** 2 for number in range(120)) / (expected * (1 - size / 120))


def test_a_sample_is_fair() -> None:
    # 170 is passed by chance in one of a thousand.
    holders = [holder(ALL) for _ in range(6)]
    counts, by_one_seed = Counter[int](), Counter[int]()
    for draw in range(100):
        counts.update(gathered(holders, searching(limit=20, seed=draw))[0])
        by_one_seed.update(gathered(holders, searching(limit=20, seed=1))[0])
    assert sum(counts.values()) == 100 * 20
    assert unfairness(counts, 100, 20) < 170
    assert unfairness(by_one_seed, 100, 20) > 1000  # the control


def test_those_whom_newcomers_know_do_not_come_up_more_often() -> None:
    # Three of six holders have been told of the first 30 only.
    holders = [holder(ALL)] * 3 + [holder(ALL[:30])] * 3
    counts = Counter[int]()
    for draw in range(100):
        counts.update(gathered(holders, searching(limit=12, seed=draw))[0])
    assert unfairness(counts, 100, 12) < 170


def test_a_liar_fills_its_own_share_of_a_sample_and_no_more() -> None:
    # It has 280 identities ready, and takes those with the lowest places in the order of whatever seed comes.
    made_up = [membership(identity(number)) for number in range(120, 400)]

    def liar(seed: bytes, start: int) -> Members:
        ordered = sorted(made_up, key=lambda record: place_of(seed, record.peer_id.key))
        page = [record for record in ordered if place_of(seed, record.peer_id.key) >= start][:5]
        return reply([record.blob for record in page], place_of(seed, page[-1].peer_id.key) + 1, 10**6)

    hostile = 0
    for seed in range(20):
        found, _ = gathered([liar, *(holder(ALL) for _ in range(9))], searching(limit=20, seed=seed))
        hostile += sum(number >= 120 for number in found)
        assert len(found) == 20
    assert hostile == 20 * 20 // 10


def test_the_limit_of_a_subnet_holds_for_all_holders_together() -> None:
    def at(number: int, ip: str) -> MembershipRecord:
        return membership(identity(number), network=PUBLIC, endpoints=(Address(ip, 4000),))

    honest = [at(number, public_ip(number)) for number in range(40)]
    hostile = [at(100 + number, f"52.1.1.{number}") for number in range(100)]
    holders = [holder([*honest, *hostile], seed=seed, network=PUBLIC) for seed in range(10)]
    for limit in (None, 48):
        found, _ = gathered(holders, searching(network=PUBLIC, limit=limit))
        assert sum(number >= 100 for number in found) == 8
        assert sum(number < 40 for number in found) == 40
