"""Who brought the records of a store, and who loses first when it is full."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.dht.sources import Sources

FEW = 3
ALICE, BOB, MALLORY = b"\x01\x01\x01", b"\x02\x02\x02", b"\x66\x66\x66"


def name(number: int) -> bytes:
    """The larger the farther: our id is 0."""
    return number.to_bytes(20, "big")


def filled(**numbers: range) -> Sources:
    sources = Sources(0, FEW)
    for who, its in numbers.items():
        for number in its:
            sources.enter(name(number), {"alice": ALICE, "bob": BOB, "mallory": MALLORY}[who])
    return sources


def test_whoever_brought_most_loses_its_farthest_however_near_that_is() -> None:
    sources = filled(mallory=range(10), alice=range(1000, 1005))
    assert sources.loser(name(2000), BOB) == name(9)
    sources.leave(name(9))
    assert sources.loser(name(2000), BOB) == name(8)
    # Mallory makes room for itself, or stays out.
    assert sources.loser(name(5000), MALLORY) == name(5000)
    assert sources.loser(name(0) + b"another", MALLORY) == name(8)


def test_between_those_who_brought_as_much_distance_decides() -> None:
    sources = filled(mallory=range(5), alice=range(1000, 1005))
    assert sources.loser(name(2000), BOB) == name(1004)
    assert sources.loser(name(2000), MALLORY) == name(2000)
    assert sources.loser(name(2000), ALICE) == name(2000)


def test_while_all_brought_few_nobody_is_to_blame() -> None:
    sources = filled(mallory=range(3), alice=range(1000, 1003))
    assert sources.loser(name(2000), BOB) is None
    assert sources.loser(name(2000), MALLORY) == name(2000)
    assert sources.loser(name(2), MALLORY) == name(2)


def test_what_several_brought_is_counted_for_whoever_holds_less() -> None:
    # A neighbour hands us all that we are to have; then the owners publish.
    sources = filled(bob=range(1000, 1010))
    assert sources.loser(name(1), ALICE) == name(1009)
    for number in range(1000, 1009):
        sources.enter(name(number), bytes([9, 9, number - 1000]))
    assert sources.loser(name(1), ALICE) is None
    # Nobody takes another's record on himself by bringing it too.
    sources = filled(mallory=range(10), alice=range(1000, 1001))
    sources.enter(name(1000), MALLORY)
    assert sources.loser(name(2000), BOB) == name(9)
    sources.leave(name(1000))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4), st.booleans()), max_size=200))
def test_it_says_what_a_plain_count_would(steps: list[tuple[int, int, bool]]) -> None:
    sources, model = Sources(0, FEW), dict[bytes, bytes]()
    for number, who, comes in steps:
        its, source = name(number), bytes([who, 0, 0])
        counts = Counter(model.values())
        if not comes:
            if its in model:
                sources.leave(its)
                del model[its]
            continue
        if its not in model:
            most = max(counts[source] + 1, max(counts.values(), default=0))
            all_names = [*((other, of) for other, of in model.items()), (its, source)]
            counts[source] += 1
            losers = [other for other, of in all_names if counts[of] == most] if most > FEW else []
            assert sources.loser(its, source) == max(losers, default=None)
            counts[source] -= 1
        if its not in model or counts[source] + 1 < counts[model[its]]:
            model[its] = source
        sources.enter(its, source)


def test_memory_is_bounded_by_what_is_held() -> None:
    sources, rng = Sources(0, FEW), random.Random(1)
    held: list[bytes] = []
    for number in range(5000):
        sources.enter(its := name(rng.getrandbits(100)), MALLORY)
        held.append(its)
        if len(held) > 20:
            lost = sources.loser(name(1), ALICE)
            assert lost is not None
            sources.leave(lost)
            held.remove(lost)
        assert number or sources.loser(name(1), ALICE) is None
    assert sources.loser(name(1), ALICE) == max(held)
