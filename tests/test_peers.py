"""What a node remembers of others: round trips, cookies, its own address, and whom it may still bother."""

import random
from collections import Counter, defaultdict, deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.peers import KnownAddresses, ObservedAddress, UnprovedBudget, pick_diverse
from dht_atonce.endpoints import Address, Family, pack_address, subnet

CONFIG = DhtConfig()
SMALL = DhtConfig(max_known_addresses=3)
ALICE, BOB, CAROL, DAVE = (contact(number) for number in range(4))

rtts = st.floats(0.0001, 3.0)


# --- round trips ---


def test_before_any_answer_the_defaults_hold() -> None:
    trips = KnownAddresses(CONFIG)
    assert trips.timeout_s(ALICE) == CONFIG.first_timeout_s
    assert trips.hedge_s == CONFIG.first_hedge_s


@given(st.lists(rtts, min_size=1, max_size=30))
def test_the_timeout_is_that_of_rfc_6298_within_its_bounds(samples: list[float]) -> None:
    trips = KnownAddresses(CONFIG)
    srtt, rttvar = samples[0], samples[0] / 2
    trips.on_sample(ALICE, samples[0])
    for sample in samples[1:]:
        trips.on_sample(ALICE, sample)
        rttvar = 0.75 * rttvar + 0.25 * abs(srtt - sample)
        srtt = 0.875 * srtt + 0.125 * sample
    expected = min(CONFIG.max_timeout_s, max(CONFIG.min_timeout_s, srtt + 4 * rttvar))
    assert trips.timeout_s(ALICE) == pytest.approx(expected)


def test_towards_a_stranger_the_timeout_is_long_for_most_whom_we_know() -> None:
    trips = KnownAddresses(CONFIG)
    for _ in range(7):
        trips.on_sample(ALICE, 0.1)
    assert trips.timeout_s(BOB) == CONFIG.first_timeout_s  # too few to tell
    trips.on_sample(ALICE, 0.1)
    assert trips.timeout_s(BOB) == pytest.approx(2 * 0.15)
    for _ in range(64):
        trips.on_sample(ALICE, 2.0)
    assert trips.timeout_s(BOB) == CONFIG.max_timeout_s


def test_each_contact_has_its_own_timeout_and_the_node_one_hedge() -> None:
    trips = KnownAddresses(CONFIG)
    for _ in range(20):
        trips.on_sample(ALICE, 0.010)
        trips.on_sample(BOB, 0.300)
    assert trips.timeout_s(ALICE) == CONFIG.min_timeout_s
    assert 0.3 <= trips.timeout_s(BOB) < 0.4
    assert trips.hedge_s == pytest.approx(1.5 * 0.3)


@given(st.lists(rtts, min_size=8, max_size=200))
def test_the_hedge_is_half_as_much_again_as_the_75th_percentile_of_recent_round_trips(samples: list[float]) -> None:
    trips, recent = KnownAddresses(CONFIG), deque[float](maxlen=64)
    for number, sample in enumerate(samples, 1):
        trips.on_sample(contact(number), sample)
        recent.append(sample)
        if number % 8 == 0:
            percentile = sorted(recent)[len(recent) * 3 // 4]
            assert trips.hedge_s == pytest.approx(max(CONFIG.min_hedge_s, 1.5 * percentile))
        most = max(CONFIG.min_hedge_s, 2 * max(samples))
        assert CONFIG.min_hedge_s <= trips.hedge_s <= most * (1 + 1e-6)  # it is kept in single precision


def test_on_a_fast_network_the_hedge_has_a_lower_bound() -> None:
    trips = KnownAddresses(CONFIG)
    trips.on_sample(ALICE, 0.0002)
    assert trips.hedge_s == CONFIG.min_hedge_s


def test_the_one_not_heard_of_for_longest_is_forgotten() -> None:
    trips = KnownAddresses(SMALL)
    for who in (ALICE, BOB, CAROL, ALICE, DAVE):
        trips.on_sample(who, 1.0)
    assert trips.timeout_s(BOB) == SMALL.first_timeout_s
    assert all(trips.timeout_s(who) == SMALL.max_timeout_s for who in (ALICE, CAROL, DAVE))


# --- cookies that others gave us ---


def test_a_cookie_is_used_for_110_seconds() -> None:
    known = KnownAddresses(CONFIG)
    assert known.cookie(ALICE, 0.0) == b""
    known.on_cookie(ALICE, b"a" * 16, 100.0)
    assert known.cookie(ALICE, 100.0) == known.cookie(ALICE, 209.9) == b"a" * 16
    assert known.cookie(ALICE, 210.0) == b""
    assert known.cookie(BOB, 100.0) == b""
    known.on_cookie(ALICE, b"b" * 16, 300.0)
    assert known.cookie(ALICE, 300.0) == b"b" * 16


def test_who_moves_forgets_all_cookies_and_no_round_trips() -> None:
    known = KnownAddresses(CONFIG)
    for who in (ALICE, BOB):
        known.on_cookie(who, b"a" * 16, 0.0)
        known.on_sample(who, 0.1)
    before = known.timeout_s(ALICE)
    known.forget_cookies()
    assert known.cookie(ALICE, 0.0) == known.cookie(BOB, 0.0) == b""
    assert known.timeout_s(ALICE) == before
    known.on_cookie(ALICE, b"b" * 16, 1.0)
    assert known.cookie(ALICE, 1.0) == b"b" * 16


def test_a_cookie_belongs_to_a_key_at_an_address() -> None:
    known = KnownAddresses(CONFIG)
    known.on_cookie(ALICE, b"a" * 16, 0.0)
    assert known.cookie(Contact(ALICE.key, Address(ALICE.ip, ALICE.port + 1)), 0.0) == b""
    assert known.cookie(Contact(BOB.key, ALICE.address), 0.0) == b""


def test_a_refused_cookie_is_forgotten() -> None:
    known = KnownAddresses(CONFIG)
    known.on_cookie(ALICE, b"a" * 16, 0.0)
    known.forget(ALICE)
    known.forget(BOB)
    assert known.cookie(ALICE, 0.0) == b""


def test_a_bounded_number_of_cookies_is_kept() -> None:
    known = KnownAddresses(SMALL)
    for who in (ALICE, BOB, CAROL, DAVE):
        known.on_cookie(who, b"x" * 16, 0.0)
    assert [bool(known.cookie(who, 0.0)) for who in (ALICE, BOB, CAROL, DAVE)] == [False, True, True, True]


# --- both in one table ---


def test_a_node_may_be_known_at_several_addresses() -> None:
    known = KnownAddresses(CONFIG)
    at = [Contact(ALICE.key, Address(ip, 4000)) for ip in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    for number, who in enumerate(at):
        known.on_cookie(who, bytes([number]) * 16, 0.0)
        known.on_sample(who, 0.1 + number / 10)
    assert len(known) == 3
    assert [known.cookie(who, 0.0) for who in at] == [bytes([number]) * 16 for number in range(3)]
    assert [known.timeout_s(who) for who in at] == pytest.approx([0.3, 0.6, 0.9])
    known.forget(at[1])
    assert [bool(known.cookie(who, 0.0)) for who in at] == [True, False, True]
    assert known.timeout_s(at[1]) == pytest.approx(0.6)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 60)), max_size=150))
def test_it_knows_what_dicts_would(steps: list[tuple[int, int, int]]) -> None:
    known, now = KnownAddresses(CONFIG), 0
    cookies: dict[Contact, tuple[bytes, int]] = {}
    timeouts: dict[Contact, float] = {}
    for count, (number, what, pause) in enumerate(steps):
        now += pause
        who = contact(number)
        if what == 0:
            known.forget(who)
            cookies.pop(who, None)
        elif what == 1:
            cookies[who] = (count.to_bytes(16, "big"), now)
            known.on_cookie(who, *cookies[who])
        elif who not in timeouts:
            known.on_sample(who, 0.1 + number / 100)
            timeouts[who] = 3 * (0.1 + number / 100)
        for other in map(contact, range(10)):
            cookie, came = cookies.get(other, (b"", now))
            assert known.cookie(other, now) == (cookie if now - came < CONFIG.cookie_use_s else b"")
            assert known.timeout_s(other) == pytest.approx(timeouts.get(other, CONFIG.first_timeout_s))
    assert len(known) <= 10


def test_a_large_table_forgets_some_of_the_oldest_at_once() -> None:
    known = KnownAddresses(replace(CONFIG, max_known_addresses=1000))
    crowd = [contact(number) for number in range(1200)]
    for number, who in enumerate(crowd):
        known.on_cookie(who, b"x" * 16, 0.0)
        known.on_cookie(crowd[0], b"y" * 16, 0.0)
        assert min(number + 1, 980) <= len(known) <= 1000
    assert known.cookie(crowd[0], 0.0) == b"y" * 16
    assert not any(known.cookie(who, 0.0) for who in crowd[1:200])
    assert all(known.cookie(who, 0.0) for who in crowd[220:])


# --- our own address ---


def told(observed: ObservedAddress, voices: list[str]) -> None:
    for number, ip in enumerate(voices):
        observed.on_you(contact(number).key, pack_address(Address(ip, 4000)))


def test_our_address_is_what_most_say() -> None:
    observed = ObservedAddress()
    assert observed.ip(Family.IPV4) is None
    told(observed, ["9.9.9.9", "1.1.1.1", "1.1.1.1"])
    assert observed.ip(Family.IPV4) == "1.1.1.1"
    assert observed.ip(Family.IPV6) is None
    observed.on_you(ALICE.key, pack_address(Address("2606:4700::1111", 4000)))
    assert observed.ip(Family.IPV6) == "2606:4700::1111"
    assert observed.ip(Family.IPV4) == "1.1.1.1"
    observed.forget()  # we moved
    assert observed.ip(Family.IPV4) is None
    told(observed, ["8.8.8.8"])
    assert observed.ip(Family.IPV4) == "8.8.8.8"


def test_everybody_has_one_voice_however_often_it_speaks() -> None:
    observed = ObservedAddress()
    told(observed, ["1.1.1.1", "1.1.1.1"])
    for _ in range(50):
        observed.on_you(contact(7).key, pack_address(Address("9.9.9.9", 4000)))
    assert observed.ip(Family.IPV4) == "1.1.1.1"


def test_after_a_move_the_latest_voices_win() -> None:
    observed = ObservedAddress()
    told(observed, ["1.1.1.1"] * 31)
    for number in range(100, 116):
        observed.on_you(contact(number).key, pack_address(Address("8.8.8.8", 4000)))
    assert observed.ip(Family.IPV4) == "8.8.8.8"


@given(st.binary(max_size=20))
def test_nonsense_is_no_voice(raw: bytes) -> None:
    observed = ObservedAddress()
    observed.on_you(ALICE.key, raw)
    if len(raw) not in (6, 18):
        assert observed.ip(Family.IPV4) is observed.ip(Family.IPV6) is None


# --- whom we may still bother ---


def test_two_datagrams_in_ten_seconds_to_an_ip_that_never_proved_itself() -> None:
    budget = UnprovedBudget(CONFIG)
    assert [budget.take("1.1.1.1", now) for now in (0.0, 1.0, 2.0, 9.9)] == [True, True, False, False]
    assert budget.take("2.2.2.2", 2.0)
    assert [budget.take("1.1.1.1", now) for now in (10.0, 10.5, 11.0, 11.0)] == [True, False, True, False]


def test_who_proved_itself_is_asked_as_often_as_we_like() -> None:
    budget = UnprovedBudget(CONFIG)
    assert [budget.take("1.1.1.1", 0.0) for _ in range(3)] == [True, True, False]
    budget.on_proved("1.1.1.1")
    assert all(budget.take("1.1.1.1", 0.0) for _ in range(100))
    assert [budget.take("2.2.2.2", 0.0) for _ in range(3)] == [True, True, False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 4), st.integers(0, 9)), max_size=120))
def test_no_window_of_ten_seconds_holds_more_than_two(steps: list[tuple[str, float, int]]) -> None:
    budget, now = UnprovedBudget(CONFIG), 0.0
    sent: dict[str, list[float]] = defaultdict(list)
    proved: set[str] = set()
    for ip, pause, dice in steps:
        now += pause
        if dice == 0:
            budget.on_proved(ip)
            proved.add(ip)
        may = budget.take(ip, now)
        lately = [at for at in sent[ip] if now - at < 10.0]
        assert may == (ip in proved or len(lately) < 2)
        if may:
            sent[ip].append(now)


def test_the_budget_remembers_a_bounded_number_of_addresses() -> None:
    # What that costs: whoever is listed beside very many others may be asked again.
    budget = UnprovedBudget(SMALL)
    for ip in ("a", "a", "b", "c", "d"):
        assert budget.take(ip, 0.0)
    assert budget.take("a", 0.0)


# --- of one reply's contacts ---


def at(ip: str, number: int = 0) -> Contact:
    return contact(number, ip=ip)


def test_one_per_ip_and_two_per_subnet_the_nearest_first() -> None:
    reply = [at("1.1.1.1", 1), at("1.1.1.1", 2), at("1.1.1.2", 3), at("1.1.1.3", 4), at("1.1.2.1", 5)]
    assert pick_diverse(reply, CONFIG) == [reply[0], reply[2], reply[4]]
    reply = [at("2606:4700:5::1", 1), at("2606:4700:5:ffff::2", 2), at("2606:4700:5:1::3", 3), at("2606:4700:6::1", 4)]
    assert pick_diverse(reply, CONFIG) == [reply[0], reply[1], reply[3]]
    assert pick_diverse([], CONFIG) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=16))
def test_nothing_is_left_out_that_may_be_asked(places: list[tuple[int, int]]) -> None:
    reply = [at(f"1.1.{net}.{host}", number) for number, (net, host) in enumerate(places)]
    random.Random(0).shuffle(reply)
    picked = pick_diverse(reply, CONFIG)
    assert picked == [c for c in reply if c in picked]
    assert max(Counter(c.ip for c in picked).values(), default=0) <= 1
    nets = Counter(subnet(c.ip) for c in picked)
    assert max(nets.values(), default=0) <= 2
    for left_out in reply:
        if left_out not in picked:
            assert left_out.ip in {c.ip for c in picked} or nets[subnet(left_out.ip)] == 2
