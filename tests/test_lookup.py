"""A lookup: whom it asks next, and when it is over. Nothing is sent here; the tests answer in place of the network."""

import random
from collections import deque
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support import contact_at, presence

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.lookup import Lookup, LookupEnd
from dht_atonce.records import GONE

CONFIG = DhtConfig()
HEDGE = 0.1
OWN = 1 << 159
K = 4


def near(*distances: int) -> list[Contact]:
    """Contacts at these distances from the target, which is 0."""
    return [contact_at(distance) for distance in distances]


def lookup(start: list[Contact], *, need: int = K, config: DhtConfig = CONFIG, **more: int) -> Lookup:
    return Lookup(0, start, own_id=OWN.to_bytes(20, "big"), need=need, now=0.0, config=config, **more)


def answer_all(search: Lookup, knows: dict[Contact, list[Contact]] | None = None, now: float = 0.0) -> list[Contact]:
    """Everybody who is asked answers, in the order in which they were asked. Gives that order."""
    asked = []
    waiting = deque(search.next(now, HEDGE))
    while waiting:
        one = waiting.popleft()
        asked.append(one)
        search.on_reply(one, (knows or {}).get(one, []), None)
        waiting += search.next(now, HEDGE)
    return asked


# --- whom it asks ---


def test_the_nearest_are_asked_first_and_no_more_than_alpha_at_once() -> None:
    a, b, c, d, e, f = near(1, 2, 3, 4, 5, 6)
    search = lookup([f, c, a, e, b, d], need=6)
    assert search.next(0.0, HEDGE) == [a, b, c, d]
    assert search.next(0.01, HEDGE) == []
    # As soon as one fails the next is asked: nobody waits for a round.
    search.on_failure(a)
    assert search.next(0.02, HEDGE) == [e]
    # And one that is nearer has answered: one more may be in flight.
    search.on_reply(c, [], None)
    assert search.next(0.03, HEDGE) == [f]
    assert search.next(0.04, HEDGE) == []
    assert search.requests == 6


def test_with_a_lead_few_are_in_flight_until_the_nearest_have_answered_or_a_moment_is_over() -> None:
    everybody = near(*range(1, 21))
    search = lookup(everybody, need=20, eager=True, lead=2)
    assert search.next(0.0, HEDGE) == everybody[:2]
    search.on_reply(everybody[0], [], None)
    assert search.next(0.0, HEDGE) == everybody[2:4]  # one in the place of it, and one more
    search.on_reply(everybody[1], [], None)
    assert len(search.next(0.0, HEDGE)) == CONFIG.eager_alpha + 2 - 2
    search = lookup(everybody, need=20, eager=True, lead=2)
    assert search.next(0.0, HEDGE) == everybody[:2]
    assert search.deadline(HEDGE) == CONFIG.publish_lead_s
    assert search.next(CONFIG.publish_lead_s, HEDGE) == everybody[2 : CONFIG.eager_alpha]


def test_who_leads_has_answered_is_among_the_nearest_and_within() -> None:
    a, b, c, d, e = near(1, 2, 3, 4, 50)
    search = lookup([b, c, d, e], within=10)
    asked = search.next(0.0, HEDGE)
    assert asked == [b, c]
    search.on_reply(c, [a], None)
    assert search.leading(2) == []  # a and b are nearer, and have not answered
    assert search.leading(3) == [c]
    search.on_failure(b)
    assert search.leading(2) == [c]
    for contact in [a, d, e]:
        while contact not in asked and (more := search.next(0.0, HEDGE)):
            asked += more
        if contact in asked:
            search.on_reply(contact, [], None)
    assert search.leading(2) == [a, c]
    assert e not in search.leading(9)  # nobody who is farther than `within`


def test_once_one_that_ought_to_have_the_record_has_none_many_are_asked_at_once() -> None:
    everybody = near(*range(1, 41))
    search = lookup(everybody, need=20, within=100)
    assert search.next(0.0, HEDGE) == everybody[: CONFIG.near_alpha]
    search.on_reply(everybody[0], [], None)
    in_flight = CONFIG.near_alpha - 1 + len(search.next(0.0, HEDGE))
    assert in_flight >= CONFIG.absent_alpha > CONFIG.near_alpha + 1


def test_the_nearer_ones_that_answered_let_more_be_in_flight() -> None:
    everybody = near(*range(1, 21))
    search = lookup(everybody, need=20)
    assert search.next(0.0, HEDGE) == everybody[:4]
    search.on_reply(everybody[0], [], None)
    assert search.next(0.0, HEDGE) == everybody[4:6]  # one in the place of it, and one more
    search.on_reply(everybody[5], [], None)
    assert search.next(0.0, HEDGE) == everybody[6:8]


def test_an_eager_one_asks_more_at_once() -> None:
    everybody = near(*range(1, 21))
    assert lookup(everybody, need=20, eager=True).next(0.0, HEDGE) == everybody[:8]


def test_an_eager_one_asks_some_it_takes_only_if_nearer_ones_are_dead() -> None:
    everybody = near(*range(1, 11))
    search = lookup(everybody, need=4, eager=True)
    assert search.next(0.0, HEDGE) == everybody[:5]
    for one in everybody[:3]:
        search.on_reply(one, [], None)
    search.next(0.0, HEDGE)
    assert search.end is None
    search.on_reply(everybody[3], [], None)
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED  # without waiting for those


def test_nobody_waits_for_the_overdue_if_enough_others_answer() -> None:
    a, b, c = near(1, 2, 3)
    search = lookup([a, b, c], need=2)
    search.next(0.0, HEDGE)
    search.on_reply(b, [], None)
    assert search.next(HEDGE, HEDGE) == [c]
    search.on_reply(c, [], None)
    assert search.next(HEDGE, HEDGE) == []
    assert search.deadline(HEDGE) == 2 * HEDGE
    search.next(2 * HEDGE, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED


def test_if_nobody_else_is_left_the_overdue_are_waited_for() -> None:
    (slow,) = near(1)
    search = lookup([slow], need=2)
    search.next(0.0, HEDGE)
    search.next(HEDGE, HEDGE)
    search.next(20 * HEDGE, HEDGE)
    assert search.end is None
    search.on_reply(slow, near(7), None)
    assert search.next(20 * HEDGE, HEDGE) == near(7)


def test_all_within_a_distance_must_have_answered() -> None:
    everybody = near(*range(1, 11))
    search = lookup(everybody, need=2, within=6)
    assert answer_all(search) == everybody[:5]
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(2) == everybody[:2]
    assert search.closest(2, within=6) == everybody[:5]
    assert search.reach() == 2


def test_with_a_record_nobody_is_asked_for_the_sake_of_the_distance() -> None:
    everybody = near(*range(1, 11))
    search = lookup(everybody, need=4, need_with_record=2, within=8)
    search.next(0.0, HEDGE)
    search.on_reply(everybody[0], [], presence())
    search.on_reply(everybody[1], [], presence())
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.holders() == everybody[:2]
    assert search.reach() is None


def test_it_goes_on_when_others_are_heard_of() -> None:
    crowd, rest = near(1, 2, 3, 4), near(9, 10)
    search = lookup(crowd, within=20)
    answer_all(search)
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    search.widen(rest)
    assert answer_all(search) == rest
    assert search.closest(K, within=20) == crowd + rest
    assert search.known() == crowd + rest


def test_it_ends_when_so_many_agree_however_near_they_are() -> None:
    everybody = near(*range(1, 11))
    search = lookup(everybody, need=8, agreement=2)
    assert search.next(0.0, HEDGE) == everybody[:4]
    search.on_reply(everybody[3], [], presence(seq=1))
    search.on_reply(everybody[1], [], presence(seq=2))  # the newest has one voice
    assert search.next(0.0, HEDGE) == []  # two are asked still, and one more is enough
    assert search.end is None
    assert search.next(HEDGE, HEDGE) == everybody[4:5]  # they are late
    assert search.end is None
    search.on_reply(everybody[2], [], presence(seq=2))
    assert search.next(0.0, HEDGE) == []
    assert search.end is LookupEnd.AGREED
    assert search.reach() is None
    assert search.lacking(4) == [everybody[3]]


# --- on whose word ---


def test_a_liar_who_names_many_costs_no_more_than_three_requests() -> None:
    liar, honest = near(100, 200)
    phantoms = near(*range(1, 17))
    search = lookup([liar, honest], need=3)
    search.next(0.0, HEDGE)
    search.on_reply(liar, phantoms, None)
    assert search.next(0.0, HEDGE) == phantoms[:3]
    search.on_reply(honest, near(50), None)
    assert search.next(HEDGE, HEDGE) == near(50)  # an honest one's word is worth more than the nearest phantom
    for phantom in phantoms[:3]:
        search.on_failure(phantom)
    search.on_reply(near(50)[0], [], None)
    assert search.next(HEDGE, HEDGE) == []
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(3) == [near(50)[0], liar, honest]


def test_who_answers_is_a_credit_to_all_who_named_it() -> None:
    referrer = near(100)[0]
    named = near(*range(1, 17))
    search = lookup([referrer], need=16)
    search.next(0.0, HEDGE)
    search.on_reply(referrer, named, None)
    assert search.next(0.0, HEDGE) == named[:3]
    search.on_reply(named[0], [], None)
    assert search.next(0.0, HEDGE) == named[3:6]
    search.on_failure(named[1])
    search.on_failure(named[2])
    assert search.next(0.0, HEDGE) == []  # three in flight, and two were in vain
    search.on_reply(named[3], [], None)
    assert search.next(0.0, HEDGE) == named[6:9]


def test_those_whom_nobody_vouches_for_are_asked_when_nobody_else_is_left() -> None:
    referrer = near(100)[0]
    named = near(*range(1, 9))
    search = lookup([referrer], need=3)
    search.next(0.0, HEDGE)
    search.on_reply(referrer, named, None)
    for dead in search.next(0.0, HEDGE):
        search.on_failure(dead)
    assert search.next(0.0, HEDGE) == named[3:6]  # of honest nodes too, all that they know may have died
    for alive in named[3:6]:
        search.on_reply(alive, [], None)
    search.next(0.0, HEDGE)
    assert search.closest(3) == named[3:6]


def test_what_is_in_our_own_table_needs_nobodys_word() -> None:
    liar, *known = near(100, 1, 2, 3, 4, 5, 6)
    search = lookup([liar, *known], need=7, config=replace(CONFIG, alpha=7))
    search.next(0.0, HEDGE)
    search.on_reply(liar, known, None)
    for contact in known[:5]:
        search.on_failure(contact)
    search.on_reply(known[5], [], None)
    assert search.closest(7) == [known[5], liar]


def test_who_is_nearer_is_asked_before_who_was_known_before() -> None:
    a, b, c, d, e = near(10, 20, 30, 40, 50)
    search = lookup([a, b, c, d, e], need=5)
    search.next(0.0, HEDGE)
    nearer = near(1, 2)
    search.on_reply(a, nearer, None)
    assert search.next(0.0, HEDGE) == [nearer[0]]
    search.on_reply(b, [], None)
    assert search.next(0.0, HEDGE) == [nearer[1]]


def test_nobody_is_asked_who_is_farther_than_those_that_are_needed() -> None:
    everybody = near(*range(1, 11))
    search = lookup(everybody, need=2)
    assert search.next(0.0, HEDGE) == everybody[:2]
    search.on_failure(everybody[0])
    assert search.next(0.0, HEDGE) == [everybody[2]]


def test_the_late_do_not_count_but_are_still_hoped_for() -> None:
    a, b, c, d, e, f = near(1, 2, 3, 4, 5, 6)
    search = lookup([a, b, c, d, e, f], need=2)
    assert search.next(0.0, HEDGE) == [a, b]
    assert search.deadline(HEDGE) == HEDGE
    assert search.next(0.09, HEDGE) == []
    assert search.next(0.1, HEDGE) == [c, d]
    assert search.next(0.2, HEDGE) == [e, f]
    # The late ones answer after all: they are nearest, and it is over.
    search.on_reply(a, [], None)
    search.on_reply(b, [], None)
    assert search.next(0.3, HEDGE) == []
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(2) == [a, b]


@given(st.floats(0, 1e7), st.floats(0.005, 3.0))
def test_what_is_due_at_the_deadline_is_done_then(now: float, hedge_s: float) -> None:
    # However the sums are rounded; otherwise whoever comes back at the deadline would come back for ever.
    search = Lookup(0, near(1, 2), own_id=OWN.to_bytes(20, "big"), need=2, now=now, config=CONFIG)
    search.next(now, hedge_s)
    late_at = search.deadline(hedge_s)
    search.next(late_at, hedge_s)
    overdue_at = search.deadline(hedge_s)
    assert overdue_at > late_at
    search.next(overdue_at, hedge_s)
    over_at = search.deadline(hedge_s)
    assert over_at > overdue_at
    search.next(over_at, hedge_s)
    assert search.end is LookupEnd.DEADLINE


def test_it_does_not_end_while_somebody_nearer_is_late() -> None:
    a, b, c = near(1, 2, 3)
    search = lookup([a, b, c], need=2)
    search.next(0.0, HEDGE)
    search.on_reply(b, [], None)
    assert search.next(0.1, HEDGE) == [c]
    search.on_reply(c, [], None)
    assert search.next(0.1, HEDGE) == []
    assert search.end is None
    search.on_failure(a)
    search.next(0.1, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(2) == [b, c]


def test_we_do_not_ask_ourselves() -> None:
    ourselves = contact_at(OWN)
    a = near(1)[0]
    search = lookup([ourselves, a])
    assert search.next(0.0, HEDGE) == [a]
    search.on_reply(a, [ourselves, contact_at(OWN, "10.9.9.9")], None)
    assert search.next(0.0, HEDGE) == []
    assert search.end is not None


def test_nobody_is_asked_twice() -> None:
    everybody = near(*range(1, 20))
    search = lookup(everybody[:3])
    asked = answer_all(search, dict.fromkeys(everybody, everybody))
    assert len(asked) == len(set(asked)) == K


# --- when it is over ---


def test_it_ends_when_the_k_nearest_have_answered() -> None:
    everybody = near(*range(1, 20))
    search = lookup(everybody[10:12])
    answer_all(search, dict.fromkeys(everybody, everybody))
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(K) == everybody[:K]
    assert search.answered()[:K] == everybody[:K]
    assert search.next(0.0, HEDGE) == []


def test_the_failed_are_replaced_by_the_next() -> None:
    everybody = near(*range(1, 10))
    search = lookup(everybody)
    waiting = deque(search.next(0.0, HEDGE))
    while waiting:
        one = waiting.popleft()
        if one in everybody[:3]:
            search.on_failure(one)
        else:
            search.on_reply(one, everybody, None)  # who names the failed again does not bring them back
        waiting += search.next(0.0, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.closest(K) == everybody[3 : 3 + K]


def test_it_ends_when_nobody_is_left() -> None:
    assert lookup([]).next(0.0, HEDGE) == []
    search = lookup([])
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.NOBODY_LEFT
    few = near(1, 2)
    search = lookup(few)
    answer_all(search)
    assert search.end is LookupEnd.NOBODY_LEFT
    assert search.closest(K) == few
    search = lookup(few)
    search.next(0.0, HEDGE)
    for one in few:
        search.on_failure(one)
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.NOBODY_LEFT
    assert search.answered() == []


def test_it_ends_at_its_deadline_whoever_is_silent() -> None:
    search = lookup(near(1, 2))
    search.next(0.0, HEDGE)
    search.next(HEDGE, HEDGE)
    search.next(2 * HEDGE, HEDGE)
    assert search.deadline(HEDGE) == CONFIG.lookup_deadline_s
    assert search.next(14.9, HEDGE) == []
    assert search.end is None
    assert search.next(CONFIG.lookup_deadline_s, HEDGE) == []
    assert search.end is LookupEnd.DEADLINE


def test_a_liar_who_always_knows_somebody_nearer_costs_no_more_than_the_budget() -> None:
    for most in (CONFIG.lookup_max_requests, 7):
        distance = 1 << 150
        search = lookup(near(distance), max_requests=most)
        waiting = deque(search.next(0.0, HEDGE))
        requests = 0
        while waiting:
            one = waiting.popleft()
            requests += 1
            named = near(*(distance - n for n in range(1, 17)))
            distance -= 16
            search.on_reply(one, named, None)
            waiting += search.next(0.0, HEDGE)
        assert requests == search.requests == most
        assert search.end is LookupEnd.BUDGET


def test_the_budget_waits_for_those_that_were_asked() -> None:
    a, b, c = near(1, 2, 3)
    search = lookup([a, b, c], max_requests=2)
    assert search.next(0.0, HEDGE) == [a, b]
    assert search.next(1.0, HEDGE) == []
    assert search.end is None
    search.on_reply(a, [], None)
    search.next(1.0, HEDGE)
    assert search.end is None
    search.on_failure(b)
    search.next(1.0, HEDGE)
    assert search.end is LookupEnd.BUDGET
    assert search.answered() == [a]


def test_a_bounded_number_of_candidates_is_remembered_the_nearest_ones() -> None:
    first = near(1 << 150)[0]
    search = lookup([first], need=1000, max_requests=10_000)
    search.next(0.0, HEDGE)
    crowd = list(range(2, 2002))
    random.Random(1).shuffle(crowd)
    search.on_reply(first, near(*crowd), None)
    asked = answer_all(search)
    assert len(asked) <= 256
    assert sorted(asked, key=lambda one: one.long_id)[:200] == near(*range(2, 202))


# --- false addresses, and those who were not asked ---


def test_another_address_is_another_chance() -> None:
    # A liar names the honest node at an address where nobody is.
    honest, false = contact_at(1, "10.1.1.1"), contact_at(1, "10.6.6.6")
    liar, friend = near(10, 20)
    search = lookup([liar, friend])
    search.next(0.0, HEDGE)
    search.on_reply(liar, [false], None)
    assert search.next(0.0, HEDGE) == [false]
    search.on_failure(false)
    search.next(0.0, HEDGE)
    search.on_reply(friend, [false, honest], None)
    assert search.next(0.0, HEDGE) == [honest]
    search.on_reply(honest, [], None)
    search.next(0.0, HEDGE)
    assert search.closest(K) == [honest, liar, friend]


def test_the_right_address_may_come_before_the_false_one_has_failed() -> None:
    # It nearly always does: a round trip is milliseconds, a failure a second and a half. So one liar at the head of a
    # lookup hides any node from it.
    honest, false = contact_at(1, "10.1.1.1"), contact_at(1, "10.6.6.6")
    liar, friend = near(10, 20)
    search = lookup([liar, friend])
    search.next(0.0, HEDGE)
    search.on_reply(liar, [false], None)
    assert search.next(0.0, HEDGE) == [false]
    search.on_reply(friend, [honest], None)
    asked = search.next(0.0, HEDGE)
    search.on_failure(false)
    asked += search.next(2.0, HEDGE)
    assert asked == [honest]


def test_not_many_addresses_of_one_node_are_tried() -> None:
    liar = near(10)[0]
    search = lookup([liar])
    search.next(0.0, HEDGE)
    search.on_reply(liar, [], None)
    search = lookup([liar, *near(*range(20, 60))], need=40)
    tried = []
    waiting = deque(search.next(0.0, HEDGE))
    number = 0
    while waiting:
        one = waiting.popleft()
        if one.long_id == 1:
            tried.append(one)
            search.on_failure(one)
        else:
            number += 1
            search.on_reply(one, [contact_at(1, f"10.6.6.{number}")], None)
        waiting += search.next(0.0, HEDGE)
    assert len(tried) == 3


def test_an_answer_from_somebody_who_was_not_asked_is_ignored() -> None:
    a, b = near(1, 2)
    stranger = near(3)[0]
    search = lookup([a, b], config=replace(CONFIG, alpha=1))
    assert search.next(0.0, HEDGE) == [a]
    record = presence()
    search.on_reply(stranger, near(5), record)
    search.on_reply(b, near(5), record)  # known, not asked yet
    search.on_reply(contact_at(1, "10.6.6.6"), near(5), record)  # asked at another address
    search.on_failure(contact_at(1, "10.6.6.6"))
    assert search.record is None
    search.on_reply(a, [], record)
    search.on_reply(a, near(5), presence(seq=2))  # once is enough
    assert search.record is record
    assert answer_all(search) == [b]


# --- records ---


def test_who_is_far_from_the_key_is_not_believed_before_somebody_agrees() -> None:
    # Of five that are wanted, the nearest four are sure to have heard of the newest record.
    *nearer, far, farther = near(1, 2, 3, 4, 50, 60)
    search = lookup([*nearer, far, farther], need=5, config=replace(CONFIG, alpha=6))
    search.next(0.0, HEDGE)
    search.on_reply(far, [], presence(seq=1))
    assert search.record is not None
    assert not search.has_answer
    search.on_reply(nearer[3], [], presence(seq=2))
    assert search.has_answer
    assert search.record.seq == 2


def test_a_record_that_may_be_old_is_what_there_is_if_nobody_has_another() -> None:
    everybody = near(1, 2, 3, 4)
    search = lookup(everybody, need_with_record=1)
    search.next(0.0, HEDGE)
    search.on_reply(everybody[0], [], presence(seq=7), is_sure=False)
    assert search.record is None
    assert not search.has_answer
    search.next(0.0, HEDGE)
    assert search.end is None  # the others are asked as if there were none
    for one in everybody[1:]:
        search.on_reply(one, [], None)
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED
    assert search.record == presence(seq=7)
    assert search.reach() == 4
    assert search.lacking(4) == everybody[1:]


def test_a_record_that_may_be_old_does_not_hide_a_sure_one_unless_it_is_newer() -> None:
    for unsure, newest in ((1, 2), (3, 3)):
        everybody = near(1, 2)
        search = lookup(everybody, need=2)
        search.next(0.0, HEDGE)
        search.on_reply(everybody[0], [], presence(seq=unsure), is_sure=False)
        search.on_reply(everybody[1], [], presence(seq=2))
        assert search.has_answer
        search.next(0.0, HEDGE)
        assert search.record == presence(seq=newest)


def test_who_is_outside_of_the_region_is_not_believed_alone_either() -> None:
    inside, outside, beyond = near(30, 50, 60)
    for first, believed in ((inside, True), (outside, False)):
        search = lookup([inside, outside, beyond], need=5, within=40)
        search.next(0.0, HEDGE)
        search.on_reply(first, [], presence())
        assert search.has_answer is believed
        search.next(0.0, HEDGE)
        search.on_reply(beyond, [], presence())
        assert search.has_answer


def test_two_that_are_far_are_believed() -> None:
    far, farther = near(50, 60)
    search = lookup([*near(1, 2, 3, 4, 5), far, farther], need=7, config=replace(CONFIG, alpha=7))
    search.next(0.0, HEDGE)
    search.on_reply(far, near(6, 7), presence())
    assert not search.has_answer
    search.on_reply(farther, [], presence())
    assert search.has_answer


def test_the_dead_make_nobody_far() -> None:
    *dead, living = near(1, 2, 3, 4, 50)
    search = lookup([*dead, living], need=4, config=replace(CONFIG, alpha=5))
    search.next(0.0, HEDGE)
    search.on_failure(dead[0])
    search.next(0.0, HEDGE)
    search.on_reply(living, [], presence())
    assert search.has_answer


def test_the_newest_record_counts() -> None:
    a, b, c, d = near(1, 2, 3, 4)
    search = lookup([a, b, c, d])
    search.next(0.0, HEDGE)
    second = presence(seq=2)
    search.on_reply(b, [], second)
    search.on_reply(a, [], presence(seq=1))
    search.on_reply(c, [], presence(seq=2))
    assert search.record is second
    gone = presence(seq=2, status=GONE)
    search.on_reply(d, [], gone)
    assert search.record is gone


def test_with_a_record_fewer_answers_are_enough() -> None:
    everybody = near(*range(1, 9))
    search = lookup(everybody, need=6, need_with_record=2)
    search.next(0.0, HEDGE)
    search.on_reply(everybody[0], [], None)
    search.on_reply(everybody[1], [], None)
    assert search.next(0.0, HEDGE)
    assert search.end is None
    search.on_reply(everybody[3], [], presence())
    search.next(0.0, HEDGE)
    assert search.end is LookupEnd.CLOSEST_ANSWERED


def test_absence_takes_as_many_answers_as_are_needed() -> None:
    everybody = near(*range(1, 9))
    search = lookup(everybody, need=6, need_with_record=2)
    assert len(answer_all(search)) == 6
    assert search.record is None


def test_those_that_lack_the_newest_record_are_named() -> None:
    a, b, c, d = near(1, 2, 3, 4)
    search = lookup([a, b, c, d])
    assert search.lacking(4) == []
    search.next(0.0, HEDGE)
    search.on_reply(a, [], None)
    assert search.lacking(4) == []
    search.on_reply(b, [], presence(seq=1))
    search.on_reply(c, [], presence(seq=2))
    search.on_failure(d)
    assert search.lacking(4) == [a, b]
    assert search.lacking(1) == [a, b]  # whoever gave an older one should have had it, wherever it is


def test_hops_are_the_length_of_the_chain_of_referrals() -> None:
    a, b, c = near(30, 20, 10)
    search = lookup([a], need=3)
    search.next(0.0, HEDGE)
    search.on_reply(a, [b], None)
    search.next(0.0, HEDGE)
    search.on_reply(b, [c], None)
    search.next(0.0, HEDGE)
    search.on_reply(c, [], presence())
    assert search.record_hops == 3
    search = lookup([a])
    search.next(0.0, HEDGE)
    search.on_reply(a, [], presence())
    assert search.record_hops == 1


# --- over a whole network ---


class StaticNetwork:
    """Nodes that know, of each subtree beside their own path, up to 16 members; some are dead and still known.

    So it is with Kademlia's tables, and then a lookup provably finds the K nearest living nodes if no more than 12 are
    dead: each reply of 16 names at least one living node of the subtree in which the search has to go on.
    """

    REPLY = 16

    def __init__(self, rng: random.Random, count: int, dead: int) -> None:
        ids = rng.sample(range(1 << 16), count)
        # Spread over all bits, and unevenly: half of them share a prefix.
        self.nodes = [contact_at(n << 144 if n & 1 else n << 120) for n in ids if n << 144 != OWN and n << 120 != OWN]
        self.dead = set(rng.sample(self.nodes, min(dead, len(self.nodes) - 1)))
        self.tables: dict[Contact, list[Contact]] = {}
        for node in self.nodes:
            subtrees: dict[int, list[Contact]] = {}
            for other in self.nodes:
                if other != node:
                    subtrees.setdefault((node.long_id ^ other.long_id).bit_length(), []).append(other)
            self.tables[node] = [
                one for tree in subtrees.values() for one in rng.sample(tree, min(self.REPLY, len(tree)))
            ]

    def living(self, target: int) -> list[Contact]:
        return sorted((n for n in self.nodes if n not in self.dead), key=lambda n: n.long_id ^ target)

    def reply(self, node: Contact, target: int) -> list[Contact]:
        return sorted(self.tables[node], key=lambda n: n.long_id ^ target)[: self.REPLY]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 120), st.integers(0, 12))
def test_it_finds_exactly_the_k_nearest_living_nodes(seed: int, count: int, dead: int) -> None:
    rng = random.Random(seed)
    network = StaticNetwork(rng, count, dead)
    target = rng.choice([rng.getrandbits(160), rng.choice(network.nodes).long_id ^ rng.getrandbits(100)])
    living = network.living(target)
    start = rng.sample(network.nodes, min(3, len(network.nodes)))
    if not any(one in living for one in start):
        start.append(rng.choice(living))
    search = Lookup(target, start, own_id=OWN.to_bytes(20, "big"), need=K, now=0.0, config=CONFIG, max_requests=10_000)

    now = 0.0
    asked: list[tuple[float, Contact]] = []
    while True:
        asked += [(now, one) for one in search.next(now, HEDGE)]
        if search.end is not None:
            break
        # Whoever answers does so in any order, early or late; the dead fail after a second and a half.
        ready = [pair for pair in asked if (pair[1] not in network.dead and rng.random() < 0.5) or now - pair[0] >= 1.5]
        for pair in ready:
            asked.remove(pair)
            if pair[1] in network.dead:
                search.on_failure(pair[1])
            else:
                search.on_reply(pair[1], network.reply(pair[1], target), None)
        now += 0.03
        assert now < CONFIG.lookup_deadline_s

    assert search.closest(K) == living[:K]
    expected = LookupEnd.CLOSEST_ANSWERED if len(living) >= K else LookupEnd.NOBODY_LEFT
    assert search.end is expected


def test_those_who_were_named_and_not_asked_are_told() -> None:
    a, b, c, d, e = near(10, 20, 30, 40, 50)
    search = lookup([a, b], need=2)
    first = search.next(0.0, HEDGE)
    assert first == [a, b]
    search.on_reply(a, [c, e, d], None)
    search.on_failure(b)
    assert search.unasked(3) == [c, d]  # the nearest three that did not fail, less the one that answered
    assert search.unasked(10) == [c, d, e]
