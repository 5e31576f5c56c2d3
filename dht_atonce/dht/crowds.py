"""Of many datagrams at once, which are worth reading: decided from the first 34 bytes and the source of each.

Under a flood nearly all of them are requests without a proof, more than have time to be looked at, or answers that
nobody waits for. To find that out here costs a tenth of what it costs when each has been made an object.
"""

from collections import Counter
from collections.abc import Collection

from dht_atonce.dht.gate import Gate, Verdict
from dht_atonce.dht.sealing import PacketType

__all__ = ["sift"]

_STRANGER, _REPLY = int(PacketType.REQUEST), int(PacketType.REPLY)  # a request without a cookie, and an answer


def sift(
    heads: list[bytes],
    places: list[bytes],
    sizes: list[int],
    *,
    expected: Collection[bytes],
    room: int,
    gate: Gate,
    counters: Counter[str],
    now: float,
) -> list[int]:
    """Which to read, in this order: those that may have a proof or are waited for, then of the requests without a proof
    as many as there is `room` for, and whoever was turned away before. The others are counted in `counters`.

    `expected` are the contacts, as on the wire, of whom an answer is waited for. What has an unknown form is to be
    read: it is judged where everything is.
    """
    known, strangers, unasked, crowded, dropped_bytes = list[int](), list[int](), 0, 0, 0
    for at, head in enumerate(heads):
        # Behind what is shorter than a head lies what was there before.
        kind = head[1] if sizes[at] >= len(head) else None
        if kind == _STRANGER:
            if room > 0 or gate.was_turned_away(places[at], now):
                room -= 1
                strangers.append(at)
            else:
                crowded += 1
                dropped_bytes += sizes[at]
        elif kind == _REPLY and head[2:] + places[at] not in expected:
            unasked += 1
            dropped_bytes += sizes[at]
        else:
            known.append(at)
    if dropped_bytes:
        counters["dht.received"] += unasked + crowded
        counters["dht.received_bytes"] += dropped_bytes
        counters["dht.unasked"] += unasked
        counters[Verdict.CROWD.counter] += crowded
    return known + strangers
