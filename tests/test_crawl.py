"""A lookup at work over a protocol: what it makes of replies, and when it says that it is over."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import LOCAL, PUBLIC, Stranger, close, contact, public_ip, start_node, start_nodes, virtual

from atonce_sim.loop import run
from atonce_sim.world import World
from dht_atonce.codec import decode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.lookup import LookupEnd
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.peers import pick_diverse
from dht_atonce.dht.wire import FindNode, Found, Refused, Reply, Request, request_decoder
from dht_atonce.endpoints import Address, pack_address

TARGET = bytes(20)
HERE = pack_address(Address("10.0.0.1", 4000))


def crawl(node: DhtNode, *start: Contact, wants_record: bool = False) -> Crawl:
    server = next(iter(node.servers.values()))
    return server.crawl(TARGET, start=list(start), wants_record=wants_record)


def found(request: Request, contacts: list[Contact], record: bytes = b"") -> Found:
    return Found(0, request.request_id, 0, b"", HERE, 0, [one.packed for one in contacts], [], record)


async def asked_after(named: list[Contact], network: NetworkConfig) -> list[Contact]:
    """Of the contacts that one reply named, those that a lookup takes for candidates."""
    world = World()
    node = await start_node(world, network, ip=public_ip(60_000))
    stranger = Stranger(world, network=network, ip=public_ip(60_001))
    stranger.answers = lambda request, _source: found(request, named)
    search = crawl(node, stranger.contact)
    await asyncio.sleep(0.06)
    candidates = [candidate for candidate in search.lookup.known() if candidate != stranger.contact]
    search.stop()
    await close(node)
    return candidates


ips = st.builds("51.0.{}.{}".format, st.integers(0, 3), st.integers(1, 3))


@given(st.lists(ips, max_size=6), st.integers(0, 1000))
def test_of_one_reply_only_so_many_of_an_ip_and_a_subnet_are_taken(chosen: list[str], first: int) -> None:
    named = [contact(first + number, ip) for number, ip in enumerate(chosen)]

    async def main() -> list[Contact]:
        node = await start_node(World(), PUBLIC, ip=public_ip(60_002))
        expected = pick_diverse(named, node.shared.config)
        await close(node)
        assert sorted(await asked_after(named, PUBLIC), key=_by_distance) == sorted(expected, key=_by_distance)
        return await asked_after(named, LOCAL)

    # In a local network all of a machine may share one address.
    assert sorted(run(main()), key=_by_distance) == sorted(named, key=_by_distance)


def _by_distance(one: Contact) -> int:
    return one.long_id


@virtual
async def test_a_contact_that_cannot_be_read_is_counted_and_the_others_are_asked() -> None:
    world = World()
    node, stranger, named = await start_node(world), Stranger(world), Stranger(world, 1001)

    def answers(request: Request, _source: Address) -> Reply:
        return Found(0, request.request_id, 0, b"", HERE, 0, [bytes(38), named.contact.packed, bytes(50)], [], b"")

    stranger.answers = answers
    search = crawl(node, stranger.contact)
    await asyncio.sleep(0.2)
    assert node.counters["dht.bad_contact"] == 2
    assert len(named.heard) == 1
    search.stop()
    await close(node)


@virtual
async def test_whoever_has_no_proof_of_our_address_yet_is_told_apart() -> None:
    world = World(2)
    nodes = await start_nodes(world, 4)
    newcomer = await start_node(world)
    seated = [Contact(node.shared.node_key.public, node.addresses[0]) for node in nodes]
    first = crawl(newcomer, *seated)
    await first.done
    assert set(first.strangers) == set(seated)
    second = crawl(newcomer, *seated)
    await second.done
    assert second.strangers == []
    await close(newcomer, *nodes)


@virtual
async def test_somebody_who_refuses_counts_as_one_who_fails() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    stranger.answers = lambda request, _source: Refused(0, request.request_id, 0, b"", HERE, 0, 1)
    search = crawl(node, stranger.contact)
    await search.done
    assert search.lookup.end is LookupEnd.NOBODY_LEFT
    assert search.lookup.answered() == []
    await close(node)


@pytest.mark.parametrize("wants_record", [True, False])
@virtual
async def test_one_that_is_stopped_asks_nobody_more_and_hears_nothing(wants_record: bool) -> None:
    world, rng = World(), random.Random(1)
    node, stranger, named = await start_node(world), Stranger(world), Stranger(world, 1001)
    stranger.answers = lambda request, _source: found(request, [named.contact])
    search = crawl(node, stranger.contact, wants_record=wants_record)
    await asyncio.sleep(rng.uniform(0.03, 0.045))  # the answer is under way
    search.stop()
    assert search.done.done()
    assert search.first.result() is None
    await asyncio.sleep(1)
    assert named.heard == []
    assert [type(request).__name__ for request in heard_by(stranger)] == ["FindValue" if wants_record else "FindNode"]
    await close(node)


def heard_by(stranger: Stranger) -> list[Request]:
    return [decode(request_decoder, stranger.sealer.open(data).body) for data, _ in stranger.heard]


@virtual
async def test_nobody_is_asked_from_an_answer_that_ended_it() -> None:
    world = World(2)
    nodes = await start_nodes(world, 6)
    seated = [Contact(node.shared.node_key.public, node.addresses[0]) for node in nodes[1:]]
    search = crawl(nodes[0], *seated)
    await search.done
    assert search.lookup.end is LookupEnd.CLOSEST_ANSWERED
    requests = search.lookup.requests
    await asyncio.sleep(10)
    assert search.lookup.requests == requests
    assert await next(iter(nodes[0].servers.values())).ask(seated[0], FindNode(0, bytes(8), 0, TARGET, 0)) is not None
    await close(*nodes)
