"""The routing table: who gets a seat, who loses it, and that the nearest are the nearest."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import contact, contact_at, public_ip

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.routing import ID_BITS, RoutingTable, Seating
from dht_atonce.endpoints import Address, subnet

CONFIG = DhtConfig()
K = 4
TOP = 1 << ID_BITS
OWN = contact_at(0x1234 << 144)


def table(own: Contact = OWN, *, k: int = K, local: bool = True) -> RoutingTable:
    return RoutingTable(own, k, CONFIG, local=local, now=0.0)


def seat_all(router: RoutingTable, contacts: list[Contact], now: float = 0.0) -> None:
    for one in contacts:
        router.on_proved(one, now)


def far(number: int, ip: str = "10.0.0.1") -> Contact:
    """A contact in the half of the id space that is not ours, in the bucket at its far end."""
    return contact_at(TOP - 1 - number, ip)


NEIGHBOURS = [contact_at(OWN.long_id ^ number) for number in range(1, K + 1)]
"""The K nearest to us. Only when they have seats can anybody else be without."""


def full_of_far() -> tuple[RoutingTable, list[Contact]]:
    """A table whose bucket at the far end cannot be split further and has no free seat."""
    router = table()
    seat_all(router, NEIGHBOURS)
    seated = [far(number) for number in range(K)]
    seat_all(router, seated)
    # Buckets far from us are split until their depth is a multiple of five: so they are now.
    assert router.on_proved(far(K), 0.0) is Seating.WAITING
    router.on_failure(far(K), 0.0)  # and now nobody waits
    return router, seated


def fails(router: RoutingTable, one: Contact, times: int, now: float = 0.0) -> None:
    """`one` fails so often, while another contact answers: the fault is not ours."""
    for _ in range(times):
        router.on_failure(one, now)
        router.on_proved(NEIGHBOURS[0], now)


def nearest(contacts: list[Contact], target: int) -> list[Contact]:
    return sorted(contacts, key=lambda one: one.long_id ^ target)


# --- the k nearest ---

near_us = st.integers(0, 2**20).map(lambda n: OWN.long_id ^ n)
"""Ids close to our own, where the buckets are small."""
edges = st.integers(0, ID_BITS).map(lambda bits: (1 << bits) % TOP) | st.integers(0, ID_BITS).map(
    lambda b: (1 << b) - 1
)
ids = st.integers(0, TOP - 1) | near_us | edges


@given(st.lists(ids, unique=True, max_size=120), ids, st.integers(1, 20))
def test_the_k_nearest_are_those_that_brute_force_finds(known: list[int], target: int, k: int) -> None:
    router = table()
    seat_all(router, [contact_at(long_id) for long_id in known])
    seated = [seat.contact for seat in router]
    assert router.find_neighbors(target, k) == nearest(seated, target)[:k]
    assert router.find_neighbors(target) == nearest(seated, target)[:K]


@pytest.mark.parametrize("seed", range(5))
def test_so_it_is_in_a_large_table(seed: int) -> None:
    rng = random.Random(seed)
    router = table(k=20)
    seat_all(router, [contact_at(rng.getrandbits(160)) for _ in range(2000)])
    seated = [seat.contact for seat in router]
    assert len(router.buckets) > 10
    for _ in range(50):
        target = rng.getrandbits(160)
        assert router.find_neighbors(target, 20) == nearest(seated, target)[:20]
        left_out = nearest(seated, target)[0]
        assert router.find_neighbors(target, 20, exclude=left_out.id) == nearest(seated, target)[1:21]


@settings(max_examples=50)
@given(st.lists(ids, unique=True, max_size=60), st.data(), ids)
def test_who_fails_is_never_passed_on_and_asked_last(known: list[int], data: st.DataObject, target: int) -> None:
    router = table()
    seat_all(router, [contact_at(long_id) for long_id in known])
    seated = [seat.contact for seat in router]
    broken = data.draw(st.lists(st.sampled_from(seated), unique=True)) if seated else []
    for one in broken:
        router.on_failure(one, 1.0)
    whole = [one for one in seated if one not in broken]
    assert router.find_neighbors(target, 20) == nearest(whole, target)[:20]
    expected = nearest(whole, target) + nearest(broken, target)
    assert router.find_neighbors(target, 20, failing=True) == expected[:20]


@settings(max_examples=60)
@given(st.lists(ids, unique=True, max_size=80), st.data(), ids, ids, st.integers(1, 100))
def test_it_counts_those_who_are_nearer_than_somebody(
    known: list[int], data: st.DataObject, target: int, than: int, most: int
) -> None:
    router = table(k=20)
    seat_all(router, [contact_at(long_id) for long_id in known])
    seated = [seat.contact for seat in router]
    broken = data.draw(st.lists(st.sampled_from(seated), unique=True, max_size=5)) if seated else []
    for one in broken:
        router.on_failure(one, 1.0)
    if seated:
        than = data.draw(st.just(than) | st.sampled_from(seated).map(lambda one: one.long_id))
    nearer = sum(one.long_id ^ target < than ^ target for one in seated if one not in broken)
    counted = router.count_nearer(target, than, most)
    assert counted == nearer if nearer < most else counted >= most
    assert router.count_nearer(target, than, 1000) == nearer
    assert router.count_within(target, 150) == sum(
        one.long_id ^ target < 1 << 150 for one in seated if one not in broken
    )


@given(st.lists(ids.filter(lambda one: one != OWN.long_id), unique=True, max_size=120))
def test_the_k_nearest_to_us_all_have_seats(known: list[int]) -> None:
    # However crowded their buckets are: Kademlia section 2.4.
    router = table()
    contacts = [contact_at(long_id) for long_id in known]
    seat_all(router, contacts)
    assert router.find_neighbors(OWN.long_id) == nearest(contacts, OWN.long_id)[:K]


# --- buckets ---


def test_a_new_table_is_one_bucket_that_holds_all_ids() -> None:
    router = table()
    assert [bucket.range for bucket in router.buckets] == [(0, TOP - 1)]
    assert len(router) == 0
    assert router.find_neighbors(5) == []
    assert router.get_bucket_for(contact_at(TOP - 1)) == router.get_bucket_for(contact_at(0)) == 0


@given(st.lists(ids, unique=True, max_size=80), ids)
def test_each_id_belongs_to_the_bucket_whose_range_holds_it(known: list[int], one: int) -> None:
    router = table()
    seat_all(router, [contact_at(long_id) for long_id in known])
    bucket = router.buckets[router.get_bucket_for(contact_at(one))]
    assert bucket.range[0] <= one <= bucket.range[1]
    for edge in bucket.range:
        assert router.buckets[router.get_bucket_for(contact_at(edge))] is bucket


def test_a_bucket_away_from_us_is_split_to_a_depth_of_five_and_no_further() -> None:
    router = table()
    seat_all(router, NEIGHBOURS + [far(number) for number in range(100)])
    bucket = router.buckets[router.get_bucket_for(far(0))]
    assert bucket.depth() == 5
    assert len(bucket) == K
    assert len(router) == 2 * K


def test_our_own_bucket_is_split_to_its_end_and_no_further() -> None:
    # All ids next to ours, which nobody can choose. Each level below us has a bucket, and that may have sixteen parts.
    router = table()
    for number in range(1, 64):
        router.on_proved(contact_at(OWN.long_id ^ number), 0.0)
    assert len(router.buckets) <= 16 * ID_BITS
    assert min(bucket.bits for bucket in router.buckets) >= 0
    own = router.buckets[router.get_bucket_for(OWN)]
    assert own.bits <= 3
    one_seat = table(k=1)
    for number in (0, 1, 2, 3, 4):
        one_seat.on_proved(contact_at(OWN.long_id ^ number), 0.0)
    assert one_seat.buckets[one_seat.get_bucket_for(OWN)].bits <= 1


def test_a_bucket_is_lonely_until_a_lookup_of_our_own_ends_in_it() -> None:
    router = table()
    seat_all(router, [contact_at(random.Random(n).getrandbits(160)) for n in range(40)])
    assert len(router.buckets) > 3
    assert router.lonely_buckets(CONFIG.refresh_s - 1) == []
    assert router.lonely_buckets(CONFIG.refresh_s) == router.buckets
    bucket = router.buckets[1]
    router.on_lookup_done(bucket.range[0] + 7, 500.0)
    assert router.lonely_buckets(CONFIG.refresh_s) == [b for b in router.buckets if b is not bucket]
    assert bucket in router.lonely_buckets(500.0 + CONFIG.refresh_s)


def test_what_others_ask_or_answer_refreshes_nothing() -> None:
    router = table()
    ours = [contact_at(random.Random(n).getrandbits(160)) for n in range(40)]
    seat_all(router, ours)
    seat_all(router, ours, now=CONFIG.refresh_s)
    router.find_neighbors(5)
    router.on_failure(ours[0], CONFIG.refresh_s)
    assert router.lonely_buckets(CONFIG.refresh_s) == router.buckets


def test_the_halves_of_a_bucket_are_as_lonely_as_it_was() -> None:
    router = table()
    router.on_lookup_done(5, 100.0)
    seat_all(router, [contact_at(random.Random(n).getrandbits(160)) for n in range(40)], now=800.0)
    assert len(router.buckets) > 3
    assert router.lonely_buckets(100.0 + CONFIG.refresh_s) == router.buckets


# --- seats ---


def test_a_seat_is_taken_kept_and_moved() -> None:
    router, alice = table(), contact(1)
    assert router.is_new_node(alice)
    assert router.on_proved(alice, 1.0) is Seating.SEATED
    assert not router.is_new_node(alice)
    assert router.on_proved(alice, 2.0) is Seating.KEPT
    moved = Contact(alice.key, Address("10.9.9.9", 5000))
    assert router.on_proved(moved, 3.0) is Seating.MOVED
    assert router.find_neighbors(alice.long_id) == [moved]
    seat = router.seat_of(alice.id)
    assert seat is not None
    assert (seat.contact, seat.last_answer, seat.failures) == (moved, 3.0, 0)
    assert len(router) == 1
    assert router.seat_of(contact(2).id) is None


def test_we_have_no_seat_in_our_own_table() -> None:
    router = table(contact(1))
    assert router.on_proved(contact(1), 0.0) is Seating.REFUSED
    assert router.on_proved(Contact(contact(1).key, Address("9.9.9.9", 9999)), 0.0) is Seating.REFUSED
    assert len(router) == 0


def test_a_seat_cannot_be_had_without_proof() -> None:
    # What the stock table offers its callers.
    router = table()
    with pytest.raises(TypeError):
        router.add_contact(contact(1))
    with pytest.raises(TypeError):
        router.remove_contact(contact(1))
    assert len(router) == 0


def test_who_finds_no_seat_waits_and_the_latest_comes_in_first() -> None:
    router, seated = full_of_far()
    assert router.on_proved(far(10), 1.0) is Seating.WAITING
    assert router.on_proved(far(11), 2.0) is Seating.WAITING
    assert router.on_proved(far(12), 3.0) is Seating.WAITING
    assert router.on_proved(far(11), 4.0) is Seating.WAITING
    assert router.is_new_node(far(11))
    fails(router, seated[0], 3)
    assert router.is_new_node(seated[0])
    assert not router.is_new_node(far(11))
    fails(router, seated[1], 3)
    assert not router.is_new_node(far(12))


def test_buckets_are_to_be_looked_at_only() -> None:
    router, seated = full_of_far()
    router.on_proved(far(10), 1.0)
    bucket = router.buckets[router.get_bucket_for(far(0))]
    for at, one in enumerate([*seated, seated[0]]):
        router.on_proved(one, 5.0 + at)
    assert [seat.contact for seat in bucket.nodes.values()] == [*seated[1:], seated[0]]  # the longest silent first
    assert bucket.is_new_node(far(10))
    assert bucket[seated[1].id].contact == seated[1]
    for one in (seated[0], far(10)):
        with pytest.raises(TypeError):
            bucket.add_node(one)
        with pytest.raises(TypeError):
            bucket.remove_node(one)
    assert len(router) == 2 * K


def test_a_bounded_number_waits() -> None:
    router, _ = full_of_far()
    for number in range(10, 100):
        router.on_proved(far(number), 0.0)
    bucket = router.buckets[router.get_bucket_for(far(0))]
    assert [seat.contact for seat in bucket.replacement_nodes.values()] == [far(n) for n in range(96, 100)]


def test_who_fails_while_it_waits_waits_no_longer() -> None:
    router, seated = full_of_far()
    router.on_proved(far(10), 0.0)
    router.on_failure(far(10), 0.0)
    fails(router, seated[0], 3)
    assert router.is_new_node(far(10))
    # At another address it is not the one that waits which failed.
    router, seated = full_of_far()
    assert router.on_proved(far(11), 0.0) is Seating.WAITING
    router.on_failure(far(11, "10.9.9.9"), 0.0)
    fails(router, seated[0], 3)
    assert not router.is_new_node(far(11))


def test_a_failing_contact_goes_at_its_third_failure_if_somebody_waits() -> None:
    router, seated = full_of_far()
    router.on_proved(far(10), 0.0)
    fails(router, seated[0], 2)
    assert router.is_new_node(far(10))
    fails(router, seated[0], 1)
    assert router.is_new_node(seated[0])
    assert not router.is_new_node(far(10))
    assert len([seat for seat in router if seat.contact.long_id > TOP - 100]) == K


def test_a_failing_contact_goes_at_its_third_failure_though_nobody_takes_its_place() -> None:
    router, alice = table(), contact(1)
    router.on_proved(alice, 0.0)
    fails(router, alice, 2)
    assert not router.is_new_node(alice)
    assert router.failing() == [alice]
    assert router.take_gone() == []
    fails(router, alice, 1)
    assert router.is_new_node(alice)
    assert router.take_gone() == [alice]
    assert router.take_gone() == []


def test_one_answer_makes_up_for_all_failures() -> None:
    router, alice = table(), contact(1)
    router.on_proved(alice, 0.0)
    for _ in range(5):
        fails(router, alice, 2)
        assert alice not in router.find_neighbors(alice.long_id)
        assert router.on_proved(alice, 10.0) is Seating.KEPT
        assert router.find_neighbors(alice.long_id)[0] == alice


def test_to_ask_is_no_answer() -> None:
    router, alice = table(), contact(1)
    assert router.on_proved(alice, 0.0, answered=False) is Seating.SEATED
    fails(router, alice, 1)
    # What it asks now makes up for nothing, but makes us ask: at once, and then no more than once a minute.
    seatings = [router.on_proved(alice, 20.0 + second, answered=False) for second in range(70)]
    assert [second for second, seating in enumerate(seatings) if seating is Seating.DOUBTED] == [0, 60]
    assert seatings[1] is Seating.KEPT
    assert alice not in router.find_neighbors(alice.long_id)
    fails(router, alice, 2)
    assert router.take_gone() == [alice]
    seatings = [router.on_proved(alice, 90.0 + second, answered=False) for second in range(60)]
    assert [second for second, seating in enumerate(seatings) if seating is Seating.DOUBTED] == [50]
    assert router.is_new_node(alice)
    assert router.on_proved(alice, 200.0) is Seating.SEATED
    assert router.on_proved(alice, 201.0, answered=False) is Seating.KEPT


def test_who_only_asks_has_been_silent_since_its_last_answer() -> None:
    router, alice = table(), contact(1)
    router.on_proved(alice, 0.0)
    router.on_proved(alice, 50.0, answered=False)
    assert router.unheard(10.0, 1) == [alice]
    assert not router.proved_within(alice, 20.0, 60.0)


def test_who_fails_and_asks_from_elsewhere_is_to_be_asked_there() -> None:
    router, alice = table(local=False), contact_at(1 << 150, "1.1.1.1")
    moved, again = contact_at(1 << 150, "2.2.2.2"), contact_at(1 << 150, "3.3.3.1")
    router.on_proved(alice, 0.0)
    fails(router, alice, 2)
    assert router.on_proved(moved, 1.0, answered=False) is Seating.DOUBTED
    assert router.failing() == [moved]
    # Whoever goes from address to address does not get rid of its failures by that.
    fails(router, moved, 1)
    assert router.take_gone() == [moved]
    # Where there are too many already there is no room for it either.
    router.on_proved(alice, 2.0)
    fails(router, alice, 1)
    seat_all(router, [contact_at(number << 150, f"3.3.3.{number}") for number in (2, 3)])
    assert router.on_proved(again, 3.0, answered=False) is Seating.REFUSED
    assert router.is_new_node(again)


def test_who_answers_again_after_long_is_told_of_like_a_newcomer() -> None:
    router, alice = table(), contact(1)
    router.on_proved(alice, 0.0)
    assert alice in router.take_seated()
    fails(router, alice, 1, now=10.0)
    router.on_proved(alice, 11.0)
    assert alice not in router.take_seated()
    fails(router, alice, 1, now=20.0)
    router.on_proved(alice, 90.0)
    assert alice in router.take_seated()


def test_those_not_heard_for_long_are_named_the_longest_silent_first() -> None:
    router = table()
    for number in range(3):
        router.on_proved(contact(number), float(number))
    router.on_proved(contact(0), 10.0)
    assert router.unheard(5.0, 10) == [contact(1), contact(2)]
    assert router.unheard(5.0, 1) == [contact(1)]
    assert router.live_count == 3


def test_a_failure_at_another_address_is_ignored() -> None:
    # (Alice's key, a dead address), as a liar names it: that nobody answers there says nothing of Alice.
    router, alice = table(), contact(1)
    router.on_proved(alice, 0.0)
    elsewhere = Contact(alice.key, Address("10.9.9.9", 4000))
    fails(router, elsewhere, 10)
    assert router.find_neighbors(alice.long_id)[0] == alice
    seat = router.seat_of(alice.id)
    assert seat is not None
    assert seat.failures == 0


def test_while_everybody_fails_nobody_goes() -> None:
    router, seated = full_of_far()
    router.on_proved(far(10), 0.0)
    for _ in range(20):
        for one in seated + NEIGHBOURS:
            router.on_failure(one, CONFIG.witness_s + 1)
    assert len(router) == 2 * K
    assert router.take_gone() == []
    # None of them is named to others, but we go on asking them.
    assert router.find_neighbors(TOP - 1) == []
    assert router.find_neighbors(TOP - 1, failing=True) == nearest(seated, TOP - 1)
    # The network is back: from here on it counts again.
    router.on_proved(seated[1], 100.0)
    fails(router, seated[0], 3, now=100.0)
    assert router.is_new_node(seated[0])


def test_flush_forgets_everybody() -> None:
    router = table(local=False)
    seat_all(router, [contact(n) for n in range(50)])
    router.flush()
    assert len(router) == 0
    assert len(router.buckets) == 1
    seat_all(router, [contact(n) for n in range(50)])
    assert len(router) > 10


# --- the size of the network, and whose business a key is ---


def test_a_key_is_the_business_of_those_nearest_to_it() -> None:
    router = table(k=20)
    rng = random.Random(3)
    seat_all(router, [contact_at(rng.getrandbits(160)) for _ in range(200)])
    for _ in range(200):
        target = rng.getrandbits(160)
        nearer = sum(1 for seat in router if seat.contact.long_id ^ target < OWN.long_id ^ target)
        if nearer < 16:
            assert router.is_responsible(OWN.long_id, target)
        elif nearer >= 30:
            assert not router.is_responsible(OWN.long_id, target)


def test_who_is_far_from_a_key_is_not_sure_of_it_though_it_knows_hardly_anybody_there() -> None:
    # Its table is full near itself and thin far away. What it was given when the network was small, it answers with.
    rng = random.Random(6)
    router = table(k=20)
    near = [OWN.long_id ^ rng.getrandbits(157) for _ in range(60)]  # an eighth of 480 nodes
    far = [OWN.long_id ^ (1 << 158) ^ rng.getrandbits(158) for _ in range(8)]  # of 120
    seat_all(router, [contact_at(one) for one in near + far])
    target = OWN.long_id ^ (1 << 158)
    assert router.count_nearer(target, OWN.long_id, 20) < 16
    assert not router.is_responsible(OWN.long_id, target)


def test_a_crowd_at_a_key_does_not_make_it_none_of_our_business() -> None:
    rng = random.Random(4)
    key = OWN.long_id ^ (1 << 153)  # among 500 nodes some four are nearer by right
    router = table(k=20)
    seat_all(router, [contact_at(rng.getrandbits(160)) for _ in range(500)])
    assert router.is_responsible(OWN.long_id, key)
    seat_all(router, [contact_at(key ^ rng.getrandbits(100)) for _ in range(40)])
    assert router.count_nearer(key, OWN.long_id, 40) >= 20
    assert router.is_responsible(OWN.long_id, key)


def test_a_bucket_of_which_hardly_anybody_was_met_is_thin() -> None:
    rng = random.Random(7)
    router = table(k=20)
    everybody = [rng.getrandbits(160) for _ in range(1000)]
    near = sorted(everybody, key=lambda one: one ^ OWN.long_id)[:60]
    other_half = [one for one in everybody if (one ^ OWN.long_id).bit_length() == 160]
    seat_all(router, [contact_at(one) for one in near + other_half[:15]])
    thin = router.thin_buckets()
    assert thin  # between those near us and the other half nobody was met
    for bucket in thin:
        lower, upper = bucket.range
        assert sum(lower <= one <= upper for one in everybody) >= 15
        assert sum(lower <= seat.contact.long_id <= upper for seat in router) < 10
    assert not any(bucket.range[0] <= other_half[0] <= bucket.range[1] for bucket in thin)
    assert table(k=20).thin_buckets() == []


# --- subnets ---


def test_two_per_bucket_and_four_per_table_from_one_subnet() -> None:
    router = table(k=20, local=False)
    rng = random.Random(1)
    seated = [
        router.on_proved(contact_at(rng.getrandbits(160), f"1.1.1.{n % 256}"), 0.0) is Seating.SEATED
        for n in range(10_000)
    ]
    assert sum(seated) == len(router) <= 2  # in one bucket
    for n in range(200):
        router.on_proved(contact_at(rng.getrandbits(160), public_ip(n)), 0.0)
    for n in range(10_000):
        router.on_proved(contact_at(rng.getrandbits(160), f"1.1.1.{n % 256}"), 0.0)
    subnets = Counter(subnet(seat.contact.ip) for seat in router)
    assert subnets[bytes([1, 1, 1])] == 4
    for bucket in router.buckets:
        inside = Counter(subnet(seat.contact.ip) for seat in bucket.nodes.values())
        assert max(inside.values(), default=0) <= 2


def test_subnets_of_ipv6_are_48_bits() -> None:
    router = table(k=20, local=False)
    for n in range(100):
        router.on_proved(contact_at(n << 150, f"2606:4700:7:{n:x}::1"), 0.0)
    assert len(router) == 2


def test_who_is_refused_does_not_wait_either() -> None:
    router = table(local=False)
    for n in range(2):
        assert router.on_proved(contact_at(n << 150, f"1.1.1.{n}"), 0.0) is Seating.SEATED
    assert router.on_proved(contact_at(2 << 150, "1.1.1.2"), 0.0) is Seating.REFUSED
    assert not any(bucket.replacement_nodes for bucket in router.buckets)


def test_a_seat_that_falls_free_frees_its_subnet() -> None:
    router = table(local=False)
    first, second, third = (contact_at(n << 150, f"1.1.1.{n}") for n in range(3))
    seat_all(router, [first, second])
    for _ in range(3):
        router.on_failure(first, 0.0)
        router.on_proved(second, 0.0)
    assert router.on_proved(third, 0.0) is Seating.SEATED
    moved = contact_at(1 << 150, "2.2.2.2")
    assert router.on_proved(moved, 0.0) is Seating.MOVED
    assert router.on_proved(contact_at(4 << 150, "1.1.1.4"), 0.0) is Seating.SEATED


def test_in_a_local_network_all_share_one_subnet() -> None:
    router = table(local=True, k=20)
    for n in range(20):
        assert router.on_proved(contact(n, ip="127.0.0.1", port=4000 + n), 0.0) is Seating.SEATED
    assert len(router) == 20


def test_nobody_moves_into_a_full_subnet() -> None:
    # Whoever can show one address in each of many subnets, one after the other (a rented address that changes), gets a
    # seat for each and then brings all of them home.
    router = table(k=20, local=False)
    rng = random.Random(1)
    tourists = [contact_at(rng.getrandbits(160), public_ip(n)) for n in range(100)]
    seat_all(router, tourists)
    for n, tourist in enumerate(tourists):
        at_home = contact_at(tourist.long_id, f"1.1.1.{n}")
        router.on_proved(at_home, 1.0)
    subnets = Counter(subnet(seat.contact.ip) for seat in router)
    assert subnets[bytes([1, 1, 1])] <= CONFIG.table_seats_per_subnet


def test_who_moves_within_its_subnet_keeps_its_seat() -> None:
    # A router at home that gives out another port, say.
    router = table(local=False)
    both = [contact_at(n << 150, f"1.1.1.{n}") for n in range(2)]
    seat_all(router, both)
    assert router.on_proved(contact_at(0, "1.1.1.0", port=5000), 1.0) is Seating.MOVED
    assert router.on_proved(contact_at(1 << 150, "1.1.1.77"), 1.0) is Seating.MOVED
    assert len(router) == 2


# --- whatever happens ---


class TableInUse(RuleBasedStateMachine):
    """Any sequence of inputs, on a table with ids near to ours and far from us, in few subnets."""

    local = True
    K = 3

    def __init__(self) -> None:
        super().__init__()
        rng = random.Random(7)
        chosen = [rng.getrandbits(160) for _ in range(30)] + [OWN.long_id ^ rng.getrandbits(n % 40) for n in range(30)]
        self.ids = list(dict.fromkeys(one for one in chosen if one != OWN.long_id))
        self.now = 0.0
        self.addresses: dict[int, str] = {}
        self.fresh = 0

    @initialize()
    def begin(self) -> None:
        self.router = RoutingTable(OWN, self.K, CONFIG, local=self.local, now=0.0)

    def one(self, index: int) -> Contact:
        index %= len(self.ids)
        long_id = self.ids[index]
        return contact_at(long_id, self.addresses.get(long_id, f"51.7.{index % 6}.{index % 200}"))

    @rule(index=st.integers(0, 59))
    def proves(self, index: int) -> None:
        who = self.one(index)
        before = self.router.seat_of(who.id)
        outcome = self.router.on_proved(who, self.now)
        seat = self.router.seat_of(who.id)
        if outcome in (Seating.SEATED, Seating.KEPT, Seating.MOVED):
            assert seat is not None
            assert (seat.contact, seat.last_answer, seat.failures) == (who, self.now, 0)
        else:
            assert seat is None
        assert (outcome in (Seating.KEPT, Seating.MOVED)) == (before is not None)
        if outcome is Seating.REFUSED:  # only for the sake of the limits, so no seat is counted twice or for ever
            assert not self.local
            net = subnet(who.ip)
            bucket = self.router.buckets[self.router.get_bucket_for(who)]
            in_table = sum(subnet(seat.contact.ip) == net for seat in self.router)
            in_bucket = sum(subnet(seat.contact.ip) == net for seat in bucket.nodes.values())
            assert in_table >= CONFIG.table_seats_per_subnet or in_bucket >= CONFIG.bucket_seats_per_subnet

    @rule(first=st.integers(0, 59), count=st.integers(1, 20))
    def several_prove(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            self.proves(index)

    @rule(index=st.integers(0, 59))
    def moves(self, index: int) -> None:
        # Into a subnet of its own: what comes of a full one has a test of its own.
        self.fresh += 1
        self.addresses[self.ids[index % len(self.ids)]] = f"52.{self.fresh >> 8}.{self.fresh & 255}.1"
        self.proves(index)

    @rule(index=st.integers(0, 59), times=st.integers(1, 4))
    def fails(self, index: int, times: int) -> None:
        for _ in range(times):
            self.router.on_failure(self.one(index), self.now)

    @rule(index=st.integers(0, 59))
    def fails_elsewhere(self, index: int) -> None:
        who = self.one(index)
        seat = self.router.seat_of(who.id)
        failures = seat.failures if seat else None
        self.router.on_failure(contact_at(who.long_id, "53.1.1.1"), self.now)
        again = self.router.seat_of(who.id)
        assert (again.failures if again else None) == failures

    @rule(pause=st.floats(1, 1000))
    def passes(self, pause: float) -> None:
        self.now += pause
        assert all(seat.failures < CONFIG.failures_to_go for seat in self.router)

    @rule(where=ids)
    def looked_up(self, where: int) -> None:
        self.router.on_lookup_done(where, self.now)

    @precondition(lambda self: self.now > 3000)
    @rule()
    def flushed(self) -> None:
        self.router.flush()
        self.now = 0.0

    @invariant()
    def the_buckets_are_a_partition(self) -> None:
        if not hasattr(self, "router"):
            return
        edge = 0
        for bucket in self.router.buckets:
            assert bucket.range[0] == edge
            assert bucket.range[1] - bucket.range[0] + 1 == 1 << bucket.bits
            assert bucket.depth() == ID_BITS - bucket.bits
            edge = bucket.range[1] + 1
        assert edge == TOP
        for index, bucket in enumerate(self.router.buckets):
            assert [self.router.get_bucket_for(contact_at(at)) for at in bucket.range] == [index, index]

    @invariant()
    def everybody_sits_once_and_where_it_belongs(self) -> None:
        if not hasattr(self, "router"):
            return
        seen: list[bytes] = []
        for bucket in self.router.buckets:
            assert len(bucket.nodes) <= self.K
            assert len(bucket.replacement_nodes) <= self.K
            for group in (bucket.nodes, bucket.replacement_nodes):
                for node_id, seat in group.items():
                    assert seat.contact.id == node_id != OWN.id
                    assert bucket.range[0] <= seat.contact.long_id <= bucket.range[1]
                    seen.append(node_id)
        assert len(seen) == len(set(seen))
        assert len(self.router) == sum(len(bucket.nodes) for bucket in self.router.buckets) == len(list(self.router))

    @invariant()
    def no_subnet_has_too_many(self) -> None:
        if not hasattr(self, "router"):
            return
        if self.local:
            return
        counted = Counter(subnet(seat.contact.ip) for seat in self.router)
        assert max(counted.values(), default=0) <= CONFIG.table_seats_per_subnet
        for bucket in self.router.buckets:
            inside = Counter(subnet(seat.contact.ip) for seat in bucket.nodes.values())
            assert max(inside.values(), default=0) <= CONFIG.bucket_seats_per_subnet

    @invariant()
    def the_nearest_are_the_nearest(self) -> None:
        if not hasattr(self, "router"):
            return
        whole = [seat.contact for seat in self.router if not seat.failures]
        for target in (0, OWN.long_id, self.ids[0]):
            assert self.router.find_neighbors(target, 5) == nearest(whole, target)[:5]


class PublicTableInUse(TableInUse):
    """The same with limits per subnet."""

    local = False


TestTableInUse = TableInUse.TestCase
TestPublicTableInUse = PublicTableInUse.TestCase
TestTableInUse.settings = TestPublicTableInUse.settings = settings(max_examples=20, stateful_step_count=20)


def test_seats_per_subnet_are_settings() -> None:
    generous = replace(CONFIG, bucket_seats_per_subnet=3, table_seats_per_subnet=3)
    router = RoutingTable(OWN, 20, generous, local=False, now=0.0)
    outcomes = [router.on_proved(contact_at(n << 150, f"1.1.1.{n}"), 0.0) for n in range(4)]
    assert outcomes == [Seating.SEATED] * 3 + [Seating.REFUSED]
