"""What is thought of a peer, input by input."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support_peers import identity, presence

from dht_atonce.config import PresenceConfig
from dht_atonce.endpoints import Address
from dht_atonce.presence.sight import Basis, PresenceChange, PresenceEvent, PresenceState, Sight
from dht_atonce.records import GONE, PresenceRecord

BOB = identity(2)
CONFIG = PresenceConfig()
HERE = Address("10.0.0.2", 4711)
FIRST, SECOND = b"run-0001", b"run-0002"


def record(seq: int = 1, status: str = "online", incarnation: bytes = FIRST, *endpoints: Address) -> PresenceRecord:
    return presence(BOB, *(endpoints or (HERE,)), seq=seq, status=status, incarnation=incarnation)


def sight() -> Sight:
    return Sight(BOB.id, CONFIG)


def said(event: PresenceEvent | None) -> tuple[str, str, str] | None:
    return (event.change.value, event.basis.value, event.status) if event is not None else None


def test_a_record_says_that_it_is_there_and_a_link_adds_nothing() -> None:
    bob = sight()
    assert said(bob.on_record(record(), 5.0)) == ("online", "record", "online")
    assert bob.on_linked(record(), 6.0) is None
    assert (bob.state, bob.basis, bob.since) == (PresenceState.ONLINE, Basis.LINK, 5.0)


def test_what_it_says_of_itself_changes() -> None:
    bob = sight()
    bob.on_record(record(), 1.0)
    assert said(bob.on_record(record(2, "away"), 2.0)) == ("changed", "record", "away")
    assert bob.on_record(record(3, "away"), 3.0) is None  # a refresh
    assert bob.on_record(record(2, "busy"), 4.0) is None  # old news


def test_a_link_that_is_back_in_time_makes_nobody_blink() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    bob.on_lost(10.0)
    assert bob.deadline == 10.0 + CONFIG.suspect_s
    assert bob.on_linked(record(), 10.9) is None
    assert bob.deadline == float("inf")


def test_a_crash_is_suspect_and_then_offline() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    bob.on_lost(10.0)
    assert said(bob.on_timer(11.0)) == ("suspect", "link", "online")
    assert bob.deadline == 10.0 + CONFIG.offline_s
    assert said(bob.on_timer(12.5)) == ("offline", "link", "online")
    assert bob.deadline == float("inf")
    assert said(bob.on_linked(record(), 60.0)) == ("online", "link", "online")


def test_where_nobody_listens_any_more_it_is_offline_at_once() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    bob.on_lost(10.0)
    assert said(bob.on_unreachable(10.1)) == ("offline", "link", "online")
    assert bob.on_timer(11.0) is None


def test_after_a_crash_only_something_newer_counts() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    bob.on_lost(10.0)
    bob.on_unreachable(10.1)
    assert bob.on_record(record(), 11.0) is None  # still published, by nobody
    assert said(bob.on_record(record(2, incarnation=SECOND), 12.0)) == ("online", "record", "online")


def test_a_goodbye_counts_at_once() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    assert said(bob.on_record(record(2, GONE), 1.0)) == ("offline", "record", GONE)
    bob = sight()
    bob.on_linked(record(), 0.0)
    assert said(bob.on_left(1.0)) == ("offline", "link", "online")
    assert bob.on_record(record(2, GONE), 1.5) == PresenceEvent(
        BOB.id, PresenceChange.CHANGED, PresenceState.OFFLINE, Basis.RECORD, GONE, record().capabilities, 1.0
    )


def test_who_is_dialled_in_vain_and_never_was_reached_is_suspect() -> None:
    bob = sight()
    assert bob.on_unreachable(0.5) is None  # nothing is known of him
    bob.on_record(record(), 1.0)
    assert said(bob.on_unreachable(2.0)) == ("suspect", "record", "online")
    assert bob.on_record(record(2), 3.0) is None  # a refresh is no proof that he can be reached
    assert said(bob.on_linked(record(2), 4.0)) == ("online", "link", "online")


def test_who_cannot_be_dialled_is_judged_by_the_record() -> None:
    bob = sight()
    bob.on_record(presence(BOB, seq=1, incarnation=FIRST), 1.0)
    assert bob.on_unreachable(2.0) is None
    assert said(bob.on_expired(3.0)) == ("offline", "record", "online")


def test_expiry_says_nothing_while_there_is_a_link() -> None:
    bob = sight()
    bob.on_linked(record(), 0.0)
    assert bob.on_expired(1.0) is None
    assert bob.state is PresenceState.ONLINE


STEPS = st.sampled_from(["record", "refresh", "goodbye", "expired", "linked", "lost", "left", "unreachable", "timer"])


@given(st.lists(st.tuples(STEPS, st.floats(0.0, 5.0)), max_size=60))
def test_events_alternate_and_a_peer_with_a_link_is_online(steps: list[tuple[str, float]]) -> None:
    bob, now, seq, linked = sight(), 0.0, 1, False
    state = None
    for step, pause in steps:
        now += pause
        before = bob.state
        event = None
        match step:
            case "record" | "refresh":
                seq += step == "record"
                event = bob.on_record(record(seq), now)
            case "goodbye":
                seq += 1
                event, linked = bob.on_record(record(seq, GONE), now), False
            case "expired":
                event = bob.on_expired(now)
            case "linked":
                seq += 1  # who is back after a goodbye says something newer
                event, linked = bob.on_linked(record(seq), now), True
            case "lost":
                linked = False
                bob.on_lost(now)
            case "left":
                event, linked = bob.on_left(now), False
            case "unreachable":
                event = bob.on_unreachable(now)
            case "timer":
                event = bob.on_timer(now)
        if event is None:
            assert bob.state is before
        elif event.change is PresenceChange.CHANGED:
            assert event.state is before
        else:
            assert event.state.value == event.change.value != (before.value if before is not None else "")
        if linked:
            assert bob.state is PresenceState.ONLINE
        state = bob.state
        assert bob.deadline == float("inf") or state in (PresenceState.ONLINE, PresenceState.SUSPECT)
    # Whoever is silent for long is not thought to be there because of a link that was.
    if bob.deadline != float("inf"):
        for _ in range(2):
            bob.on_timer(now := max(now, bob.deadline))
        assert bob.state is PresenceState.OFFLINE


def test_the_deadlines_leave_room_for_heartbeats() -> None:
    assert 12.0 + CONFIG.offline_s <= 15.0
    assert replace(CONFIG).suspect_s < CONFIG.offline_s
