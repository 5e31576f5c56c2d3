"""Counts: a Counter whose counting is cheap."""

from collections import Counter

import pytest

from dht_atonce.counters import Counts


def test_it_counts_as_a_counter_does() -> None:
    counts = Counts()
    counts["dht.sent"] += 2
    counts["dht.sent"] += 1
    assert counts["dht.received"] == 0
    assert dict(counts) == {"dht.sent": 3}
    assert counts - Counter({"dht.sent": 1}) == {"dht.sent": 2}
    assert counts.most_common(1) == [("dht.sent", 3)]


def test_what_is_not_there_cannot_be_deleted() -> None:
    counts = Counts({"dht.sent": 3})
    del counts["dht.sent"]
    assert not counts
    with pytest.raises(KeyError):
        del counts["dht.sent"]
