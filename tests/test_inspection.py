"""Looking from outside: each rule that a resident breaks is found, and none that it keeps."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from atonce_sim.inspection import Health, Inspector
from atonce_sim.keyspace import KeySpace, as_long
from atonce_sim.residents import Held
from atonce_sim.world import EPOCH, VirtualHost, World
from dht_atonce.endpoints import Address

K = 4
NOW = 100.0
WALL = EPOCH + NOW


def an_id(number: int) -> bytes:
    return random.Random(f"id {number}").randbytes(20)


def nearest(ids: list[bytes], target: bytes, count: int) -> list[bytes]:
    return sorted(ids, key=lambda node_id: as_long(node_id) ^ as_long(target))[:count]


@dataclass
class FakeResident:
    """As much of a `Resident` as is looked at, and nothing of it real."""

    host: VirtualHost
    node_id: bytes
    is_up: bool = True
    table: list[tuple[bytes, Address]] = field(default_factory=list)
    records: list[Held] = field(default_factory=list)
    failing: bool = False
    too_full: list[str] = field(default_factory=list)
    names: Callable[[bytes, int], list[bytes]] | None = None
    looks: int = 0

    def seats(self) -> list[tuple[bytes, Address]]:
        self.looks += 1
        return self.table

    def nearest_known(self, target: bytes, count: int) -> list[bytes]:
        return (self.names or (lambda at, many: nearest([node_id for node_id, _ in self.table], at, many)))(
            target, count
        )

    def has_failing(self) -> bool:
        return self.failing

    def held(self) -> list[Held]:
        return self.records

    def overfull(self) -> list[str]:
        return self.too_full


def town(count: int, world: World | None = None) -> list[Any]:
    """Residents who all know each other."""
    world = world or World()
    residents = [FakeResident(world.host(), an_id(number)) for number in range(count)]
    for one in residents:
        one.table = [(other.node_id, Address(other.host.ip, 4000)) for other in residents if other is not one]
    return residents


def inspector(seed: int = 1) -> Inspector:
    return Inspector(K, random.Random(seed))


def space(residents: list[Any]) -> KeySpace:
    return KeySpace(as_long(resident.node_id) for resident in residents if resident.is_up)


def held(number: int = 1, seq: int = 1, expires: float = WALL + 60) -> Held:
    return Held(an_id(number), seq, expires)


# --- counting ---


def test_what_holds_is_counted_and_what_does_not_is_told() -> None:
    one = inspector()
    one.check(True, "all is well")
    one.check(False, "the roof is gone")
    assert (one.checked, one.broken, one.words) == (2, 1, ["the roof is gone"])
    for number in range(500):
        one.check(False, f"crack {number}")
    assert (one.checked, one.broken) == (502, 501)
    assert len(one.words) == 100
    assert one.words[-1] == "crack 98"


def test_where_all_is_well_nothing_is_found() -> None:
    residents, one = town(30), inspector()
    for resident in residents:
        resident.records = [held(number) for number in range(5)]
    for moment in range(5):
        one.look(residents, NOW + moment)
    assert one.broken == 0
    assert one.words == []
    # Of each resident at each moment: its table, and of each record its expiry and its seq.
    assert one.checked == 5 * 30 * (1 + 2 * 5)


# --- stores ---


@pytest.mark.parametrize(("left_s", "is_found"), [(60, False), (0.5, False), (0, True), (-60, True)])
def test_a_record_that_outlives_its_expiry_is_found(left_s: float, is_found: bool) -> None:
    residents, one = town(3), inspector()
    residents[1].records = [held(7, expires=WALL + left_s)]
    one.look(residents, NOW)
    assert bool(one.broken) is is_found
    if is_found:
        (words,) = one.words
        assert words.startswith(
            f"100.0 s, host {residents[1].host.number}: the record of {an_id(7).hex()[:8]} outlives"
        )


@pytest.mark.parametrize(("skew_s", "is_found"), [(-45.0, False), (0.0, True), (45.0, True)])
def test_expiry_is_by_the_resident_s_own_clock(skew_s: float, is_found: bool) -> None:
    residents, one = town(2), inspector()
    residents[0].host.virtual_clock.skew_s = skew_s
    residents[0].records = [held(expires=WALL - 10)]
    one.look(residents, NOW)
    assert bool(one.broken) is is_found


@pytest.mark.parametrize(("then", "is_found"), [(6, False), (5, False), (4, True)])
def test_a_lower_seq_that_replaces_a_higher_one_is_found(then: int, is_found: bool) -> None:
    residents, one = town(3), inspector()
    residents[2].records = [held(7, seq=5), held(8, seq=1)]
    one.look(residents, NOW)
    residents[2].records = [held(8, seq=1), held(7, seq=then)]
    one.look(residents, NOW + 1)
    assert bool(one.broken) is is_found
    if is_found:
        assert one.words == [f"101.0 s, host 2: seq 5 of {an_id(7).hex()[:8]} was replaced by {then}"]


def test_a_lower_seq_elsewhere_or_after_a_restart_or_after_it_was_gone_is_nothing() -> None:
    world = World()
    residents, one = town(3, world), inspector()
    residents[0].records = [held(7, seq=5)]
    one.look(residents, NOW)
    residents[1].records = [held(7, seq=4)]
    one.look(residents, NOW + 1)
    residents[0].records = []
    one.look(residents, NOW + 2)
    residents[0].records = [held(7, seq=3)]
    one.look(residents, NOW + 3)
    residents[0].host = VirtualHost(world, residents[0].host.ip, 0, 1, 0.0)
    residents[0].records = [held(7, seq=2)]
    one.look(residents, NOW + 4)
    assert one.broken == 0


# --- tables ---


def test_a_table_that_does_not_name_the_closest_of_its_seats_is_found() -> None:
    residents, one = town(12), inspector()
    liar = residents[4]
    liar.names = lambda target, count: nearest([node_id for node_id, _ in liar.table], target, count + 1)[1:]
    one.look(residents, NOW)
    assert one.words == ["100.0 s, host 4: its table names others than the 4 closest to a key"]
    liar.failing = True  # those that did not answer lately are named last, however near
    one.look(residents, NOW)
    assert one.broken == 1


@pytest.mark.parametrize("wrong", ["too few", "too many", "a stranger", "one twice"])
def test_other_wrong_tables(wrong: str) -> None:
    residents, one = town(12), inspector()
    table = [node_id for node_id, _ in residents[4].table]

    def names(target: bytes, count: int) -> list[bytes]:
        right = nearest(table, target, count)
        return {
            "too few": right[:-1],
            "too many": nearest(table, target, count + 1),
            "a stranger": [*right[:-1], an_id(99)],
            "one twice": [*right[:-1], right[0]],
        }[wrong]

    residents[4].names = names
    one.look(residents, NOW)
    assert one.broken == 1


def test_the_order_in_which_a_table_names_them_is_its_own_affair() -> None:
    residents, one = town(12), inspector()
    for resident in residents:
        table = [node_id for node_id, _ in resident.table]
        resident.names = lambda target, count, table=table: nearest(table, target, count)[::-1]
    one.look(residents, NOW)
    assert one.broken == 0


# --- bounds ---


def test_what_is_beyond_its_bounds_is_found() -> None:
    residents, one = town(3), inspector()
    residents[1].too_full = ["20001 records are held", "900 requests wait for an answer"]
    one.look(residents, NOW)
    assert one.words == [
        "100.0 s, host 1: 20001 records are held",
        "100.0 s, host 1: 900 requests wait for an answer",
    ]


# --- whom it looks at ---


def test_who_is_down_is_not_looked_at() -> None:
    residents, one = town(3), inspector()
    residents[1].is_up = False
    residents[1].too_full = ["everything is"]
    residents[1].records = [held(expires=WALL - 60)]
    one.look(residents, NOW)
    assert one.broken == 0


def test_of_many_a_sample_is_looked_at_and_always_the_same() -> None:
    residents, one = town(300), inspector()
    for _ in range(3):
        one.look(residents, NOW)
    looks = [resident.looks for resident in residents]
    assert sum(looks) == 3 * 64
    assert set(looks) == {0, 3}
    assert looks[0] == 3
    assert sum(looks[150:]) == pytest.approx(3 * 32, abs=3)


def test_keys_are_drawn_by_the_inspector_s_own_generator() -> None:
    def asked(seed: int) -> list[bytes]:
        residents, one, targets = town(3), inspector(seed), list[bytes]()
        for resident in residents:
            resident.names = lambda target, count: targets.append(target) or []
        one.look(residents, NOW)
        return targets

    assert asked(1) == asked(1) != asked(2)


# --- health ---


def test_of_nobody_there_is_no_health() -> None:
    assert inspector().health([], KeySpace()) == Health(None, None, None)


def test_health_of_a_network_that_knows_itself() -> None:
    residents = town(20)
    assert inspector().health(residents, space(residents)) == Health(19.0, 0.0, 1.0)
    (alone,) = town(1)
    assert inspector().health([alone], space([alone])) == Health(0.0, None, None)


def test_seats_of_those_who_are_gone_or_moved_are_dead() -> None:
    residents = town(10)
    gone, moved = residents[8], residents[9]
    gone.is_up = False
    moved.host = World().host("10.9.9.9")
    health = inspector().health(residents, space(residents))
    # Of the nine seats of each of eight two are dead; he who moved finds one dead: he has no seat himself.
    assert health.seats == 9
    assert health.dead_seats == pytest.approx((8 * 2 + 1) / (9 * 9))


def test_neighbours_that_a_table_does_not_name_are_not_known() -> None:
    residents = town(10)
    for resident in residents:
        table = [node_id for node_id, _ in resident.table]
        resident.names = lambda target, count, table=table: [*nearest(table, target, count)[1:], an_id(99)]
    assert inspector().health(residents, space(residents)).neighbours_known == pytest.approx(3 / 4)
    # Where fewer than k others are up, those are all there is to know.
    few = town(3)
    few[0].table = few[0].table[:1]
    assert inspector().health(few, space(few)).neighbours_known == pytest.approx((0.5 + 1 + 1) / 3)


def test_hostile_seats_are_not_dead_and_nobody_needs_to_know_them() -> None:
    residents, rogue = town(10), an_id(500)
    for resident in residents:
        resident.table.append((rogue, Address("80.0.0.1", 4000)))
    hostile = {rogue: "80.0.0.1"}
    health = inspector().health(residents, space(residents), hostile)
    assert (health.seats, health.dead_seats, health.neighbours_known) == (10, 0.0, 1.0)
    assert inspector().health(residents, space(residents)).dead_seats == pytest.approx(0.1)


# --- evictions ---


def test_seats_that_were_taken_from_the_living_are_counted_by_the_hour() -> None:
    residents, one = town(11), inspector()
    assert one.evicted_share_h is None
    one.look(residents, NOW)
    one.look(residents, NOW + 1800)
    assert one.evicted_share_h == 0
    # One loses the seat of somebody who is up, and that of somebody who is gone.
    residents[9].is_up = False
    residents[0].table = [seat for seat in residents[0].table if seat[0] not in (residents[8].node_id, an_id(9))]
    one.look(residents, NOW + 3600)
    # Half an hour with 11 tables of 10, half an hour with 10 of 9 that are up.
    assert one.evicted_share_h == pytest.approx(1 / (0.5 * 110 + 0.5 * 90))
