"""The records that a node keeps: the newest of each key while it lives, and the nearest when there are too many."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import INCARNATION, LIFE, LOCAL, NOW, PUBLIC, identity, membership, presence, public_ip

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.origins import Origins
from dht_atonce.dht.storage import RecordStore
from dht_atonce.endpoints import Address
from dht_atonce.identity import PeerId
from dht_atonce.records import GONE, AnyRecord, MembershipRecord, PresenceRecord, ValueRecord, is_newer, value_key

OWN = 1 << 159
CONFIG = DhtConfig()
SKEW = 120


def store(max_records: int = 100) -> RecordStore:
    return RecordStore(OWN, LOCAL, replace(CONFIG, max_records=max_records), random.Random(1))


def unsigned(number: int, *, seq: int = 1, expires: int = NOW + 3600) -> ValueRecord:
    """As a parser would give it; the store does not look at signatures, and to sign thousands takes long."""
    name = f"name {number}"
    blob = f"{name} {seq} {expires}".encode()
    return ValueRecord(
        peer_id=identity(0).id,
        seq=seq,
        incarnation=INCARNATION,
        expires=expires,
        key=value_key(LOCAL, identity(0).id, name),
        blob=bytes(66) + blob,
        name=name,
        value=b"",
    )


def distance(record: ValueRecord) -> int:
    return int.from_bytes(record.key, "big") ^ OWN


# --- newer and older ---


def test_a_new_record_is_kept_and_a_newer_one_replaces_it() -> None:
    ours, first, second = store(), presence(seq=1), presence(seq=2)
    assert ours.live(first.key, NOW) is None
    assert ours.keep(first, NOW) == (True, True, None, False)
    assert ours.live(first.key, NOW) is first
    assert ours.keep(second, NOW) == (True, True, None, False)
    assert ours.live(first.key, NOW) is second
    assert ours.count == 1


def test_the_same_record_again_changes_nothing() -> None:
    ours, first = store(), presence()
    ours.keep(first, NOW)
    assert ours.keep(presence(), NOW + 5) == (True, False, None, False)
    assert ours.live(first.key, NOW) is first


def test_an_older_one_is_not_kept_and_the_newer_one_is_handed_back() -> None:
    ours, first, second = store(), presence(seq=1), presence(seq=2)
    ours.keep(second, NOW)
    assert ours.keep(first, NOW) == (False, False, second, False)
    assert ours.live(first.key, NOW) is second


def test_a_goodbye_ends_what_it_says_goodbye_to() -> None:
    ours, there, gone = store(), presence(seq=1), presence(seq=1, status=GONE)
    ours.keep(there, NOW)
    assert ours.keep(gone, NOW).changed
    assert ours.keep(there, NOW) == (False, False, gone, False)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 3)).map(
            lambda what: presence(
                seq=what[0], status=GONE if what[1] else "online", incarnation=what[2].to_bytes(8, "big")
            )
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_comes_the_newest_so_far_is_held(arrivals: list[PresenceRecord]) -> None:
    ours: RecordStore = store()
    newest: PresenceRecord | None = None
    for record in arrivals:
        keeping = ours.keep(record, NOW)
        assert keeping.changed == is_newer(record, newest)
        if is_newer(record, newest):
            newest = record
        assert newest is not None
        assert ours.live(record.key, NOW) == newest
        assert keeping.kept == (record == newest)
        assert keeping.newer == (None if record == newest else newest)
    assert ours.count == 1


def test_each_change_is_told_and_nothing_else() -> None:
    ours, told = store(), list[tuple[AnyRecord, bool]]()
    ours.on_change = lambda record, is_over: told.append((record, is_over))
    first, second = presence(seq=1, expires=NOW + 50), presence(seq=2, expires=NOW + 100)
    for record in (first, first, second, first):
        ours.keep(record, NOW)
    assert told == [(first, False), (second, False)]
    ours.expire(NOW + 99)
    ours.expire(NOW + 100)
    assert told[2:] == [(second, True)]


# --- time ---


def test_a_record_is_over_at_its_expiry() -> None:
    ours, record = store(), presence(expires=NOW + 100)
    ours.keep(record, NOW)
    assert ours.live(record.key, NOW + 99.9) is record
    assert ours.live(record.key, NOW + 100) is None
    assert ours.expire(NOW + 99.9) == []
    assert ours.expire(NOW + 100) == [record]
    assert ours.count == 0


@pytest.mark.parametrize(("status", "longest"), [("online", LIFE), (GONE, LIFE + SKEW)])
def test_nobody_keeps_a_record_longer_than_its_life_after_receipt(status: str, longest: int) -> None:
    # The owner's clock is ahead of ours, so it may claim a little more.
    ours, record = store(), presence(expires=NOW + longest + SKEW, status=status)
    ours.keep(record, NOW)
    assert ours.live(record.key, NOW + longest - 0.1) is record
    assert ours.live(record.key, NOW + longest) is None


def test_to_hear_of_it_again_prolongs_no_life() -> None:
    ours, record = store(), presence(expires=NOW + LIFE + SKEW)
    for at in range(0, LIFE, 100):
        ours.keep(record, NOW + at)
    assert ours.live(record.key, NOW + LIFE) is None
    # And not beyond what it says itself, even if somebody brings it back.
    ours.keep(record, NOW + LIFE)
    assert ours.live(record.key, NOW + LIFE + SKEW - 1) is record
    assert ours.live(record.key, NOW + LIFE + SKEW) is None


def test_a_renewed_record_outlives_the_old_one() -> None:
    ours = store()
    ours.keep(presence(seq=1, expires=NOW + 100), NOW)
    renewed = presence(seq=2, expires=NOW + 200)
    ours.keep(renewed, NOW)
    assert ours.expire(NOW + 150) == []
    assert ours.live(renewed.key, NOW + 150) is renewed
    shortened = presence(seq=3, expires=NOW + 180)
    ours.keep(shortened, NOW + 150)
    assert ours.expire(NOW + 180) == [shortened]


def test_expiry_happens_while_others_are_kept_too() -> None:
    ours = store()
    for number in range(10):
        ours.keep(unsigned(number, expires=NOW + 10 + number), NOW)
    ours.keep(unsigned(100), NOW + 15)
    assert [ours.live(unsigned(number).key, NOW + 15) is None for number in range(10)] == [True] * 6 + [False] * 4
    ours.expire(NOW + 15)
    assert ours.count == 5


def test_what_is_over_is_absent_before_it_is_swept_out() -> None:
    ours = store()
    ours.keep(presence(seq=5, expires=NOW + 100), NOW)
    older = presence(seq=4, expires=NOW + 200)
    assert ours.keep(older, NOW + 99) == (False, False, presence(seq=5, expires=NOW + 100), False)
    assert ours.keep(older, NOW + 100) == (True, True, None, False)
    assert ours.live(older.key, NOW + 100) is older
    assert ours.keep(presence(seq=4, expires=NOW + 200), NOW + 100) == (True, False, None, False)
    assert ours.expire(NOW + 150) == []


def test_what_is_over_makes_room_first() -> None:
    ours = store(max_records=3)
    near_to_far = sorted((unsigned(number) for number in range(6)), key=distance)
    short = unsigned(50, expires=NOW + 10)
    for record in (*near_to_far[:2], short):
        ours.keep(record, NOW)
    assert ours.keep(near_to_far[5], NOW + 10) == (True, True, None, False)
    assert sorted(ours.keys()) == sorted(record.key for record in (*near_to_far[:2], near_to_far[5]))


def test_it_knows_how_far_its_records_reach() -> None:
    ours = store()
    assert ours.reach_bits == 0
    records = sorted((unsigned(number, expires=NOW + 100 + number) for number in range(20)), key=distance)
    for record in records:
        ours.keep(record, NOW)
    assert ours.reach_bits == distance(records[-1]).bit_length()
    for at in range(100, 120):
        ours.expire(NOW + at)
        left = [record for record in records if record.expires > NOW + at]
        assert ours.count == len(left)
        assert ours.reach_bits == max((distance(record).bit_length() for record in left), default=0)


# --- room ---


def test_when_full_the_farthest_goes_first() -> None:
    ours = store(max_records=3)
    near_to_far = sorted((unsigned(number) for number in range(6)), key=distance)
    for number in (5, 3, 4):
        assert ours.keep(near_to_far[number], NOW).kept
    assert ours.keep(near_to_far[0], NOW) == (True, True, None, False)
    assert near_to_far[5].key not in ours
    assert ours.keep(near_to_far[5], NOW) == (False, False, None, False)
    assert ours.keep(near_to_far[2], NOW).kept
    assert [record.key in ours for record in near_to_far] == [True, False, True, True, False, False]


def test_whoever_brings_many_near_ones_throws_out_his_own() -> None:
    near_to_far = sorted((unsigned(number) for number in range(60)), key=distance)
    honest, near = near_to_far[-3:], near_to_far[:57]
    ours = RecordStore(OWN, PUBLIC, replace(CONFIG, max_records=20, records_per_source=4), random.Random(1))
    for number, record in enumerate(honest):
        ours.keep(record, NOW, bytes([1, 1, number]))
    for record in near[::-1]:
        ours.keep(record, NOW, b"\x66\x66\x66")
    assert all(record.key in ours for record in [*honest, *near[:17]])
    assert ours.count == 20
    # If he hands on what others said, that does not make it his.
    for record in honest:
        assert ours.keep(record, NOW, b"\x66\x66\x66").kept
    another = unsigned(1000)
    assert ours.keep(another, NOW, bytes([1, 1, 9])).kept
    assert near[16].key not in ours
    # What he brought first, its owner has only to say again.
    ours.keep(near[15], NOW, bytes([1, 1, 1]))
    assert ours.keep(unsigned(1001), NOW, bytes([1, 1, 9])).kept
    assert near[15].key in ours
    assert near[14].key not in ours


def test_members_of_a_topic_go_one_by_one() -> None:
    ours = RecordStore(OWN, PUBLIC, replace(CONFIG, max_records=5, records_per_source=2), random.Random(1))
    for number in range(5):
        member = membership(identity(number), network=PUBLIC, endpoints=[Address(public_ip(number), 4000)])
        ours.keep(member, NOW, b"\x66\x66\x66")
    lone = unsigned(1)
    assert ours.keep(lone, NOW, b"\1\1\1").kept
    assert (ours.size, ours.count) == (5, 2)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.integers(1, 100), st.integers(0, 10)), max_size=80),
    st.integers(1, 10),
)
def test_it_holds_what_a_plain_dict_would(steps: list[tuple[int, int, int, int]], most: int) -> None:
    ours, model, now = store(most), dict[bytes, ValueRecord](), NOW
    for number, seq, life, pause in steps:
        now += pause
        record = unsigned(number, seq=seq, expires=now + life)
        model = {key: held for key, held in model.items() if held.expires > now}
        held = model.get(record.key)
        newer = held is None or is_newer(record, held)
        if newer:
            model[record.key] = record
        if len(model) > most:
            del model[max(model, key=lambda key: int.from_bytes(key, "big") ^ OWN)]
        ours.expire(now)
        keeping = ours.keep(record, now)
        assert keeping.kept == (model.get(record.key) is record or (held is not None and held.blob == record.blob))
        assert keeping.newer is (held if held is not None and not newer and held.blob != record.blob else None)
        assert dict(ours) == model
        assert ours.count == len(model) <= most
        assert all(ours.live(key, now) == held for key, held in model.items())


def test_memory_is_bounded_by_what_is_held_not_by_what_ever_came() -> None:
    # 8,000 renewals of 20 records, then as many records that come and go.
    def entries(ours: RecordStore) -> int:
        return sum(len(part) for part in vars(ours).values() if isinstance(part, dict | list))

    ours, rng = store(max_records=20), random.Random(1)
    most = 0
    for seq in range(400):
        for number in range(20):
            ours.keep(unsigned(number, seq=seq, expires=NOW + 3600 + rng.randrange(1000)), NOW)
        most = max(most, entries(ours))
    for number in range(8_000):
        ours.keep(unsigned(number, seq=2000), NOW)
        most = max(most, entries(ours))
    assert ours.count == 20
    # The records, and a heap of up to four entries for each and 64 more.
    assert most <= 20 + (4 * 20 + 64 + 2)


# --- room for each origin ---

SMALL, LARGE = 500.0, 501.0
"""Networks of so many nodes."""


def public_store(nodes: float, max_records: int = 1000, network: NetworkConfig = PUBLIC) -> RecordStore:
    ours = RecordStore(OWN, network, replace(CONFIG, max_records=max_records), random.Random(1))
    ours.network_size = lambda: nodes
    return ours


def somewhere(number: int, *ips: str, seq: int = 1, expires: int = NOW + 3600) -> PresenceRecord:
    """The presence of one of many identities, at a key of its own; unsigned, since there are thousands."""
    record = presence(endpoints=tuple(Address(ip, 4000) for ip in ips))
    key = random.Random(number).randbytes(20)
    return replace(record, key=key, seq=seq, expires=expires, blob=bytes(66) + key + seq.to_bytes(4, "big"))


def nearest(records: list[PresenceRecord], count: int) -> list[bytes]:
    return sorted((record.key for record in records), key=lambda key: int.from_bytes(key, "big") ^ OWN)[:count]


def test_of_one_subnet_the_nearest_64_are_kept() -> None:
    ours = public_store(LARGE)
    here = [somewhere(number, f"51.0.0.{number % 256}") for number in range(300)]
    elsewhere = [somewhere(1000 + number, public_ip(number + 1)) for number in range(100)]
    for record in here[:150] + elsewhere + here[150:]:
        ours.keep(record, NOW)
    assert ours.size == ours.count == 164
    assert all(record.key in ours for record in elsewhere)
    assert sorted(record.key for record in here if record.key in ours) == sorted(nearest(here, 64))


def test_a_small_network_may_sit_behind_one_address() -> None:
    for ours in (public_store(SMALL), public_store(LARGE, network=LOCAL)):
        for number in range(300):
            assert ours.keep(somewhere(number, "51.0.0.1"), NOW).kept
        assert ours.size == 300


def test_a_network_that_grows_large_comes_down_to_the_limit_at_once() -> None:
    ours = public_store(SMALL)
    here = [somewhere(number, "51.0.0.1") for number in range(300)]
    for record in here:
        ours.keep(record, NOW)
    ours.network_size = lambda: LARGE
    more = (somewhere(number, "51.0.0.1") for number in range(300, 10_000))
    newcomer = next(one for one in more if nearest([*here, one], 1) == [one.key])
    assert ours.keep(newcomer, NOW).kept
    assert sorted(ours.keys()) == sorted(nearest([*here, newcomer], 64))


def test_a_record_at_several_subnets_counts_in_each() -> None:
    ours = public_store(LARGE)
    for number in range(64):
        ours.keep(somewhere(number, "51.0.0.1"), NOW)
    both = [somewhere(number, "51.0.1.1", "51.0.0.1") for number in range(100, 200)]
    for record in both:
        ours.keep(record, NOW)
    assert ours.size == 64
    alone = somewhere(900, "51.0.1.2")
    assert ours.keep(alone, NOW).kept


def test_who_renews_needs_no_new_room() -> None:
    ours = public_store(LARGE)
    for number in range(64):
        ours.keep(somewhere(number, "51.0.0.1"), NOW)
    for number in range(64):
        assert ours.keep(somewhere(number, "51.0.0.9", seq=2), NOW).changed
    assert ours.size == 64


def test_an_identity_has_so_many_values_and_no_more() -> None:
    for nodes, most in ((LARGE, 64), (SMALL, 256)):
        ours = public_store(nodes)
        for number in range(400):
            ours.keep(unsigned(number), NOW)
        assert ours.size == most
        near_to_far = sorted((unsigned(number) for number in range(400)), key=distance)
        assert sorted(ours.keys()) == sorted(record.key for record in near_to_far[:most])


def test_what_expires_makes_room_for_its_origin() -> None:
    ours = public_store(LARGE)
    for number in range(64):
        ours.keep(somewhere(number, "51.0.0.1", expires=NOW + 10), NOW)
    ours.expire(NOW + 10)
    for number in range(100, 164):
        assert ours.keep(somewhere(number, "51.0.0.1"), NOW + 10).kept
    assert ours.size == 64


def test_a_flood_leaves_what_it_found_and_memory_as_it_was() -> None:
    # A thousandth of what the benchmark does: benchmarks/store_flood.py.
    def entries(ours: RecordStore) -> int:
        return sum(len(part) for part in vars(ours).values() if isinstance(part, dict | list | Origins))

    rng = random.Random(1)
    ours = public_store(LARGE, max_records=200)
    # What we are to keep lies nearer to us than what anybody makes up.
    honest = [
        replace(somewhere(number, public_ip(number)), key=(OWN ^ rng.getrandbits(150)).to_bytes(20, "big"))
        for number in range(50)
    ]
    for record in honest:
        ours.keep(record, NOW)
    most = 0
    for number in range(5_000):
        if number % 3 == 0:
            ours.keep(unsigned(number), NOW)
        elif number % 3 == 1:
            ours.keep(somewhere(number, "51.200.0.1"), NOW)
        else:
            ours.keep(somewhere(number, f"52.{number >> 8 & 255}.{number & 255}.1"), NOW)
        most = max(most, entries(ours))
    assert ours.size == 200
    assert all(record.key in ours for record in honest)
    assert most <= 200 + (4 * 200 + 64 + 2) + 200


# --- topics ---


def peer_of(number: int) -> PeerId:
    return identity(number).id


def joins(number: int, topic: str = "a room", **says: object) -> MembershipRecord:
    return membership(identity(number), topic, **says)  # type: ignore[arg-type]


def members(ours: RecordStore, record: MembershipRecord) -> list[int]:
    roster = ours.roster(record.key)
    return [] if roster is None else [peers.index(one.peer_id) for one in roster.records()]


peers = [peer_of(number) for number in range(40)]


def test_a_topic_has_a_record_for_each_member() -> None:
    ours, first, second = store(), joins(0), joins(1)
    assert ours.keep(first, NOW).changed
    assert ours.keep(second, NOW).changed
    assert (ours.count, ours.size) == (1, 2)
    assert members(ours, first) == [0, 1]
    # There is no one record of this key.
    assert ours.live(first.key, NOW) is None
    assert ours.get(first.key) is None
    assert first.key in ours
    assert list(ours) == [(first.key, first), (first.key, second)]


def test_a_members_newer_record_replaces_its_own_only() -> None:
    ours = store()
    ours.keep(joins(0, seq=5), NOW)
    ours.keep(joins(1, seq=1), NOW)
    assert ours.keep(joins(0, seq=4), NOW) == (False, False, joins(0, seq=5), False)
    assert ours.keep(joins(0, seq=5), NOW) == (True, False, None, False)
    assert ours.keep(joins(0, seq=6, status=GONE), NOW).changed
    roster = ours.roster(joins(0).key)
    assert roster is not None
    assert roster.live_count == 1
    assert ours.size == 2


def test_members_expire_one_by_one_and_the_topic_with_the_last() -> None:
    ours = store()
    for number in range(5):
        ours.keep(joins(number, expires=NOW + 100 + number), NOW)
    assert ours.expire(NOW + 102) == [joins(number, expires=NOW + 100 + number) for number in range(3)]
    assert (ours.count, ours.size, ours.dropped) == (1, 2, 0)
    ours.expire(NOW + 104)
    assert (ours.count, ours.size, ours.dropped, ours.reach_bits) == (0, 0, 1, 0)


def test_a_member_from_a_fast_clock_is_kept_no_longer_than_a_life_after_receipt() -> None:
    ours, record = store(), joins(0, expires=NOW + LIFE + 100)
    ours.keep(record, NOW)
    assert ours.expire(NOW + LIFE - 1) == []
    assert ours.expire(NOW + LIFE) == [record]


def test_who_is_not_in_the_sample_of_a_full_topic_is_told_so() -> None:
    ours = RecordStore(OWN, LOCAL, replace(CONFIG, topic_members=10), random.Random(1))
    outcomes = [ours.keep(joins(number), NOW) for number in range(40)]
    assert ours.size == 10
    assert any(outcome == (False, False, None, True) for outcome in outcomes)
    passed_over = next(number for number in range(40) if number not in members(ours, joins(0)))
    assert ours.keep(joins(passed_over, seq=2), NOW).passed_over


def test_when_full_the_farthest_topic_loses_its_members_one_by_one() -> None:
    ours = store(max_records=10)
    near, far = sorted(("a room", "another"), key=lambda topic: int.from_bytes(joins(0, topic).key, "big") ^ OWN)
    for number in range(8):
        ours.keep(joins(number, far), NOW)
    for number in range(6):
        assert ours.keep(joins(number, near), NOW).kept
    assert ours.size == 10
    assert len(members(ours, joins(0, far))) == 4
    assert members(ours, joins(0, near)) == list(range(6))
    assert not ours.keep(joins(20, far), NOW).kept
    for number in range(6, 10):
        assert ours.keep(joins(number, near), NOW).kept
    assert joins(0, far).key not in ours
    assert not ours.keep(joins(30, near), NOW).kept
    assert (ours.size, ours.count) == (10, 1)


def test_it_says_what_changed_and_what_expired() -> None:
    ours = store(max_records=3)
    changed: list[AnyRecord] = []
    expired: list[AnyRecord] = []
    ours.on_change = lambda record, is_over: (expired if is_over else changed).append(record)
    first, second = presence(seq=1, expires=NOW + 50), presence(seq=2, expires=NOW + 50)
    member = joins(1, expires=NOW + 60)
    for record in (first, second, second, first, member, member):
        ours.keep(record, NOW)
    assert changed == [first, second, member]
    ours.expire(NOW + 55)
    assert expired == [second]
    ours.expire(NOW + 60)
    assert expired == [second, member]
    for number in range(10):  # what goes for want of room has not expired
        ours.keep(unsigned(number), NOW + 60)
    assert len(expired) == 2


def test_a_topic_is_forgotten_whole() -> None:
    ours = store()
    for number in range(5):
        ours.keep(joins(number), NOW)
    ours.keep(presence(), NOW)
    ours.forget(joins(0).key)
    assert (ours.size, ours.count, ours.roster(joins(0).key)) == (1, 1, None)
    ours.forget(joins(0).key)
    ours.forget(presence().key)
    assert (ours.size, ours.count) == (0, 0)


# --- the interface of kademlia ---


def test_it_is_a_storage_of_kademlia() -> None:
    ours, record = store(), presence()
    ours.keep(record, NOW)
    assert ours.get(record.key) is ours[record.key] is record
    assert record.key in ours
    assert list(ours) == [(record.key, record)]
    assert list(ours.iter_older_than(0)) == []
    assert ours.get(bytes(20)) is None
    assert ours.get(bytes(20), record) is record
    assert bytes(20) not in ours
    with pytest.raises(KeyError):
        ours[bytes(20)]


def test_nothing_is_stored_past_the_comparison() -> None:
    ours = store()
    with pytest.raises(TypeError, match="keep"):
        ours[presence().key] = presence()
    assert ours.count == 0


def test_an_empty_storage_is_not_false() -> None:
    # The stock server writes `storage or ForgetfulStorage()`.
    assert bool(store())


def test_it_may_change_while_somebody_goes_through_it() -> None:
    ours = store()
    for number in range(5):
        ours.keep(unsigned(number), NOW)
    for number, (key, _) in enumerate(ours):
        ours.keep(unsigned(100 + number), NOW)
        assert key in ours
    assert ours.count == 10
