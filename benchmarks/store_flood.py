"""What a flood of records does to one node's store: memory, time for each, and what is left of what it should hold.

    python benchmarks/store_flood.py [PUTS]

A third are values of ever new identities, a third presence records from one subnet, a third from all over. The records
are made without signatures (a million would take a minute and a half to sign); the store does not look at them.
"""

import random
import resource
import sys
import time
from dataclasses import replace

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.storage import RecordStore
from dht_atonce.endpoints import Address, subnet
from dht_atonce.identity import Identity
from dht_atonce.records import AnyRecord, PresenceRecord, ValueRecord

NETWORK = NetworkConfig.internet("flood")
NOW = 1_800_000_000
OWN = 1 << 159
HONEST = 1000
"""Records that the node is to hold: 1,000 peers for each holder are a network where a peer has 50 records."""


def main(puts: int) -> None:
    rng = random.Random(1)
    someone = Identity.generate(rng)
    endpoints = (Address("51.0.0.1", 4000),)
    presence = PresenceRecord.sign(
        someone, NETWORK, seq=1, incarnation=bytes(8), expires=NOW + 7200, endpoints=endpoints
    )
    value = ValueRecord.sign(
        someone, NETWORK, seq=1, incarnation=bytes(8), expires=NOW + 7200, name="name", value=bytes(64)
    )

    def at(record: AnyRecord, distance: int, ip: str = "") -> AnyRecord:
        key = (OWN ^ distance).to_bytes(20, "big")
        peer_id = object.__new__(type(someone.id))
        object.__setattr__(peer_id, "key", key + bytes(12))
        moved = replace(record, key=key, peer_id=peer_id, blob=record.blob[:-20] + key)
        return replace(moved, endpoints=(Address(ip, 4000),)) if isinstance(moved, PresenceRecord) and ip else moved

    def anywhere() -> str:
        return f"{rng.randrange(50, 90)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"

    store = RecordStore(OWN, NETWORK, DhtConfig(), rng)
    store.network_size = lambda: 1e5
    honest = [at(presence, rng.getrandbits(149), anywhere()) for _ in range(HONEST)]
    for record in honest:
        store.keep(record, NOW)

    def flood(number: int) -> AnyRecord:
        kind, distance = number % 3, rng.getrandbits(160)
        if kind == 0:
            return at(value, distance)
        return at(presence, distance, f"50.1.1.{number % 256}" if kind == 1 else anywhere())

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, spent, done = peak(), 0.0, 0
    print(
        f"{'puts':>9}  {'held':>6}  {'MiB grown by':>12}  {'us per put':>10}  {'of one /24':>10}  {'honest left':>11}"
    )
    while done < puts:
        batch = [flood(number) for number in range(done, min(puts, done + 1000))]
        began = time.perf_counter()
        for record in batch:
            store.keep(record, NOW)
        spent += time.perf_counter() - began
        done += len(batch)
        if done % max(1000, puts // 10) == 0 or done == puts:
            crowd = sum(
                isinstance(record, PresenceRecord) and subnet(record.endpoints[0].ip) == bytes([50, 1, 1])
                for _, record in store
            )
            left = sum(record.key in store for record in honest)
            print(
                f"{done:>9,}  {store.size:>6,}  {peak() - before:>12.1f}  {spent / done * 1e6:>10.1f}"
                f"  {crowd:>10}  {left:>11,}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
