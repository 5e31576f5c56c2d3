"""What a peer answers to the requests of `control`, whether they come through the socket or from the same process."""

import time
from typing import Any

from dht_atonce.cli.control import (
    AddContact,
    CancelTransfer,
    Hear,
    LookAtTransfer,
    Lookup,
    Notify,
    Pull,
    Push,
    RemoveContact,
    Request,
    Send,
    Status,
)
from dht_atonce.cli.rooms import RoomKeeper
from dht_atonce.cli.transfers import transfers_of
from dht_atonce.peer import Peer
from dht_atonce.records import PresenceRecord

__all__ = ["answer"]


async def answer(peer: Peer, rooms: RoomKeeper, request: Request) -> dict[str, Any]:
    """Do what is asked of `peer`, whose rooms are kept by `rooms`. Raises what `Peer` raises."""
    began = time.perf_counter()
    match request:
        case Status():
            return _status(peer)
        case Lookup(who, fresh):
            found = await peer.find(who, fresh=fresh)
            record = found.record
            return {
                "record": _describe(record) if isinstance(record, PresenceRecord) else None,
                "local": found.local,
                "hops": found.hops,
                "requests": found.requests,
                "elapsed_ms": _ms_since(began),
            }
        case Send(who, data, timeout_s):
            await peer.send(who, data, timeout_s)
            return {"elapsed_ms": _ms_since(began)}
        case AddContact(who, name):
            await peer.contacts.add(who, name)
            return {}
        case RemoveContact(who):
            return {"was_contact": await peer.contacts.remove(who)}
        case Push(who, path):
            return {"transfer": transfers_of(peer).push(path, who)}
        case Pull(who, name, folder):
            return {"transfer": transfers_of(peer).pull(name, who, folder)}
        case LookAtTransfer(number):
            return transfers_of(peer).look(number)
        case CancelTransfer(number):
            transfers_of(peer).cancel(number)
            return {}
        case Notify(topic, data):
            return {"members": await rooms.notify(topic, data), "elapsed_ms": _ms_since(began)}
        case Hear(topic, listener, last, waits):
            return {"events": await rooms.hear(topic, listener, last, waits=waits)}


def _status(peer: Peer) -> dict[str, Any]:
    node = peer.node
    return {
        "peer": str(peer.id),
        "network": peer.network.name,
        "k": peer.network.k,
        "entered": peer.entry.way if peer.entry else None,
        "known_nodes": node.known_nodes,
        "live_contacts": len(node.live_contacts(1000)),
        "saved_contacts": peer.saved_contacts,
        "records_held": node.shared.store.count,
        "udp": [str(address) for address in node.addresses],
        "endpoints": [str(endpoint) for endpoint in peer.record.endpoints] if peer.record else [],
        "counters": dict(sorted(peer.counters.items())),
    }


def _describe(record: PresenceRecord) -> dict[str, Any]:
    """A presence record in words and numbers."""
    return {
        "peer": str(record.peer_id),
        "status": record.status,
        "endpoints": [str(endpoint) for endpoint in record.endpoints],
        "capabilities": list(record.capabilities),
        "seq": record.seq,
        "expires": record.expires,
    }


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
