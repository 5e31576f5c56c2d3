"""Whom a seed can name to newcomers, and what it counts of what is sent to it."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atonce_seed.directory import Directory, Traffic
from dht_atonce.config import SeedConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Address, Family

CONFIG = SeedConfig()
SMALL = replace(CONFIG, directory_size=5, max_contacts=3)
NOBODY = b""


def contact(number: int, *, port: int = 5000, ipv6: bool = False) -> Contact:
    """The node with this number, at an address of its own."""
    ip = f"2001:db8::{number:x}" if ipv6 else f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Contact(number.to_bytes(32, "big"), Address(ip, port))


def directory(config: SeedConfig = CONFIG) -> Directory:
    return Directory(config, random.Random(1))


def filled(count: int, config: SeedConfig = CONFIG, *, every_s: float = 0.0) -> Directory:
    """A directory in which 0, 1, … were heard of, one after the other."""
    listed = directory(config)
    for number in range(count):
        listed.on_live(contact(number), number * every_s)
    return listed


# --- who is listed ---


def test_nobody_is_listed_at_first() -> None:
    listed = directory()
    assert len(listed) == 0
    assert listed.newest_age_s(5.0) is None
    assert listed.pick(Family.IPV4, NOBODY, 5.0) == listed.contacts() == []


def test_who_is_live_is_listed_once() -> None:
    listed = directory()
    for now in range(3):
        listed.on_live(contact(1), float(now))
    assert len(listed) == 1
    assert listed.newest_age_s(5.0) == 3.0
    assert listed.pick(Family.IPV4, NOBODY, 5.0) == [contact(1)]


def test_a_node_is_listed_at_its_latest_address() -> None:
    listed = directory()
    listed.on_live(contact(1, port=5000), 0.0)
    listed.on_live(contact(1, port=6000), 1.0)
    assert listed.contacts() == [contact(1, port=6000)]


def test_a_node_is_listed_in_each_family() -> None:
    listed = directory()
    listed.on_live(contact(1), 0.0)
    listed.on_live(contact(1, ipv6=True), 0.0)
    listed.on_live(contact(2), 0.0)
    assert len(listed) == 3
    assert listed.pick(Family.IPV6, NOBODY, 1.0) == [contact(1, ipv6=True)]
    assert set(listed.pick(Family.IPV4, NOBODY, 1.0)) == {contact(1), contact(2)}


def test_the_one_heard_of_last_is_saved_first() -> None:
    listed = filled(3)
    listed.on_live(contact(0), 1.0)
    assert listed.contacts() == [contact(0), contact(2), contact(1)]


def test_who_was_silent_longest_makes_room() -> None:
    listed = filled(5, SMALL)
    listed.on_live(contact(0), 1.0)
    listed.on_live(contact(9), 1.0)
    assert len(listed) == 5
    assert contact(1) not in listed.contacts()
    assert {contact(0), contact(9)} <= set(listed.contacts())


def test_who_does_not_answer_is_removed() -> None:
    listed = filled(3)
    listed.on_failure(contact(1))
    listed.on_failure(contact(77))  # unknown, and none the worse for it
    assert listed.contacts() == [contact(2), contact(0)]


def test_an_address_that_does_not_answer_says_nothing_of_another() -> None:
    listed = directory()
    listed.on_live(contact(1, port=6000), 0.0)
    listed.on_live(contact(1, ipv6=True), 0.0)
    listed.on_failure(contact(1, port=5000))
    assert len(listed) == 2
    listed.on_failure(contact(1, port=6000))
    assert listed.contacts() == [contact(1, ipv6=True)]


def test_after_two_hours_of_silence_nobody_is_named() -> None:
    listed = filled(3, every_s=100.0)
    assert listed.pick(Family.IPV4, NOBODY, 7200.0) != []
    assert listed.pick(Family.IPV4, NOBODY, 7350.0) == [contact(2)]
    assert len(listed) == 1
    assert listed.pick(Family.IPV4, NOBODY, 7401.0) == []
    assert len(listed) == 0


def test_who_was_not_heard_of_lately_is_to_be_asked() -> None:
    listed = filled(3, every_s=1.0)
    everybody = [contact(0), contact(1), contact(2), contact(3)]
    assert listed.unheard(everybody, 2.5) == [contact(0), contact(1), contact(3)]
    listed.on_live(contact(0), 2.5)
    assert listed.unheard(everybody, 2.5) == [contact(1), contact(3)]


# --- who is named ---


def test_a_newcomer_is_not_named_to_itself() -> None:
    listed = filled(3)
    assert contact(1) not in listed.pick(Family.IPV4, contact(1).id, 1.0)
    assert len(listed.pick(Family.IPV4, contact(1).id, 1.0)) == 2


def test_sixteen_are_named_and_none_twice() -> None:
    for count in range(1, 60):
        named = filled(count).pick(Family.IPV4, NOBODY, 1.0)
        assert len(named) == min(count, 16)
        assert len(set(named)) == len(named)


def test_the_one_that_came_last_is_always_named() -> None:
    listed = directory()
    for number in range(400):
        listed.on_live(contact(number), number / 100)
        assert contact(number) in listed.pick(Family.IPV4, NOBODY, number / 100)
        if number:
            # Of two that come at once, the later hears of the earlier.
            assert contact(number - 1) in listed.pick(Family.IPV4, contact(number).id, number / 100)


def test_those_that_are_named_lie_all_over_the_id_space() -> None:
    # Each of sixteen newcomers in a row that lands elsewhere must have somebody near.
    listed = filled(200)
    for _ in range(20):
        named = listed.pick(Family.IPV4, NOBODY, 1.0)
        quarters = [sum(1 for c in named if c.id[0] >> 6 == quarter) for quarter in range(4)]
        assert min(quarters) >= 2


def test_not_always_the_same_are_named() -> None:
    listed = filled(200)
    named = {c for _ in range(60) for c in listed.pick(Family.IPV4, NOBODY, 1.0)}
    assert len(named) > 150


def test_who_was_heard_of_lately_is_named_rather_than_others() -> None:
    listed = filled(20)  # a minute and more ago
    for number in range(100, 110):
        listed.on_live(contact(number), 90.0)
    named = listed.pick(Family.IPV4, NOBODY, 100.0)
    assert len(named) == 16
    assert {contact(number) for number in range(100, 110)} <= set(named)
    assert {contact(number) for number in range(14, 20)} <= set(named)  # the latest of the others


def test_who_was_heard_of_lately_is_named_before_others() -> None:
    listed = filled(3)
    listed.on_live(contact(100), 90.0)
    listed.on_live(contact(101), 95.0)
    assert listed.pick(Family.IPV4, NOBODY, 100.0)[:2] == [contact(101), contact(100)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["live", "live6", "fails", "wait"])), max_size=80),
    st.integers(0, 30),
)
def test_whatever_happens_the_list_stays_small_and_right(events: list[tuple[int, str]], newcomer: int) -> None:
    config = replace(CONFIG, directory_size=10, max_contacts=4, directory_life_s=300.0)
    listed, now, live = directory(config), 0.0, dict[Contact, float]()
    for number, event in events:
        one = contact(number, ipv6=event == "live6")
        if event == "wait":
            now += 7.0 * number
        elif event == "fails":
            listed.on_failure(one)
            live.pop(one, None)
        else:
            listed.on_live(one, now)
            live.pop(one, None)
            live[one] = now
    latest = list(live)[-10:]
    assert listed.contacts() == latest[::-1]
    for family in Family:
        named = listed.pick(family, contact(newcomer).id, now)
        able = [
            c for c in latest if c.address.family is family and c.id != contact(newcomer).id and now - live[c] <= 300.0
        ]
        assert len(named) == len(set(named)) == min(4, len(able))
        assert set(named) <= set(able)
        assert not able or able[-1] in named


# --- what is sent to the seed ---


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def run(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_what_belongs_to_a_handshake_is_not_held_against_anybody() -> None:
    traffic = Traffic(CONFIG)
    traffic.on_request(key(1), 0.0)
    traffic.on_request(key(1), 0.1)
    assert (traffic.pending, traffic.handshake, traffic.unsolicited(1.0)) == (2, 0, 0)
    traffic.on_authenticated(key(1), run(1))
    assert (traffic.pending, traffic.handshake, traffic.unsolicited(1000.0)) == (0, 2, 0)


def test_what_no_handshake_explains_in_time_came_of_itself() -> None:
    traffic = Traffic(CONFIG)
    traffic.on_request(key(1), 0.0)
    traffic.on_request(key(1), 20.0)
    traffic.on_request(key(2), 20.0)
    assert traffic.unsolicited(29.9) == 0
    assert traffic.unsolicited(30.0) == 2
    assert traffic.pending == 1
    traffic.on_authenticated(key(1), run(1))  # too late to explain anything
    assert (traffic.handshake, traffic.unsolicited(50.0)) == (0, 3)


def test_what_comes_after_the_handshake_came_of_itself() -> None:
    traffic = Traffic(CONFIG)
    traffic.on_request(key(1), 0.0)
    traffic.on_authenticated(key(1), run(1))
    traffic.on_request(key(1), 5.0)
    assert traffic.unsolicited(100.0) == 1
    assert traffic.handshake == 1


def test_a_process_that_was_given_contacts_has_no_business_here_again() -> None:
    traffic = Traffic(CONFIG)
    traffic.on_authenticated(key(1), run(1))  # nobody was known: it may ask again
    traffic.on_authenticated(key(1), run(1))
    assert traffic.returned == 0
    traffic.on_contacts_given(run(1))
    traffic.on_authenticated(key(1), run(2))  # another run of it
    assert traffic.returned == 0
    traffic.on_authenticated(key(1), run(1))
    assert traffic.returned == 1


def test_the_counts_lose_nothing_where_memory_ends() -> None:
    traffic = Traffic(replace(CONFIG, max_handshakes=3))
    for number in range(10):
        traffic.on_request(key(number), 0.0)
    assert traffic.pending == 3
    assert traffic.unsolicited(0.0) == 7
    assert traffic.unsolicited(30.0) == 10
    for number in range(10):
        traffic.on_contacts_given(run(number))
    traffic.on_authenticated(key(0), run(0))  # forgotten
    traffic.on_authenticated(key(9), run(9))
    assert traffic.returned == 1
