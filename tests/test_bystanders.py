"""Counting what reaches somebody who has no part in the network."""

import pytest

from atonce_sim.bystanders import Bystander


def test_the_most_that_one_host_sent_within_ten_seconds() -> None:
    bystander = Bystander()
    for now in (0.0, 1.0, 9.9, 10.0, 11.5):
        bystander.on_sent(1, 100, now)
    assert bystander.most == 3  # at 0, 1 and 9.9; at 10 the first is no longer within
    for host in range(2, 10):
        bystander.on_sent(host, 100, 11.5)
    assert bystander.most == 3
    assert bystander.datagrams == 13


def test_the_ratio_is_each_host_s_own_and_the_largest_that_ever_was() -> None:
    bystander = Bystander()
    bystander.on_sent(1, 50, 0.0)  # of its own accord: it answers nothing
    assert bystander.largest_ratio is None
    bystander.on_spoofed(2, 100)
    assert bystander.largest_ratio == 0
    bystander.on_sent(2, 250, 1.0)
    bystander.on_spoofed(3, 1000)
    bystander.on_sent(3, 1000, 1.0)
    bystander.on_spoofed(2, 900)
    bystander.on_sent(2, 50, 2.0)
    assert bystander.largest_ratio == pytest.approx(2.5)
