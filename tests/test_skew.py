"""A wrong clock: found out from what others say, by majority."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW, contact

from dht_atonce.config import DhtConfig
from dht_atonce.dht.skew import ClockSkew

DAY = 86400


def skew(*offsets: float) -> ClockSkew:
    """What we think after nodes told us how far our clock is behind theirs."""
    ours = ClockSkew(DhtConfig())
    for number, offset in enumerate(offsets):
        ours.on_time(contact(number).key, NOW + offset, NOW)
    return ours


def test_alone_we_believe_our_clock() -> None:
    assert skew().offset_s == 0
    assert skew().correction_s == 0
    assert not skew().is_hopeless


@pytest.mark.parametrize("offset", [-60, -1, 0, 0.5, 60])
def test_up_to_a_minute_nothing_is_corrected(offset: float) -> None:
    assert skew(offset, offset, offset).offset_s == offset
    assert skew(offset, offset, offset).correction_s == 0


@pytest.mark.parametrize("offset", [-DAY, -3600, -61, 61, 3600, DAY])
def test_above_a_minute_we_sign_with_the_others_time(offset: float) -> None:
    assert skew(offset, offset + 1, offset - 1).correction_s == offset
    assert not skew(offset, offset + 1, offset - 1).is_hopeless


@pytest.mark.parametrize("offset", [-DAY - 1, DAY + 1, 1_000_000_000])
def test_above_a_day_it_is_hopeless(offset: float) -> None:
    assert skew(offset, offset, offset).is_hopeless


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=15), st.lists(st.floats(-1e12, 1e12), max_size=14), st.integers()
)
def test_a_minority_of_liars_moves_nothing(honest: list[float], lies: list[float], seed: int) -> None:
    voices = [*honest, *lies[: len(honest) - 1]]
    random.Random(seed).shuffle(voices)
    ours = skew(*voices)
    assert min(honest) - 1e-3 <= ours.offset_s <= max(honest) + 1e-3
    assert ours.correction_s == 0
    assert not ours.is_hopeless


def test_everybody_has_one_voice_however_often_it_speaks() -> None:
    ours = skew(0, 0)
    for _ in range(50):
        ours.on_time(contact(7).key, NOW + 3600, NOW)
    assert ours.offset_s == 0


def test_only_the_latest_voices_count() -> None:
    # Our clock was set right meanwhile: what was said of the wrong one is forgotten.
    ours = skew(*[3600] * 31)
    assert ours.correction_s == 3600
    for number in range(100, 116):
        ours.on_time(contact(number).key, NOW, NOW)
    assert ours.correction_s == 0
    for number in range(100, 131):
        ours.on_time(contact(number).key, NOW, NOW)
    assert ours.offset_s == 0
