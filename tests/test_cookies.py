"""Cookies: what shows that an address was reached, for how long, and for whom."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht_atonce.config import DhtConfig
from dht_atonce.dht.cookies import CookieIssuer, Proof
from dht_atonce.endpoints import Address, pack_address

EPOCH = 120.0
KEY = bytes(range(32))
HERE = pack_address(Address("1.1.1.1", 4000))

moments = st.floats(0, 10 * EPOCH, allow_nan=False)
addresses = st.builds(Address, st.ip_addresses().map(str), st.integers(0, 65535)).map(pack_address)


def issuer(seed: int = 1) -> CookieIssuer:
    return CookieIssuer(random.Random(seed), EPOCH)


def test_a_cookie_proves_its_address_for_one_to_two_epochs() -> None:
    ours = issuer()
    cookie = ours.issue(HERE, KEY, 10.0)
    assert len(cookie) == 16
    assert ours.check(cookie, HERE, KEY, 10.0) is Proof.CURRENT
    assert ours.check(cookie, HERE, KEY, 119.9) is Proof.CURRENT
    assert ours.check(cookie, HERE, KEY, 120.0) is Proof.PREVIOUS
    assert ours.check(cookie, HERE, KEY, 239.9) is Proof.PREVIOUS
    assert ours.check(cookie, HERE, KEY, 240.0) is Proof.NONE
    assert ours.check(cookie, HERE, KEY, 10_000.0) is Proof.NONE


def test_without_a_cookie_nothing_is_proved() -> None:
    assert issuer().check(b"", HERE, KEY, 0.0) is Proof.NONE


@given(st.binary(max_size=20), moments)
def test_a_made_up_cookie_proves_nothing(cookie: bytes, now: float) -> None:
    assert issuer().check(cookie, HERE, KEY, now) is Proof.NONE


@given(addresses, addresses, st.binary(min_size=32, max_size=32))
def test_a_cookie_is_good_for_nobody_else(here: bytes, there: bytes, other_key: bytes) -> None:
    ours = issuer()
    cookie = ours.issue(here, KEY, 0.0)
    assert ours.check(cookie, here, KEY, 0.0) is Proof.CURRENT
    if there != here:
        assert ours.check(cookie, there, KEY, 0.0) is Proof.NONE
    if other_key != KEY:
        assert ours.check(cookie, here, other_key, 0.0) is Proof.NONE
    assert ours.check(cookie, here[:-1] + bytes((here[-1] ^ 1,)), KEY, 0.0) is Proof.NONE
    assert issuer(2).check(cookie, here, KEY, 0.0) is Proof.NONE


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 200, allow_nan=False), st.booleans()), max_size=20))
def test_it_depends_on_the_epochs_alone(steps: list[tuple[float, bool]]) -> None:
    # Whatever was issued or checked in between, and however long nobody came.
    ours, now, issued = issuer(), 0.0, []
    for pause, issues in steps:
        now += pause
        if issues:
            issued.append((now, ours.issue(HERE, KEY, now)))
        for at, cookie in issued:
            age = int(now // EPOCH) - int(at // EPOCH)
            proof = {0: Proof.CURRENT, 1: Proof.PREVIOUS}.get(age, Proof.NONE)
            assert ours.check(cookie, HERE, KEY, now) is proof


@given(st.floats(0, 1000, allow_nan=False), st.floats(0, 1, exclude_max=True))
def test_whoever_uses_a_cookie_for_as_long_as_is_specified_is_never_refused(at: float, share: float) -> None:
    config, ours = DhtConfig(), issuer()
    cookie = ours.issue(HERE, KEY, at)
    used_at = at + share * config.cookie_use_s + config.max_timeout_s  # and a slow way there
    assert ours.check(cookie, HERE, KEY, used_at) is not Proof.NONE


def test_it_is_the_hash_that_the_specification_names() -> None:
    secret = random.Random(1).randbytes(32)
    expected = hashlib.blake2b(bytes([1, 1, 1, 1]) + (4000).to_bytes(2, "big") + KEY, key=secret, digest_size=16)
    assert issuer().issue(HERE, KEY, 0.0) == expected.digest()


@pytest.mark.parametrize("ip", ["1.1.1.1", "2606:4700::1111"])
def test_both_families_have_cookies(ip: str) -> None:
    ours, here = issuer(), pack_address(Address(ip, 4000))
    assert ours.check(ours.issue(here, KEY, 0.0), here, KEY, 1.0) is Proof.CURRENT


def test_what_was_checked_before_is_no_proof_of_anything_else() -> None:
    # Good ones are remembered: another cookie of the same asker, another asker and another epoch are still judged.
    ours = issuer()
    cookie, there = ours.issue(HERE, KEY, 0.0), HERE[:-1] + b"!"
    for _ in range(2):
        assert ours.check(cookie, HERE, KEY, 1.0) is Proof.CURRENT
        assert ours.check(bytes(16), HERE, KEY, 1.0) is Proof.NONE
        assert ours.check(cookie, there, KEY, 1.0) is Proof.NONE
    for number in range(3000):
        other = number.to_bytes(32, "big")
        assert ours.check(ours.issue(HERE, other, 2.0), HERE, other, 2.0) is Proof.CURRENT
    assert len(ours._seen) <= 1024
    assert ours.check(cookie, HERE, KEY, 3.0) is Proof.CURRENT
    assert ours.check(cookie, HERE, KEY, EPOCH) is Proof.PREVIOUS
    assert ours.check(cookie, HERE, KEY, 2 * EPOCH) is Proof.NONE
