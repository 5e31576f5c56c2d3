"""The trace: a digest over all that happened, and a listener for whoever wants to see it."""

from collections.abc import Callable

import pytest

from atonce_sim.trace import Seen, Trace


def digest(*acts: Callable[[Trace], None]) -> str:
    trace = Trace()
    for act in acts:
        act(trace)
    return trace.digest


def sent(trace: Trace) -> None:
    trace.sent(1.5, 3, 4, b"data")


OTHERS: dict[str, Callable[[Trace], None]] = {
    "later": lambda trace: trace.sent(1.6, 3, 4, b"data"),
    "by another": lambda trace: trace.sent(1.5, 2, 4, b"data"),
    "to another": lambda trace: trace.sent(1.5, 3, 5, b"data"),
    "to nobody": lambda trace: trace.sent(1.5, 3, -1, b"data"),
    "something else": lambda trace: trace.sent(1.5, 3, 4, b"dato"),
    "more": lambda trace: trace.sent(1.5, 3, 4, b"data "),
    "as a frame": lambda trace: trace.sent(1.5, 3, 4, b"data", is_frame=True),
    "as an event": lambda trace: trace.event(1.5, "", 3, "data", 4),
    "nothing": lambda trace: None,
    "twice": lambda trace: (sent(trace), sent(trace))[0],
}


def test_the_same_acts_give_the_same_digest() -> None:
    assert digest(sent) == digest(sent)
    assert len(digest()) == 32
    assert int(digest(), 16) > 0


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_was_otherwise_gives_another_digest(other: str) -> None:
    assert digest(sent) != digest(OTHERS[other])


def test_order_counts() -> None:
    other = OTHERS["to another"]
    assert digest(sent, other) != digest(other, sent)


@pytest.mark.parametrize(
    "change",
    [{"at_s": 2.0}, {"kind": "leave"}, {"host": 2}, {"words": "1"}, {"other": 1}],
    ids=["when", "what", "who", "words", "with whom"],
)
def test_events_are_part_of_the_digest(change: dict[str, object]) -> None:
    event: dict[str, object] = {"at_s": 1.0, "kind": "join", "host": 1, "words": "0"}

    def says(**what: object) -> str:
        return digest(lambda trace: trace.event(**what))  # type: ignore[arg-type]

    assert says(**event) == says(**event) != says(**event | change)


def test_a_listener_hears_all_and_changes_nothing() -> None:
    def acts(trace: Trace) -> None:
        trace.sent(1.0, 3, 4, b"datagram")
        trace.sent(2.0, 3, -1, b"frame", is_frame=True)
        trace.event(3.0, "joined", 5, "wörds")
        trace.arrived(4.0, 4, 3, b"datagram")
        trace.lost(5.0, 3, 4, b"other")

    trace, heard = Trace(), list[Seen]()
    trace.listener = heard.append
    acts(trace)
    assert heard == [
        Seen(1.0, "sent", 3, 4, b"datagram"),
        Seen(2.0, "frame", 3, -1, b"frame"),
        Seen(3.0, "joined", 5, -1, "wörds".encode()),
        Seen(4.0, "arrived", 4, 3, b"datagram"),
        Seen(5.0, "lost", 3, 4, b"other"),
    ]
    assert trace.digest == digest(acts)


def test_what_follows_from_what_was_sent_is_no_part_of_the_digest() -> None:
    assert digest(sent) == digest(sent, lambda trace: trace.arrived(2.0, 4, 3, b"data"))
    assert digest(sent) == digest(sent, lambda trace: trace.lost(1.5, 3, 4, b"data"))
