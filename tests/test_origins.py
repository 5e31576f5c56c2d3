"""Where records come from: a subnet or an identity that has too many loses its farthest."""

from dataclasses import replace

from support import LOCAL, NOW, PUBLIC, identity, membership, presence, value_record

from dht_atonce.config import DhtConfig
from dht_atonce.dht.origins import Origins
from dht_atonce.endpoints import Address
from dht_atonce.records import PresenceRecord

CONFIG = replace(DhtConfig(), records_per_origin=4, values_per_identity=6)


def origins(nodes: float = 1000, *, local: bool = False) -> Origins:
    """Those of a node whose id is 0: a key is its own distance."""
    return Origins(0, CONFIG, lambda: nodes, [], local=local)


def at(distance: int, *ips: str) -> PresenceRecord:
    record = presence(network=PUBLIC, endpoints=tuple(Address(ip, 4000) for ip in ips))
    return replace(record, key=distance.to_bytes(20, "big"), blob=bytes([distance, *map(len, ips)]))


def test_the_farthest_of_a_full_subnet_has_to_go() -> None:
    ours = origins()
    records = [at(distance, "51.1.1.1") for distance in (1, 2, 3, 9)]
    for record in records:
        assert ours.losers(record, None) == []
        ours.enter(record)
    assert ours.losers(at(5, "51.1.1.200"), None) == [records[3]]
    assert ours.losers(at(10, "51.1.1.200"), None) is None
    assert ours.losers(at(9, "51.1.1.200"), None) is None  # as far: who is there stays
    assert ours.losers(at(10, "51.1.2.1"), None) == []
    ours.leave(records[0])
    assert ours.losers(at(10, "51.1.1.200"), None) == []


def test_what_replaces_a_record_takes_its_place() -> None:
    ours = origins()
    records = [at(distance, "51.1.1.1") for distance in (1, 2, 3, 9)]
    for record in records:
        ours.enter(record)
    assert ours.losers(at(9, "51.1.1.2"), records[3]) == []
    assert ours.losers(at(20, "51.1.1.2"), at(20, "51.2.2.2")) is None  # it moved in from elsewhere


def test_values_are_counted_by_identity_and_members_by_subnet() -> None:
    ours = origins()
    values = [value_record(f"{number}", who=identity(1)) for number in range(10)]
    for value in values[:4]:
        ours.enter(value)
    assert ours.losers(values[4], None) != []
    assert ours.losers(value_record(who=identity(2)), None) == []
    for number in range(4):
        ours.enter(at(number, "51.1.1.1"))
    assert ours.losers(membership(network=PUBLIC, endpoints=(Address("51.1.1.9", 4000),)), None) is None


def test_a_small_or_local_network_counts_no_subnets() -> None:
    for ours in (origins(500), origins(local=True)):
        for number in range(20):
            record = at(number, "51.1.1.1")
            assert ours.losers(record, None) == []
            ours.enter(record)


def test_nothing_is_left_of_what_leaves() -> None:
    ours = origins()
    records = [at(number, f"51.1.{number % 3}.1", "2606:4700::1") for number in range(20)]
    values = [value_record(f"{number}", network=LOCAL, expires=NOW + 60) for number in range(5)]
    for record in (*records, *values):
        ours.enter(record)
    assert len(ours) == 45
    for record in (*records, *values):
        ours.leave(record)
    assert len(ours) == 0
