"""Who of a table is asked whether it is there, and who of those that went."""

import itertools
import random

from support import contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.seat_check import SeatCheck

CONFIG = DhtConfig()
OWN = contact(999_999)


def check(seated: int = 10) -> tuple[SeatCheck, RoutingTable, list[Contact]]:
    router = RoutingTable(OWN, 20, CONFIG, local=True, now=0.0)
    everybody = [contact(number) for number in range(seated)]
    for one in everybody:
        router.on_proved(one, 0.0)
    return SeatCheck(CONFIG, random.Random(1), 0.0), router, everybody


def dies(router: RoutingTable, one: Contact, other: Contact, now: float) -> None:
    for _ in range(3):
        router.on_failure(one, now)
        router.on_proved(other, now)


def test_who_was_heard_lately_is_not_asked() -> None:
    seats, router, everybody = check()
    assert seats.look(router, [], CONFIG.young_check_s - 1) == []
    router.on_proved(everybody[0], CONFIG.young_check_s - 1)
    assert set(seats.look(router, [], CONFIG.young_check_s + 1)) == set(everybody[1:])


def test_who_is_young_asks_more_often_and_whoever_has_seen_that_nobody_goes_asks_rarely() -> None:
    seats, router, everybody = check()
    asked = []
    for now in range(10, 20_000, 10):
        for one in seats.look(router, [], float(now)):
            router.on_proved(one, float(now))
            asked += [now] * (one == everybody[0])
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert asked[0] == 70
    assert pauses[0] == 80
    assert set(pauses[-5:]) == {CONFIG.max_check_s + 10}
    assert pauses == sorted(pauses)


def test_of_many_only_so_many_are_asked_at_once() -> None:
    router = RoutingTable(OWN, 20, CONFIG, local=True, now=0.0)
    for number in range(200):
        router.on_proved(contact(number), 0.0)
    seats = SeatCheck(CONFIG, random.Random(1), 0.0)
    assert len(seats.look(router, [], 1e6)) == CONFIG.max_checks


def test_the_failing_are_asked_at_each_look_and_looks_come_sooner() -> None:
    seats, router, everybody = check()
    assert seats.pause_s(router) > CONFIG.check_pause_s
    router.on_failure(everybody[3], 10.0)
    router.on_proved(everybody[0], 10.0)
    for now in (20.0, 30.0):
        failing, *witnesses = seats.look(router, [], now)
        assert failing == everybody[3]
        assert len(witnesses) == 2  # if they do not answer either, the fault is ours
    assert seats.pause_s(router) == CONFIG.check_pause_s


def test_while_nobody_answers_only_a_few_are_asked() -> None:
    seats, router, everybody = check()
    for one in everybody:
        router.on_failure(one, 10.0)
    asked = seats.look(router, [], 20.0)
    assert len(asked) == 4
    assert set(asked) < set(everybody)


def test_those_that_went_are_asked_now_and_then_and_their_return_is_told() -> None:
    seats, router, everybody = check()
    dies(router, everybody[0], everybody[1], 10.0)
    gone = router.take_gone()
    assert gone == [everybody[0]]
    assert everybody[0] not in seats.look(router, gone, 11.0)
    first = 11.0 + CONFIG.missing_first_s
    for one in everybody[1:]:
        router.on_proved(one, first)
    assert seats.look(router, [], first) == [everybody[0]]
    assert seats.look(router, [], first + 1) == []
    asked, now = 0, first
    while now < first + 3600:
        now += 10
        for one in everybody[1:]:
            router.on_proved(one, now)
        asked += seats.look(router, [], now).count(everybody[0])
    assert 5 <= asked <= 12
    assert not seats.take_returned()
    router.on_proved(everybody[0], now)
    seats.look(router, [], now + 1)
    assert seats.take_returned()
    assert not seats.take_returned()


def test_only_so_many_of_those_that_went_are_remembered() -> None:
    seats, router, _ = check()
    gone = [contact(1000 + number) for number in range(100)]
    seats.look(router, gone, 10.0)
    router.on_proved(contact(0), 70.0)
    asked = [one for one in seats.look(router, [], 10.0 + CONFIG.missing_first_s) if one in gone]
    assert len(asked) == CONFIG.max_missing


def test_the_more_go_the_sooner_the_others_are_asked() -> None:
    seats, router, everybody = check()
    for step in range(1, 60):
        now = 10.0 * step
        seats.look(router, [contact(5000 + step)], now)  # one of ten in ten seconds
        for one in everybody:
            router.on_proved(one, now)
    assert seats.turnover.check_s < 120
    assert set(everybody) <= set(seats.look(router, [], 590 + 120.0))
