"""The ways into a network: saved contacts, then seeds, and what is said if none leads in."""

import asyncio

import pytest
from support_peers import (
    NETWORK,
    FakeSeed,
    Village,
    identity,
    node_key,
    now,
    other_tasks,
    presence,
    seated,
    until,
    virtual,
)

from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.discovery.ladder import Entry, Ladder
from dht_atonce.discovery.seed_client import SeedSays
from dht_atonce.discovery.seed_wire import Hello, Nope, NopeCode, Ok, SeedMessage
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import EntryFailed, NetworkMismatch
from dht_atonce.peer import Peer

CHESS = NetworkConfig.local_network("chess")


class Climber:
    """Somebody at the foot of the ladder: a host, an identity, and a node that is started once the network is known."""

    def __init__(self, village: Village, *seeds: SeedUrl, number: int = 500, timeout_s: float = 5.0) -> None:
        self.host = village.world.host()
        self.identity = identity(number)
        self.links = self.host.links(self.identity)
        self.node: DhtNode | None = None
        self.told: list[SeedSays] = []
        self.ladder = Ladder(self.host, self.links, self.identity, seeds, self.on_seed, timeout_s)

    async def on_seed(self, says: SeedSays) -> tuple[DhtNode, bytes]:
        self.told.append(says)
        node = await self.start(says.network)
        return node, presence(self.identity, network=says.network).blob

    async def start(self, network: NetworkConfig = NETWORK) -> DhtNode:
        if self.node is None:
            self.node = DhtNode(self.identity, host=self.host, network=network)
            await self.node.listen(0, "0.0.0.0")
        return self.node

    async def climb(self, network: NetworkConfig | None = None, saved: tuple[Contact, ...] = ()) -> Entry:
        """One round; everything is let go of afterwards."""
        try:
            if saved:
                await self.start(network or NETWORK)
            return await self.ladder.climb(network, self.node, saved)
        finally:
            if self.node is not None:
                await self.node.aclose()
            await self.links.aclose()


def contact_of(peer: Peer) -> Contact:
    return Contact(node_key(peer), peer.node.addresses[0])


def nobody(number: int) -> Contact:
    return Contact(bytes([number] * 32), Address(f"10.9.9.{number}", 5000))


def dead_seed(number: int) -> SeedUrl:
    """Where nobody listens."""
    return SeedUrl(identity(number).id, f"10.8.8.{number}", 4710)


def challenge_only(seed: FakeSeed, message: SeedMessage) -> None:
    if isinstance(message, Hello):
        seed.challenge()


# --- up ---


def test_without_anything_to_try_one_is_told_what_to_give() -> None:
    async def main() -> None:
        with pytest.raises(EntryFailed, match=r"give the URL of a seed.*alone=True"):
            await Climber(Village()).climb()

    virtual(main())


def test_a_seed_that_knows_nobody_is_a_way_in_too() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            climber = Climber(village, seed.url())
            assert await climber.climb() == Entry("seed, alone", 0)
            assert [says.network for says in climber.told] == [NETWORK]

    virtual(main())


def test_a_seed_leads_to_those_who_are_in() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            peers = [await village.open_peer() for _ in range(3)]
            climber = Climber(village, seed.url())
            assert await climber.climb(NETWORK) == Entry("seed", 3)
            assert climber.node is not None
            assert {c.key for c in climber.node.live_contacts(9)} == {node_key(peer) for peer in peers}

    virtual(main())


def test_saved_contacts_come_first_and_no_seed_is_asked() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            peers = [await village.open_peer() for _ in range(3)]
            await until(lambda: all(len(seated(peer)) == 2 for peer in peers))
            before = seed.counters["seed.challenged"]
            entry = await Climber(village, seed.url()).climb(NETWORK, (nobody(1), contact_of(peers[0])))
            assert entry == Entry("saved contacts", 3)
            assert seed.counters["seed.challenged"] == before

    virtual(main())


def test_where_saved_contacts_are_dead_the_seed_is_asked() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            await village.open_peer()
            entry = await Climber(village, seed.url()).climb(NETWORK, (nobody(1), nobody(2)))
            assert entry == Entry("seed", 1, ("2 saved contacts: none answers",))

    virtual(main())


# --- several seeds ---


def test_of_several_seeds_the_living_one_wins_and_the_dead_cost_no_time() -> None:
    async def main() -> None:
        async with Village() as village:
            living = await village.open_seed()
            await village.open_peer()
            crashed = await village.open_seed()
            village.crash(crashed)
            silent = FakeSeed(village.world, 600, lambda *_: None)
            began = now()
            urls = (crashed.url(), dead_seed(1), silent.url, living.url())
            entry = await Climber(village, *urls).climb()
            assert (entry.way, entry.answered) == ("seed", 1)
            assert any("10.8.8.1" in line for line in entry.tried)
            assert now() - began < 1.5
            await asyncio.sleep(1)
            assert silent.link.is_closed  # nobody is kept on the line

    virtual(main())


def test_a_seed_that_knows_somebody_wins_over_one_that_knows_nobody() -> None:
    async def main() -> None:
        async with Village() as village:
            knows = await village.open_seed()
            await village.open_peer()
            await village.open_peer()
            knows_nobody = await village.open_seed()
            for urls in [(knows.url(), knows_nobody.url()), (knows_nobody.url(), knows.url())]:
                entry = await Climber(village, *urls).climb()
                assert entry.way == "seed"
                assert entry.answered >= 2

    virtual(main())


def test_alone_is_said_only_when_all_seeds_have_been_heard() -> None:
    async def main() -> None:
        async with Village() as village:
            knows_nobody = await village.open_seed()
            silent = FakeSeed(village.world, 600, lambda *_: None)
            entry = await Climber(village, knows_nobody.url(), silent.url).climb()
            assert entry.way == "seed, alone"
            assert len(entry.tried) == 1
            assert "stopped answering" in entry.tried[0]
            assert now() == pytest.approx(5.1, abs=0.2)

    virtual(main())


def test_if_all_are_dead_each_is_named_with_what_it_answered() -> None:
    async def main() -> None:
        async with Village() as village:
            world = village.world
            silent = FakeSeed(world, 601, lambda *_: None)
            busy = FakeSeed(world, 602, lambda seed, _: seed.say(Nope(0, NopeCode.BUSY, "busy, ask again")))
            false = FakeSeed(world, 603, lambda seed, _: seed.challenge(signer=identity(604)))
            moved = FakeSeed(world, 605, lambda *_: None)
            other_key = SeedUrl(identity(606).id, moved.url.host, moved.url.port)
            urls = [dead_seed(1), silent.url, busy.url, false.url, other_key]
            with pytest.raises(EntryFailed) as caught:
                await Climber(village, *urls).climb(NETWORK, (nobody(1),))
            text = str(caught.value)
            assert "\n" not in text
            assert "1 saved contacts: none answers" in text
            for url, answer in zip(
                urls,
                ["does not answer", "stopped answering", "busy, ask again", "prove its identity", "another key"],
                strict=True,
            ):
                where = f"seed {url.peer_id.short}…@{url.host}:{url.port}: "
                assert answer in text.partition(where)[2].partition(";")[0]
            assert other_tasks() == []

    virtual(main())


# --- other networks ---


def test_one_seed_of_another_network_is_a_mismatch() -> None:
    async def main() -> None:
        async with Village() as village:
            other = FakeSeed(village.world, 600, challenge_only, network=CHESS)
            with pytest.raises(NetworkMismatch, match=f"{other.identity.id.short}.*'chess', not 'test'"):
                await Climber(village, other.url).climb(NETWORK)

    virtual(main())


def test_among_several_seeds_one_of_another_network_does_no_harm() -> None:
    async def main() -> None:
        async with Village() as village:
            right = await village.open_seed()
            await village.open_peer()
            other = FakeSeed(village.world, 600, challenge_only, network=CHESS)
            entry = await Climber(village, other.url, right.url()).climb(NETWORK)
            assert entry.way == "seed"

    virtual(main())


def test_if_none_of_several_seeds_serves_our_network_all_are_named() -> None:
    async def main() -> None:
        async with Village() as village:
            others = [FakeSeed(village.world, 600 + n, challenge_only, network=CHESS) for n in range(2)]
            with pytest.raises(EntryFailed, match=r"'chess', not 'test'.*'chess', not 'test'"):
                await Climber(village, *(other.url for other in others)).climb(NETWORK)

    virtual(main())


# --- the rest of the way ---


def test_a_seed_whose_node_is_silent_points_to_a_firewall() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = FakeSeed(village.world, 600, challenge_only)
            with pytest.raises(EntryFailed, match="does not answer by UDP; a firewall"):
                await Climber(village, seed.url).climb()

    virtual(main())


def test_a_seed_that_has_no_node_in_our_family_cannot_help() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = FakeSeed(village.world, 600, lambda seed, _: seed.challenge(udp_ports=(0, 5000)))
            with pytest.raises(EntryFailed, match="by UDP"):
                await Climber(village, seed.url).climb()

    virtual(main())


async def seed_with_a_node(village: Village, reply: SeedMessage | None) -> FakeSeed:
    """A seed whose node answers, and which says `reply` to whoever proved himself."""
    node: DhtNode

    def script(seed: FakeSeed, message: SeedMessage) -> None:
        if isinstance(message, Hello):
            seed.challenge(node_key=node.shared.node_key.public, udp_ports=(node.addresses[0].port, 0))
        elif reply is not None:
            seed.say(reply)

    seed = FakeSeed(village.world, 600, script)
    node = DhtNode(seed.identity, host=seed.host, network=NETWORK, no_seat=True, stores=False)
    await node.listen(0, "0.0.0.0")
    return seed


def test_a_seed_that_names_the_dead_is_no_way_in() -> None:
    async def main() -> None:
        async with Village() as village:
            dead = [pack_contact(nobody(number)) for number in (1, 2)]
            seed = await seed_with_a_node(village, Ok(0, dead, []))
            with pytest.raises(EntryFailed, match="named 2 contacts, and none of them answers by UDP"):
                await Climber(village, seed.url).climb()

    virtual(main())


def test_a_seed_that_stops_at_the_last_step() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await seed_with_a_node(village, None)
            with pytest.raises(EntryFailed, match=f"@{seed.url.host}:{seed.url.port}: the seed stopped answering"):
                await Climber(village, seed.url, timeout_s=2.0).climb()
            assert now() < 3

    virtual(main())


def test_the_seed_s_time_tells_of_a_wrong_clock() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            await village.open_peer()
            climber = Climber(village, seed.url())
            climber.host.virtual_clock.skew_s = -1800.0
            await climber.climb()
            assert climber.node is not None
            assert climber.node.shared.skew.offset_s == pytest.approx(1800, abs=1)

    virtual(main())


def test_who_is_interrupted_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with Village() as village:
            silent = FakeSeed(village.world, 600, lambda *_: None)
            climber = Climber(village, silent.url, dead_seed(1))
            task = asyncio.create_task(climber.climb())
            await until(lambda: silent.heard)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert other_tasks() == []
            await asyncio.sleep(1)
            assert silent.closed == 1

    virtual(main())


def test_two_seeds_of_one_network_know_each_other_s_newcomers_through_them() -> None:
    # Whoever asks both joins what they know: so there is one network, and not two.
    async def main() -> None:
        async with Village() as village:
            one, two = await village.open_seed(), await village.open_seed()
            first = await village.open_peer(seeds=[one.url()])
            both = await village.open_peer(seeds=[one.url(), two.url()])
            assert both.entry is not None
            assert both.entry.answered == 1
            await until(lambda: len(two.directory) > 0)
            last = await village.open_peer(seeds=[two.url()])
            await until(lambda: node_key(first) in {contact.key for contact in seated(last)})

    virtual(main())
