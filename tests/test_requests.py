"""Requests that wait for an answer: when they are sent again, when they have failed, and who hears of it when."""

import asyncio

import pytest
from support import Stranger, close, contact_of, start_node, tap_of, virtual

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.protocol import SealedProtocol
from dht_atonce.dht.requests import Answer
from dht_atonce.dht.wire import Ping, Pong, Reply
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.errors import WireError

ID = b"requestI"


def protocol(node: DhtNode) -> SealedProtocol:
    return next(iter(node.servers.values())).protocol


def pong(request_id: bytes = ID) -> Pong:
    return Pong(0, request_id, 0, b"", pack_address(Address("10.0.0.1", 4000)), 0)


async def asked(node: DhtNode, to: Contact) -> Answer | None:
    """What the node hears back; fails the test if it hears nothing at all, or twice."""
    heard: list[Answer | None] = []
    protocol(node).ask(to, Ping(0, ID, 0), heard.append)
    assert heard == []
    await asyncio.sleep(10)
    assert len(heard) == 1
    return heard[0]


# --- nobody answers ---


@virtual
async def test_a_request_is_repeated_once_and_then_has_failed() -> None:
    world = World()
    node, silent = await start_node(world, tap=True), Stranger(world)
    heard: list[tuple[float, Answer | None]] = []
    loop = asyncio.get_running_loop()
    protocol(node).ask(silent.contact, Ping(0, ID, 0), lambda answer: heard.append((loop.time(), answer)))
    await asyncio.sleep(10)
    times = [at for at, _, _ in tap_of(node).sent]
    assert times == pytest.approx([0.0, 0.5])
    assert len({data for _, data, _ in tap_of(node).sent}) == 1  # the same bytes
    assert [answer for _, answer in heard] == [None]
    assert heard[0][0] == pytest.approx(1.0)
    assert node.counters["dht.resent"] == node.counters["dht.unanswered"] == 1
    await close(node)


@virtual
async def test_an_answer_to_the_second_try_counts_but_measures_nothing() -> None:
    world = World()
    node, slow = await start_node(world), Stranger(world)
    answers: list[Reply | None] = [None, pong()]
    slow.answers = lambda _request, _source: answers.pop(0)
    assert await asked(node, slow.contact) is not None
    assert node.shared.known.timeout_s(slow.contact) == DhtConfig().first_timeout_s
    assert protocol(node).router.find_neighbors(0) == [slow.contact]
    await close(node)


@virtual
async def test_failures_are_told_to_the_table() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    stranger.answers = lambda request, _source: pong(request.request_id)
    await asked(node, stranger.contact)
    assert protocol(node).router.find_neighbors(0) == [stranger.contact]
    stranger.answers = None
    await asked(node, stranger.contact)
    assert protocol(node).router.find_neighbors(0) == []
    assert protocol(node).router.find_neighbors(0, failing=True) == [stranger.contact]
    await close(node)


@virtual
async def test_a_key_that_cannot_be_used_gets_nothing_and_fails() -> None:
    world = World()
    node = await start_node(world, tap=True)
    nobody = Contact(bytes(32), Address("10.9.9.9", 4000))
    assert await asked(node, nobody) is None
    assert tap_of(node).sent == []
    await close(node)


@virtual
async def test_more_than_so_many_requests_do_not_wait_at_once() -> None:
    world = World()
    node, silent = await start_node(world, tap=True, config=DhtConfig(max_outstanding=3)), Stranger(world)
    heard: list[Answer | None] = []
    for number in range(5):
        protocol(node).ask(silent.contact, Ping(0, bytes([number]) * 8, 0), heard.append)
    await asyncio.sleep(0.1)
    assert heard == [None, None]
    assert node.counters["dht.not_asked"] == 2
    assert len(silent.heard) == 3
    await asyncio.sleep(10)
    assert heard == [None] * 5
    await close(node)


@virtual
async def test_at_the_end_everything_is_answered_once() -> None:
    world = World()
    node, silent = await start_node(world), Stranger(world)
    heard: list[Answer | None] = []
    for number in range(5):
        protocol(node).ask(silent.contact, Ping(0, bytes([number]) * 8, 0), heard.append)
    await asyncio.sleep(0.1)
    node.stop()
    await asyncio.sleep(10)
    assert heard == [None] * 5
    protocol(node).ask(silent.contact, Ping(0, ID, 0), heard.append)
    await asyncio.sleep(10)
    assert heard == [None] * 6
    await close(node)


# --- who hears when ---


@virtual
async def test_an_answer_is_heard_as_soon_as_it_is_there_but_never_from_within_ask() -> None:
    world = World(latency_s=0.025)
    alice, bob = await start_node(world), await start_node(world)
    heard: list[float] = []
    loop = asyncio.get_running_loop()

    def ask() -> None:
        before = list(heard)
        protocol(alice).ask(contact_of(bob), Ping(0, bytes([len(heard)]) * 8, 0), on_answer)
        assert heard == before

    def on_answer(answer: Answer | None) -> None:
        assert answer is not None
        heard.append(loop.time())
        if len(heard) < 3:
            ask()  # who hears one may ask the next at once

    ask()
    await asyncio.sleep(1)
    assert heard == pytest.approx([0.05, 0.1, 0.15])
    await close(alice, bob)


@virtual
async def test_what_is_not_even_sent_is_not_heard_from_within_ask_either() -> None:
    world = World()
    closed, unusable = await start_node(world), await start_node(world)
    await close(closed)
    full, silent = await start_node(world, config=DhtConfig(max_outstanding=0)), Stranger(world)
    for node, to in ((closed, silent.contact), (full, silent.contact), (unusable, Contact(bytes(32), silent.address))):
        assert await asked(node, to) is None
    assert silent.heard == []
    await close(full, unusable)


@virtual
async def test_a_mistake_of_who_hears_an_answer_is_not_taken_for_a_packet_that_cannot_be_read() -> None:
    world = World()
    alice, bob = await start_node(world), await start_node(world)
    loop, errors = asyncio.get_running_loop(), list[BaseException | None]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: errors.append(context.get("exception")))

    def on_answer(_: Answer | None) -> None:
        raise WireError("a mistake")

    protocol(alice).ask(contact_of(bob), Ping(0, ID, 0), on_answer)
    await asyncio.sleep(1)
    loop.set_exception_handler(before)
    assert [str(error) for error in errors] == ["a mistake"]
    assert alice.counters["dht.unreadable"] == 0
    assert protocol(alice)._outstanding == {}
    await close(alice, bob)


@virtual
async def test_all_equal_contacts_that_get_a_seat_are_one_object() -> None:
    world = World()
    one, two, bob = await start_node(world), await start_node(world), await start_node(world)
    for node in (one, two):
        assert await asked(node, contact_of(bob)) is not None
    seats = [protocol(node).router.find_neighbors(0)[0] for node in (one, two)]
    assert seats[0] == contact_of(bob)
    assert seats[0] is seats[1]
    await close(one, two, bob)
