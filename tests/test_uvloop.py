"""The command runs on uvloop where that is installed, and most tests do not: what differs between the loops."""

import asyncio
import random
from typing import Any

import pytest

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address
from dht_atonce.identity import NodeKey
from dht_atonce.messaging.curve import system_host

uvloop = pytest.importorskip("uvloop")


def contacts(count: int) -> list[Contact]:
    """Nodes on this machine that are not there."""
    rng = random.Random(0)
    return [Contact(NodeKey.generate(rng).public, Address("127.0.0.1", 1024 + number)) for number in range(count)]


def test_deadlines_that_are_past_already() -> None:
    failed: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        config = DhtConfig(
            first_timeout_s=0.0, min_timeout_s=0.0, max_timeout_s=0.0, first_hedge_s=0.0, min_hedge_s=0.0
        )
        node = DhtNode(host=system_host(), network=NetworkConfig.local_network(), config=config)
        try:
            await node.listen(0, "127.0.0.1")
            async with asyncio.timeout(5):
                assert await node.join(contacts(4)) == 0
        except AttributeError as error:
            failed.append({"exception": error})
        finally:
            await node.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert not failed
