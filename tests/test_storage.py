"""The records that a node keeps: the newest of each key while it lives, and the nearest when there are too many."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import INCARNATION, LIFE, LOCAL, NOW, identity, presence

from dht_atonce.config import DhtConfig
from dht_atonce.dht.storage import RecordStore
from dht_atonce.records import GONE, PresenceRecord, ValueRecord, is_newer, value_key

OWN = 1 << 159
CONFIG = DhtConfig()
SKEW = 120


def store(max_records: int = 100) -> RecordStore:
    return RecordStore(OWN, LOCAL, replace(CONFIG, max_records=max_records))


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
    assert ours.keep(first, NOW) == (True, True, None)
    assert ours.live(first.key, NOW) is first
    assert ours.keep(second, NOW) == (True, True, None)
    assert ours.live(first.key, NOW) is second
    assert ours.count == 1


def test_the_same_record_again_changes_nothing() -> None:
    ours, first = store(), presence()
    ours.keep(first, NOW)
    assert ours.keep(presence(), NOW + 5) == (True, False, None)
    assert ours.live(first.key, NOW) is first


def test_an_older_one_is_not_kept_and_the_newer_one_is_handed_back() -> None:
    ours, first, second = store(), presence(seq=1), presence(seq=2)
    ours.keep(second, NOW)
    assert ours.keep(first, NOW) == (False, False, second)
    assert ours.live(first.key, NOW) is second


def test_a_goodbye_ends_what_it_says_goodbye_to() -> None:
    ours, there, gone = store(), presence(seq=1), presence(seq=1, status=GONE)
    ours.keep(there, NOW)
    assert ours.keep(gone, NOW).changed
    assert ours.keep(there, NOW) == (False, False, gone)


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
    ours, told = store(), list[tuple[PresenceRecord | ValueRecord, bool]]()
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
    assert ours.keep(older, NOW + 99) == (False, False, presence(seq=5, expires=NOW + 100))
    assert ours.keep(older, NOW + 100) == (True, True, None)
    assert ours.live(older.key, NOW + 100) is older
    assert ours.keep(presence(seq=4, expires=NOW + 200), NOW + 100) == (True, False, None)
    assert ours.expire(NOW + 150) == []


def test_what_is_over_makes_room_first() -> None:
    ours = store(max_records=3)
    near_to_far = sorted((unsigned(number) for number in range(6)), key=distance)
    short = unsigned(50, expires=NOW + 10)
    for record in (*near_to_far[:2], short):
        ours.keep(record, NOW)
    assert ours.keep(near_to_far[5], NOW + 10) == (True, True, None)
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
    assert ours.keep(near_to_far[0], NOW) == (True, True, None)
    assert near_to_far[5].key not in ours
    assert ours.keep(near_to_far[5], NOW) == (False, False, None)
    assert ours.keep(near_to_far[2], NOW).kept
    assert [record.key in ours for record in near_to_far] == [True, False, True, True, False, False]


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
