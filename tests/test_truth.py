"""The world's own truth, and what a lookup's answer is worth beside it."""

from typing import Final

import pytest

from atonce_sim.truth import Answer, Said, Truth, Verdict

WALL: Final = 1000.0
KEY: Final = b"k" * 20

CORRECT, STALE, FAILED, WRONG = Verdict.CORRECT, Verdict.STALE, Verdict.FAILED, Verdict.WRONG
LIVE = Said(5, WALL + 60)
GOODBYE = Said(6, WALL + 60, is_goodbye=True)
EXPIRED = Said(5, WALL - 60)


def answer(seq: int, *, expires: float = WALL + 60, is_goodbye: bool = False, genuine: bool = True) -> Answer:
    return Answer(seq, expires, is_goodbye, genuine)


@pytest.mark.parametrize(
    ("said", "given", "verdict"),
    [
        # Somebody is there.
        (LIVE, answer(5), CORRECT),
        (LIVE, answer(6), CORRECT),  # newer: its publish had not completed when the lookup began
        (LIVE, answer(6, is_goodbye=True), CORRECT),  # it went meanwhile
        (LIVE, answer(4), STALE),
        (LIVE, answer(4, is_goodbye=True), STALE),  # an old goodbye hides a live record
        (LIVE, None, FAILED),
        (LIVE, answer(5, genuine=False), WRONG),
        (LIVE, answer(9, genuine=False), WRONG),
        (LIVE, answer(4, genuine=False), WRONG),  # forged and old: forged
        (LIVE, answer(5, expires=WALL - 1), WRONG),
        (LIVE, answer(4, expires=WALL - 1), WRONG),
        (LIVE, answer(5, expires=WALL), WRONG),
        # It said goodbye.
        (GOODBYE, None, CORRECT),
        (GOODBYE, answer(6, is_goodbye=True), CORRECT),
        (GOODBYE, answer(7), CORRECT),  # it is back
        (GOODBYE, answer(5), STALE),
        (GOODBYE, answer(6, is_goodbye=True, genuine=False), WRONG),
        (GOODBYE, answer(6, is_goodbye=True, expires=WALL - 1), WRONG),
        # What it said has expired.
        (EXPIRED, None, CORRECT),
        (EXPIRED, answer(5, expires=WALL - 60), WRONG),
        (EXPIRED, answer(6), CORRECT),
        (EXPIRED, answer(4), STALE),
        (Said(5, WALL), None, CORRECT),
        # Nothing was ever said.
        (None, None, CORRECT),
        (None, answer(1), CORRECT),  # genuine: its first publish had not completed
        (None, answer(1, genuine=False), WRONG),
        (None, answer(1, expires=WALL - 1), WRONG),
    ],
)
def test_what_an_answer_is_worth(said: Said | None, given: Answer | None, verdict: Verdict) -> None:
    assert Truth().judge(said, given, WALL) is verdict


@pytest.mark.parametrize(
    ("said", "given", "verdict"),
    [
        # A host whose clock is fast by 30 s may call absent what expires within 30 s, and no other record.
        (Said(5, WALL + 29), None, CORRECT),
        (Said(5, WALL + 30), None, CORRECT),
        (Said(5, WALL + 31), None, FAILED),
        # One whose clock is slow by 30 s may give what expired 30 s ago, and nothing older.
        (Said(5, WALL - 29), answer(5, expires=WALL - 29), CORRECT),
        (Said(5, WALL - 30), answer(5, expires=WALL - 30), WRONG),
        (LIVE, answer(4, expires=WALL - 29), STALE),
        (LIVE, answer(5, genuine=False), WRONG),
    ],
)
def test_clocks_that_are_off_are_allowed_for(said: Said, given: Answer | None, verdict: Verdict) -> None:
    assert Truth(skew_s=30).judge(said, given, WALL) is verdict


def test_a_lookup_is_measured_by_what_was_said_when_it_began() -> None:
    truth = Truth()
    assert truth.newest(KEY) is None
    truth.on_published(KEY, Said(1, WALL + 60))
    said = truth.newest(KEY)
    truth.on_published(KEY, Said(2, WALL + 60))
    assert truth.judge(said, answer(1), WALL) is CORRECT
    assert truth.judge(truth.newest(KEY), answer(1), WALL) is STALE


def test_publishes_that_complete_late_do_not_replace_newer_ones() -> None:
    truth = Truth()
    truth.on_published(KEY, Said(2, WALL + 60))
    truth.on_published(KEY, Said(1, WALL + 60))
    assert truth.newest(KEY) == Said(2, WALL + 60)
    truth.on_published(KEY, Said(2, WALL + 90))
    assert truth.newest(KEY) == Said(2, WALL + 90)
    assert truth.newest(b"o" * 20) is None


def test_who_is_live() -> None:
    truth = Truth()
    assert not truth.is_live(KEY, WALL)
    truth.on_published(KEY, LIVE)
    assert truth.is_live(KEY, WALL)
    assert not truth.is_live(KEY, WALL + 60)
    truth.on_published(KEY, GOODBYE)
    assert not truth.is_live(KEY, WALL)
    truth.on_published(KEY, Said(7, WALL + 60))
    assert truth.is_live(KEY, WALL)
