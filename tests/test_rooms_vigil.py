"""Who can still be reached: broken links may come back, silence does not last, and probes are forgotten."""

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.vigil import Vigil

CONFIG = RoomsConfig(lost_s=3.0, silent_s=30.0, neighbour_s=6.0)
ANN, BEN = b"\1" * 32, b"\2" * 32


def test_a_link_that_comes_back_in_time_was_not_lost() -> None:
    vigil = Vigil(CONFIG)
    vigil.on_up(ANN, 0.0)
    vigil.on_broken(ANN, 10.0)
    assert vigil.is_broken(ANN)
    assert vigil.deadline == 13.0
    assert vigil.lost(12.9) == []
    assert vigil.lost(13.0) == [ANN]
    vigil.on_answered(ANN)
    assert vigil.lost(99.0) == []
    assert vigil.deadline == float("inf")


def test_a_neighbour_that_says_nothing_is_silent_and_a_stranger_is_not() -> None:
    vigil = Vigil(CONFIG)
    vigil.on_up(ANN, 0.0)
    vigil.on_heard(BEN, 0.0)
    assert vigil.silent(30.0) == []
    assert vigil.silent(30.1) == [ANN]
    vigil.on_heard(ANN, 30.0)
    assert vigil.silent(60.0) == []
    vigil.on_down(ANN)
    assert vigil.silent(999.0) == []


def test_a_probe_ends_with_an_answer_or_is_forgotten() -> None:
    vigil = Vigil(CONFIG)
    vigil.on_probe(ANN, 0.0)
    assert vigil.is_probed(ANN)
    vigil.on_probe(BEN, 6.0)
    assert not vigil.is_probed(ANN)
    vigil.on_answered(BEN)
    assert not vigil.is_probed(BEN)
