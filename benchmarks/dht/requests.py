"""Single requests: two nodes in one process, 64 requests in flight, each side as its own lookups would ask.

FIND_NODE is answered with 16 contacts. Ours is sealed, carries a valid cookie, and its contacts are read; stock's is
plain, and what it carries is left as it was unpacked.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from benchmarks.dht.plan import Plan
from benchmarks.dht.workload import Figures, Tell

__all__ = ["measure_ours", "measure_stock"]

_IN_FLIGHT = 64
_CONTACTS = 16
_PLENTY = 1_000_000  # requests that a node answers to one asker per second
_NEIGHBOURS = 24  # enough that the one who is asked knows 16 besides the one who asks


async def measure_ours(plan: Plan, tell: Tell) -> Figures:
    """Requests per second of one core, both ends."""
    from dht_atonce.config import DhtConfig, NetworkConfig
    from dht_atonce.dht.contact import Contact, unpack_contacts
    from dht_atonce.dht.node import DhtNode
    from dht_atonce.dht.requests import Answer, OnAnswer
    from dht_atonce.dht.wire import FindNode, Found
    from dht_atonce.endpoints import Family

    network = NetworkConfig.local_network("benchmark")
    config = DhtConfig(requests_per_key_s=_PLENTY)
    nodes: list[DhtNode] = []
    contacts: list[Contact] = []
    for _ in range(_NEIGHBOURS):
        node = DhtNode(network=network, config=config)
        contacts.append(Contact(node.shared.node_key.public, await node.listen(interface="127.0.0.1")))
        nodes.append(node)
        await node.join(contacts[:1])
    asker, asked = nodes[-1].servers[Family.IPV4].protocol, contacts[0]
    rng = random.Random(plan.seed)

    def find(on_answer: OnAnswer) -> None:
        asker.ask(asked, FindNode(0, asker.request_id(), asker.flags, rng.randbytes(20), 0), on_answer)

    def on_found(answer: Answer | None) -> None:
        assert answer is not None
        assert isinstance(answer.reply, Found)
        read = unpack_contacts(answer.reply.contacts, Family.IPV4, local=True)
        assert len(read) == _CONTACTS

    def ping(on_answer: OnAnswer) -> None:
        asker.ping(asked, on_answer)

    def on_pong(answer: Answer | None) -> None:
        assert answer is not None

    async def run(ask: Callable[[OnAnswer], None], check: Callable[[Answer | None], None], count: int) -> None:
        done = asyncio.get_running_loop().create_future()
        sent = answered = 0

        def send() -> None:
            nonlocal sent
            sent += 1
            ask(on_answer)

        def on_answer(answer: Answer | None) -> None:
            nonlocal answered
            check(answer)
            answered += 1
            if sent < count:
                send()
            elif answered == count:
                done.set_result(None)

        for _ in range(_IN_FLIGHT):
            send()
        await done

    figures = {
        **await _timed("find", lambda count: run(find, on_found, count), plan, tell),
        **await _timed("ping", lambda count: run(ping, on_pong, count), plan, tell),
    }
    for node in nodes:
        await node.aclose()
    return figures


async def measure_stock(plan: Plan, tell: Tell) -> Figures:
    """Requests per second of one core, both ends."""
    import kademlia.network
    from kademlia.node import Node
    from kademlia.utils import digest

    nodes: list[kademlia.network.Server] = []
    for number in range(_NEIGHBOURS):
        server = kademlia.network.Server(ksize=_CONTACTS, node_id=digest(f"node {number}"))
        await server.listen(0, "127.0.0.1")
        if nodes:
            await server.bootstrap([nodes[0].transport.get_extra_info("sockname")])
        nodes.append(server)
    protocol, first = nodes[-1].protocol, nodes[0]
    asked = Node(first.node.id, *first.transport.get_extra_info("sockname"))
    rng = random.Random(plan.seed)

    async def find(count: int) -> None:
        for _ in range(count):
            answered, contacts = await protocol.call_find_node(asked, Node(rng.randbytes(20)))
            assert answered
            assert len(contacts) == _CONTACTS

    async def ping(count: int) -> None:
        for _ in range(count):
            answered, _ = await protocol.call_ping(asked)
            assert answered

    async def at_once(ask: Callable[[int], Awaitable[None]], count: int) -> None:
        await asyncio.gather(*(ask(count // _IN_FLIGHT) for _ in range(_IN_FLIGHT)))

    figures = {
        **await _timed("find", lambda count: at_once(find, count), plan, tell),
        **await _timed("ping", lambda count: at_once(ping, count), plan, tell),
    }
    for server in nodes:
        server.stop()
    return figures


async def _timed(name: str, run: Callable[[int], Awaitable[None]], plan: Plan, tell: Tell) -> Figures:
    """Per second of CPU: with nothing else on the core the same as per second, and beside other programs still true."""
    count = plan.requests // _IN_FLIGHT * _IN_FLIGHT
    await run(max(_IN_FLIGHT, count // 10))  # tables, cookies and timeouts are as they stay
    began, cpu_began = time.perf_counter(), time.process_time()
    await run(count)
    cpu_s, took_s = time.process_time() - cpu_began, time.perf_counter() - began
    tell(name, count, count)
    return {f"{name}_per_s": count / cpu_s, f"{name}_us": cpu_s * 1e6 / count, f"{name}_per_wall_s": count / took_s}
