"""Candidates of a lookup: their order, their addresses, and whose word they are here on."""

import random

from support import contact_at

from dht_atonce.dht.candidates import Candidates, State
from dht_atonce.dht.contact import Contact


def near(*distances: int) -> list[Contact]:
    return [contact_at(distance) for distance in distances]


def candidates(*distances: int) -> Candidates:
    everybody = Candidates(0, (1 << 159).to_bytes(20, "big"))
    everybody.add_all(near(*distances), 1, None)
    return everybody


def test_they_stand_in_the_order_of_their_distance_and_we_are_not_among_them() -> None:
    everybody = candidates(7, 1 << 159, 3, 5, 3)
    assert everybody.distances == [3, 5, 7]
    assert [one.contact.long_id for one in everybody.order] == [3, 5, 7]


def test_only_so_many_are_kept_and_the_nearest_of_them() -> None:
    distances = list(range(1, 400))
    random.Random(1).shuffle(distances)
    everybody = candidates(*distances)
    assert everybody.distances == list(range(1, 257))


def test_what_our_own_table_holds_needs_no_referrer_whoever_names_it() -> None:
    everybody = candidates(1, 2)
    liar, known = everybody.order[1], everybody.order[0]
    liar.credit = 0
    everybody.add_all([known.contact], 2, liar)
    assert known.referrers is None
    assert known.may_be_asked


def test_one_good_word_is_enough() -> None:
    everybody = candidates(100, 101)
    liar, honest = everybody.order
    everybody.add_all(near(1), 2, liar)
    liar.credit = 0
    assert not everybody.order[0].may_be_asked
    everybody.add_all(near(1), 2, honest)
    assert everybody.order[0].may_be_asked


def test_asking_costs_credit_and_an_answer_brings_more_than_it_cost() -> None:
    everybody = candidates(100)
    (referrer,) = everybody.order
    everybody.add_all(near(1, 2), 2, referrer)
    first, second, _ = everybody.order
    before = referrer.credit
    first.ask(0.0)
    second.ask(0.0)
    assert referrer.credit == before - 2
    first.answered(None)
    assert referrer.credit == before + 1
    second.failed()
    assert referrer.credit == before + 1


def test_another_address_is_tried_after_the_first_and_a_fourth_is_not_kept() -> None:
    everybody = candidates()
    addresses = [contact_at(5, f"10.0.0.{number}") for number in range(1, 6)]
    everybody.add_all(addresses, 1, None)
    (candidate,) = everybody.order
    tried = []
    while candidate.state is State.CANDIDATE:
        tried.append(candidate.contact.ip)
        assert everybody.get(candidate.contact) is candidate
        candidate.ask(0.0)
        candidate.failed()
    assert tried == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert candidate.state is State.FAILED
