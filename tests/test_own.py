"""Our own records: how new they must be, and when they are said again."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import INCARNATION, LIFE, LOCAL, NOW, identity, presence

from dht_atonce.config import DhtConfig
from dht_atonce.dht.own import OwnRecord, OwnRecords
from dht_atonce.records import GONE, PresenceRecord

CONFIG = DhtConfig()
KEY = b"k" * 20
QUARTER = LIFE / 4


def sign(seq: int, expires: int) -> PresenceRecord:
    return presence(seq=seq, expires=expires)


def sign_gone(seq: int, expires: int) -> PresenceRecord:
    return presence(seq=seq, expires=expires, status=GONE)


def records(seed: int = 1) -> OwnRecords:
    return OwnRecords(LOCAL, CONFIG, random.Random(seed))


def round_of(ours: OwnRecords, own: OwnRecord, now: float, confirmed: int, known: int) -> None:
    """One round of publishing, from its beginning to its end."""
    generation = ours.on_publishing(own)
    ours.renew(own, NOW + now)
    for number in range(confirmed):
        ours.on_stored(KEY, bytes([number]))
    ours.on_published(own, generation, now, known=known)


# --- a network that grows ---


def test_what_was_said_to_a_small_network_is_said_again_to_one_four_times_as_large() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    generation = ours.on_publishing(own)
    ours.renew(own, NOW)
    ours.on_crowd(1e6, 0.5)  # a round that has not ended is not begun again
    assert ours.deadline() == math.inf
    for number in range(20):
        ours.on_stored(KEY, bytes([number]))
    ours.on_published(own, generation, 1.0, known=20, crowd=100.0)
    planned = ours.deadline()
    ours.on_crowd(399.0, 30.0)
    assert ours.deadline() == planned
    ours.on_crowd(400.0, 60.0)
    assert 60.0 <= ours.deadline() <= 70.0
    soon = ours.deadline()
    ours.on_crowd(1000.0, 61.0)
    assert ours.deadline() == soon  # it is due already


def test_who_cannot_publish_keeps_its_growing_pause_though_the_network_grew() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    own.crowd = 1.0
    for now in (0.0, 10.0, 100.0):
        ours.on_failed(own, ours.on_publishing(own), now)
    due = ours.deadline()
    ours.on_crowd(1000.0, 100.0)
    assert ours.deadline() == due


def test_what_is_due_within_seconds_anyway_is_not_put_off_because_the_network_grew() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    round_of(ours, own, 0.0, confirmed=0, known=20)
    due = ours.deadline()
    own.crowd = 1.0
    ours.on_crowd(100.0, due - 1.0)
    assert ours.deadline() == due


# --- how new ---


def test_the_seq_is_the_clock_in_microseconds() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    assert ours.renew(own, NOW + 0.5).seq == NOW * 1_000_000 + 500_000


def test_the_seq_goes_above_what_was_found_in_the_network() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    assert ours.renew(own, NOW, found_seq=NOW * 1_000_000 + 77).seq == NOW * 1_000_000 + 78
    # And stays above it, though the clock is behind.
    assert ours.renew(own, NOW).seq == NOW * 1_000_000 + 79


@given(st.lists(st.tuples(st.floats(0, 2e9), st.integers(0, 2**60)), min_size=1, max_size=20))
def test_the_seq_rises_whatever_the_clock_does(steps: list[tuple[float, int]]) -> None:
    ours, last = records(), -1
    own = ours.put(KEY, sign, 0.0)
    for wall, found in steps:
        seq = ours.renew(own, wall, found).seq
        assert seq > last
        assert seq > found
        assert seq >= int(wall * 1_000_000)
        last = seq


def test_a_record_has_a_whole_life_ahead_and_a_goodbye_a_little_more() -> None:
    ours = records()
    assert ours.renew(ours.put(KEY, sign, 0.0), NOW + 0.9).expires == NOW + LIFE
    assert ours.renew(ours.put(KEY, sign_gone, 0.0, is_goodbye=True), NOW).expires == NOW + LIFE + 120
    assert ours.renew(ours.put(KEY, sign, 0.0), NOW).expires == NOW + LIFE


# --- when ---


def test_what_is_new_is_due_at_once() -> None:
    ours = records()
    assert ours.due(5.0) == []
    assert ours.deadline() == math.inf
    own = ours.put(KEY, sign, 5.0)
    assert ours.deadline() == 5.0
    assert ours.due(4.9) == []
    assert ours.due(5.0) == [(KEY, own)]


def test_while_it_is_being_published_it_is_not_due() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    ours.on_publishing(own)
    assert ours.due(1e9) == []
    assert ours.deadline() == math.inf


@pytest.mark.parametrize("seed", range(20))
def test_it_is_said_again_at_a_quarter_of_its_life(seed: int) -> None:
    ours = records(seed)
    own = ours.put(KEY, sign, 100.0)
    round_of(ours, own, 100.0, confirmed=4, known=50)
    assert 100 + 0.9 * QUARTER <= own.due_at <= 100 + 1.1 * QUARTER


def test_not_all_say_it_again_at_the_same_moment() -> None:
    due = set()
    for seed in range(20):
        ours = records(seed)
        own = ours.put(KEY, sign, 0.0)
        round_of(ours, own, 0.0, confirmed=4, known=50)
        due.add(own.due_at)
    assert len(due) == 20


@pytest.mark.parametrize(
    ("known", "confirmed", "enough"),
    [
        (0, 0, True),
        (1, 0, False),
        (1, 1, True),
        (2, 1, True),
        (3, 1, False),
        (3, 2, True),
        (50, 1, False),
        (50, 2, True),
    ],
)
def test_half_of_the_replicas_are_enough(known: int, confirmed: int, enough: bool) -> None:
    ours = records()  # k is 4
    own = ours.put(KEY, sign, 0.0)
    round_of(ours, own, 0.0, confirmed, known)
    assert (own.due_at > 60) == enough


def test_with_too_few_it_is_tried_again_with_growing_pauses() -> None:
    ours, now, pauses = records(), 0.0, []
    own = ours.put(KEY, sign, now)
    for _ in range(12):
        round_of(ours, own, now, confirmed=0, known=50)
        pauses.append(own.due_at - now)
        now = own.due_at
    expected = [min(60.0, 2.0**n) for n in range(12)]
    assert all(0.75 * want <= pause <= 1.25 * want for want, pause in zip(expected, pauses, strict=True))
    # Once it worked, the next pauses begin small again.
    round_of(ours, own, now, confirmed=4, known=50)
    assert own.due_at - now > 0.9 * QUARTER
    now = own.due_at
    round_of(ours, own, now, confirmed=0, known=50)
    assert own.due_at - now <= 1.25


def test_a_later_word_is_due_though_an_earlier_round_ends() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    generation = ours.on_publishing(own)
    ours.renew(own, NOW)
    assert ours.put(KEY, sign_gone, 1.0, is_goodbye=True) is own
    ours.on_published(own, generation, 2.0, known=0)
    assert own.due_at == 1.0
    assert ours.due(2.0) == [(KEY, own)]
    assert ours.renew(own, NOW).is_goodbye


def test_a_new_word_begins_with_a_short_pause_again() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    for _ in range(6):
        round_of(ours, own, 0.0, confirmed=0, known=50)
    assert own.due_at > 20
    ours.put(KEY, sign, 1.0)
    round_of(ours, own, 1.0, confirmed=0, known=50)
    assert own.due_at <= 1.0 + 1.25


# --- replicas ---


def test_it_wants_replicas_until_k_nodes_have_confirmed() -> None:
    ours = records()
    assert ours.wanting() == []
    own = ours.put(KEY, sign, 0.0)
    assert ours.wanting() == []  # there is nothing to hand out yet
    ours.renew(own, NOW)
    for number in range(LOCAL.k):
        assert ours.wanting() == [KEY]
        ours.on_stored(KEY, bytes([number]))
        ours.on_stored(KEY, bytes([number]))  # the same node again counts once
    assert ours.wanting() == []
    ours.renew(own, NOW + 1)  # nobody has the new one yet
    assert ours.wanting() == [KEY]


def test_a_confirmation_of_what_is_not_ours_is_ignored() -> None:
    ours = records()
    ours.on_stored(KEY, b"node")
    assert KEY not in ours
    assert ours.get(KEY) is None


# --- how many ---


def test_an_identity_has_a_bounded_number_of_records() -> None:
    ours = records()
    for number in range(256):
        ours.put(number.to_bytes(20, "big"), sign, 0.0)
    with pytest.raises(ValueError, match="at most 256"):
        ours.put(b"one more", sign, 0.0)
    ours.put(bytes(20), sign, 1.0)
    assert len(ours.keys()) == 256
    assert bytes(20) in ours


def test_the_record_is_what_the_signer_makes() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    record = ours.renew(own, NOW)
    assert own.record is record
    assert (record.peer_id, record.incarnation) == (identity(0).id, INCARNATION)
    assert ours.get(KEY) is own


def test_a_goodbye_that_enough_nodes_know_of_is_said_once_and_for_all() -> None:
    ours = records()
    own = ours.put(KEY, sign_gone, 0.0, is_goodbye=True)
    round_of(ours, own, 0.0, confirmed=1, known=50)
    assert KEY in ours
    assert own.due_at < QUARTER / 2
    round_of(ours, own, 10.0, confirmed=2, known=50)
    assert KEY not in ours
    assert ours.deadline() == math.inf


def test_alone_a_goodbye_is_kept_for_whoever_comes() -> None:
    ours = records()
    own = ours.put(KEY, sign_gone, 0.0, is_goodbye=True)
    round_of(ours, own, 0.0, confirmed=0, known=0)
    assert KEY in ours


def test_nodes_that_have_passed_us_over_are_not_told_again() -> None:
    ours = records()
    own = ours.put(KEY, sign, 0.0)
    round_of(ours, own, 0.0, confirmed=1, known=50)
    assert own.due_at < QUARTER / 2
    generation = ours.on_publishing(own)
    ours.renew(own, NOW)
    for number in (1, 2, 3, 4, 4):
        ours.on_passed_over(KEY, bytes([number] * 20))
    ours.on_published(own, generation, 10.0, known=50)
    assert own.due_at > QUARTER / 2
    assert ours.wanting() == []
    ours.renew(own, NOW)
    assert ours.wanting() == [KEY]  # a new record, a new chance
