"""Coming into a room: whom we ask, in which order, and when we give up and are in alone."""

from collections import Counter

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.entrance import Entrance
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import Join, Statement, Stream, read_message

CONFIG = RoomsConfig(join_s=5.0, max_last=3)
ROOM, ANN, BEN = bytes(20), b"\1" * 32, b"\2" * 32


class Door:
    """An entrance, and what was said through it."""

    def __init__(self, last: int = 2) -> None:
        self.outbox = Outbox()
        self.counters: Counter[str] = Counter()
        self.entrance = Entrance(ROOM, CONFIG, self.outbox, self.counters, last=last, guest=False)

    def asked(self) -> list[tuple[bytes, int]]:
        """Who was asked, and for how many shouts."""
        said = [(to, read_message(data)) for to, data in self.outbox.take()]
        return [(to, message.last) for to, message in said if isinstance(message, Join)]


def test_one_after_the_other_is_asked_and_then_we_are_alone() -> None:
    door = Door()
    door.entrance.offer([ANN, BEN])
    assert not door.entrance.ask_next(10.0, is_in=False)
    assert (door.entrance.contact, door.entrance.deadline) == (ANN, 15.0)
    assert not door.entrance.ask_next(15.0, is_in=False)
    assert door.asked() == [(ANN, 2), (BEN, 2)]
    assert door.entrance.ask_next(20.0, is_in=False)
    assert door.entrance.contact is None
    assert door.counters["rooms.not_let_in"] == 2


def test_who_was_not_in_yet_is_asked_again_but_not_for_ever() -> None:
    door = Door()
    door.entrance.offer([ANN])
    now, rounds = 0.0, 0
    while not door.entrance.ask_next(now, is_in=False):
        now = door.entrance.deadline
        if door.entrance.contact is not None:
            rounds += 1
            door.entrance.on_not_yet(ANN)
    assert rounds == len(door.asked()) == 3


def test_who_is_in_already_is_owed_no_past() -> None:
    door = Door()
    door.entrance.offer([ANN])
    assert not door.entrance.ask_next(0.0, is_in=True)
    assert door.asked() == [(ANN, 0)]
    assert not door.entrance.ask_next(5.0, is_in=True)
    assert door.entrance.deadline == float("inf")


def test_no_more_of_the_past_is_taken_than_was_asked_for() -> None:
    door = Door(last=9)
    door.entrance.offer([ANN])
    door.entrance.ask_next(0.0, is_in=False)
    assert door.asked() == [(ANN, 3)]
    shouts = [Statement(BEN, 1, Stream.SHOUT, seq, b"", bytes(64)) for seq in range(1, 6)]
    assert door.entrance.take_past(shouts[:2]) == shouts[:2]
    assert door.entrance.take_past(shouts[2:]) == shouts[2:3]
    assert door.entrance.take_past(shouts) == []


def test_who_was_let_in_asks_nobody_else() -> None:
    door = Door()
    door.entrance.offer([ANN, BEN])
    door.entrance.ask_next(0.0, is_in=False)
    door.entrance.on_let_in()
    assert (door.entrance.contact, door.entrance.deadline) == (None, float("inf"))
    assert not door.entrance.ask_next(1.0, is_in=True)
    assert door.asked() == [(ANN, 2)]
