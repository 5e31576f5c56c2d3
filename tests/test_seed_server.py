"""The seed: it hands newcomers on to each other, and is then no longer needed."""

import asyncio
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support_peers import (
    ANY4,
    NETWORK,
    Events,
    Village,
    host_of,
    identity,
    node_key,
    now,
    other_tasks,
    presence,
    seated,
    until,
    virtual,
)

from atonce_seed.server import SeedServer
from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig, SeedConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindNode, Refusal, Refused, Store
from dht_atonce.discovery.seed_client import SeedSession
from dht_atonce.discovery.seed_wire import Hello, Nope, NopeCode, SeedMessage, message_decoder
from dht_atonce.endpoints import Address
from dht_atonce.errors import EntryFailed, LinkError, PortInUse, ProfileInUse
from dht_atonce.identity import Identity
from dht_atonce.links import Link
from dht_atonce.peer import Peer
from dht_atonce.records import presence_key

CONFIG = SeedConfig()


def seed_contact(seed: SeedServer) -> Contact:
    return Contact(node_key(seed), seed.node.addresses[0])


def knows(one: Peer, other: Peer) -> bool:
    return node_key(other) in {contact.key for contact in seated(one)}


async def met(*peers: Peer) -> None:
    """Wait until all of them know each other."""
    await until(lambda: all(knows(one, other) for one in peers for other in peers if one is not other))


class Caller:
    """Somebody who rings at the seed's door, and what is said to him there."""

    def __init__(self, village: Village, number: int = 900) -> None:
        self.seed = village.seed
        self.links = village.world.host().links(identity(number))
        self.heard: list[SeedMessage] = []
        self.closed_at: float | None = None
        self.link: Link

    async def ring(self) -> "Caller":
        self.link = await self.links.dial(self.seed.address, self.seed.url().peer_id.curve_key, 3.0)
        self.link.start(lambda data: self.heard.append(decode(message_decoder, data)), self._on_closed)
        return self

    def _on_closed(self, reason: str) -> None:
        self.closed_at = now()


# --- newcomers ---


def test_the_first_newcomer_is_alone() -> None:
    async def main() -> None:
        async with Village() as village:
            events = Events()
            seed = await village.open_seed(on_event=events)
            peer = await village.open_peer()
            assert peer.entry is not None
            assert (peer.entry.way, peer.entry.answered) == ("seed, alone", 0)
            assert events.of("admitted") == [{"peer": str(peer.id), "contacts": 0, "listed": 1}]
            status = seed.status()
            assert (status["network"], status["k"], status["listed"], status["admitted"]) == ("test", 20, 1, 1)
            assert status["handshake_datagrams"] == 2  # without and with the cookie

    virtual(main())


def test_newcomers_one_by_one_hear_of_those_before() -> None:
    async def main() -> None:
        async with Village() as village:
            events = Events()
            await village.open_seed(on_event=events)
            for number in range(5):
                peer = await village.open_peer()
                assert peer.entry is not None
                assert peer.entry.answered == number
            await met(*village.peers)
            assert [details["contacts"] for details in events.of("admitted")] == [0, 1, 2, 3, 4]

    virtual(main())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_of_newcomers_at_one_moment_the_later_hears_of_the_earlier(count: int) -> None:
    async def main() -> None:
        async with Village() as village:
            events = Events()
            await village.open_seed(on_event=events)
            await asyncio.gather(*(village.open_peer() for _ in range(count)))
            assert [details["contacts"] for details in events.of("admitted")] == list(range(count))
            await met(*village.peers)

    virtual(main())


def test_one_network_even_if_the_first_two_come_at_one_moment_after_an_hour() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            first = await village.open_peer()
            await asyncio.sleep(3600)
            village.crash(first)  # and so everybody whom the seed knew
            await asyncio.gather(village.open_peer(), village.open_peer())
            await met(*village.peers[1:])

    virtual(main())


def test_a_short_lived_newcomer_is_served_and_not_listed() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            stays = await village.open_peer()
            passes = await village.open_peer(transient=True)
            assert passes.entry is not None
            assert passes.entry.answered == 1
            assert len(seed.directory) == 1
            later = await village.open_peer()
            assert {contact.key for contact in seed.directory.contacts()} == {node_key(stays), node_key(later)}

    virtual(main())


def test_a_newcomer_is_not_sent_to_the_dead() -> None:
    async def main() -> None:
        async with Village() as village:
            events = Events()
            await village.open_seed(on_event=events)
            peers = [await village.open_peer() for _ in range(4)]
            village.crash(*peers[:3])
            await asyncio.sleep(5)
            newcomer = await village.open_peer()
            assert events.of("admitted")[-1]["contacts"] == 1
            await met(peers[3], newcomer)

    virtual(main())


def test_when_everybody_is_dead_a_newcomer_is_the_first_again() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            peers = [await village.open_peer() for _ in range(6)]
            village.crash(*peers)
            await asyncio.sleep(3600)
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed, alone"
            assert [contact.key for contact in seed.directory.contacts()] == [node_key(newcomer)]

    virtual(main())


# --- no longer needed ---


def test_nobody_gives_the_seed_a_seat_and_nothing_is_sent_to_it_of_its_own_accord() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            for _ in range(4):
                await village.open_peer()
            handshakes = seed.traffic.handshake
            await asyncio.sleep(7200)
            assert seed.traffic.unsolicited(now()) == 0
            assert seed.traffic.pending == 0
            assert seed.traffic.returned == 0
            assert seed.traffic.handshake == handshakes == 2 * 4
            for peer in village.peers:
                assert node_key(seed) not in {contact.key for contact in seated(peer)}
                assert len(seated(peer)) == 3
            assert seed.node.shared.store.count == 0

    virtual(main())


def test_what_is_sent_to_it_unasked_is_counted() -> None:
    # The control to the test above.
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            _, peer = await village.open_peer(), await village.open_peer()
            await peer.node.ping([seed_contact(seed)], 1.0)
            await asyncio.sleep(60)
            assert seed.traffic.unsolicited(now()) == 1
            assert seed.status()["unsolicited_datagrams"] == 1

    virtual(main())


def test_it_refuses_to_store() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            peer = await village.open_peer()
            assert peer.record is not None
            (server,) = peer.node.servers.values()
            answer = await server.ask(seed_contact(seed), Store(0, server.protocol.request_id(), 0, peer.record.blob))
            assert answer is not None
            assert isinstance(answer.reply, Refused)
            assert answer.reply.reason == Refusal.NOT_HERE
            assert seed.node.shared.store.count == 0

    virtual(main())


def test_when_the_seed_is_gone_those_who_are_in_stay_in() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            for _ in range(3):
                await village.open_peer()
            await seed.aclose()
            assert other_tasks() != []  # the peers'
            one, other, third = village.peers
            await asyncio.sleep(7200)
            assert (await one.lookup(other.id)).peer_id == other.id
            await one.send(third.id, b"m")
            with pytest.raises(EntryFailed, match="nobody listens"):
                await village.open_peer()

    virtual(main())


# --- an idle seed, and one that was started again ---


def test_after_an_idle_hour_there_is_still_one_network() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            old = [await village.open_peer() for _ in range(3)]
            await asyncio.sleep(3600)
            village.crash(old[2])  # the one that came last
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed"
            assert seed.counters["seed.upkeep_lookups"] == 1
            await met(*old[:2], newcomer)

    virtual(main())


def test_a_busy_seed_looks_nobody_up() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            for _ in range(6):
                await village.open_peer()
                await asyncio.sleep(50)
            assert seed.counters["seed.upkeep_lookups"] == 0

    virtual(main())


def test_a_seed_that_is_started_again_asks_those_whom_it_knew(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            first = await village.open_seed(tmp_path, host=host)
            old = [await village.open_peer() for _ in range(3)]
            url = first.url()
            await first.aclose()
            again = await village.open_seed(tmp_path, host=host, network=None)
            assert again.url() == url
            assert again.network == NETWORK
            await asyncio.sleep(10)
            assert {c.key for c in again.directory.contacts()} == {node_key(peer) for peer in old}
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed"
            await met(*old, newcomer)
            assert again.traffic.unsolicited(now()) == 0

    virtual(main())


def test_what_a_seed_knew_survives_its_sudden_death(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            first = await village.open_seed(tmp_path / "profile")
            old = [await village.open_peer() for _ in range(3)]
            await asyncio.sleep(CONFIG.save_small_s + 1)
            village.crash(first)
            shutil.copytree(tmp_path / "profile", tmp_path / "disk of the dead")
            (tmp_path / "disk of the dead").chmod(0o700)
            again = await village.open_seed(tmp_path / "disk of the dead")
            await asyncio.sleep(10)
            newcomer = await village.open_peer()
            await met(*old, newcomer)
            assert again.url().peer_id == first.url().peer_id

    virtual(main())


def test_a_seed_that_is_stopped_at_once_keeps_what_it_knew(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            seed = await village.open_seed(tmp_path, host=host)
            old = [await village.open_peer() for _ in range(2)]
            await met(*old)
            await seed.aclose()
            await (await village.open_seed(tmp_path, host=host)).aclose()
            await village.open_seed(tmp_path, host=host)
            await asyncio.sleep(10)
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed"
            await met(*old, newcomer)

    virtual(main())


def test_a_seed_that_cannot_start_keeps_what_it_knew(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            seed = await village.open_seed(tmp_path, host=host)
            old = [await village.open_peer() for _ in range(2)]
            await met(*old)
            await seed.aclose()
            occupant = host.links(identity(5)).listen(Address(host.ip, 7000), lambda _: None)
            with pytest.raises(PortInUse):
                await village.open_seed(tmp_path, host=host, port=7000)
            occupant.close()
            await village.open_seed(tmp_path, host=host, port=7000)
            await asyncio.sleep(10)
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed"
            await met(*old, newcomer)

    virtual(main())


def test_a_seed_of_another_network_does_not_ask_the_old_one_s_nodes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            await village.open_seed(tmp_path, host=host)
            await village.open_peer()
            await village.seed.aclose()
            seed = await village.open_seed(tmp_path, host=host, network=NetworkConfig.local_network("chess"))
            await asyncio.sleep(10)
            assert seed.counters["dht.sent"] == 0
            assert len(seed.directory) == 0

    virtual(main())


def test_nor_does_it_when_it_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            await village.open_seed(tmp_path, host=host)
            await village.open_peer()
            await village.seed.aclose()
            for _ in range(2):
                seed = await village.open_seed(tmp_path, host=host, network=NetworkConfig.local_network("chess"))
                await asyncio.sleep(10)
                await seed.aclose()
                assert seed.counters["dht.sent"] == 0

    virtual(main())


# --- who behaves otherwise ---


def test_a_caller_who_names_another_network_is_told_so() -> None:
    async def main() -> None:
        async with Village() as village:
            events = Events()
            seed = await village.open_seed(on_event=events)
            caller = await Caller(village).ring()
            caller.link.send(encode(Hello(0, "elsewhere")))
            await until(lambda: caller.closed_at, within_s=1)
            (said,) = caller.heard
            assert isinstance(said, Nope)
            assert said.code == NopeCode.OTHER_NETWORK
            assert seed.counters["seed.other_network"] == 1
            assert events.of("rejected")[0]["reason"] == "seed.other_network"

    virtual(main())


def test_a_newcomer_who_did_not_prove_its_address_is_refused() -> None:
    # It could have everybody send datagrams to an address that is somebody else's.
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            host, who = village.world.host(), identity(900)
            node = DhtNode(who, host=host, network=NETWORK)
            await node.listen(0, "0.0.0.0")
            record, at_seed = presence(who).blob, seed_contact(seed)
            for proofs in (0, 1):  # nothing, or a request whose answer with the cookie anybody could have sent for
                async with await SeedSession.open(seed.url(), host, host.links(who), who, NETWORK, 5.0) as session:
                    if proofs:
                        (server,) = node.servers.values()
                        request = FindNode(0, server.protocol.request_id(), 0, node.shared.node_key.id, 0)
                        assert await server.ask(at_seed, request) is not None
                    with pytest.raises(EntryFailed, match="no UDP from you arrived here"):
                        await session.authenticate(node.shared.node_key, record)
            assert seed.counters["seed.not_proved"] == 2
            assert len(seed.directory) == 0
            async with await SeedSession.open(seed.url(), host, host.links(who), who, NETWORK, 5.0) as session:
                assert await node.prove_address(at_seed)
                assert await session.authenticate(node.shared.node_key, record) == []
            assert len(seed.directory) == 1
            await node.aclose()

    virtual(main())


def test_garbage_ends_its_link_and_no_other() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            caller = await Caller(village).ring()
            caller.link.send(random.Random(1).randbytes(500))
            await until(lambda: caller.closed_at, within_s=1)
            assert seed.counters["seed.not_understood"] == 1
            await village.open_peer()

    virtual(main())


def test_a_caller_who_says_nothing_is_shown_the_door() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            silent, half = await Caller(village).ring(), await Caller(village, 901).ring()
            half.link.send(encode(Hello(0, "")))
            await until(lambda: silent.closed_at and half.closed_at)
            assert silent.closed_at == pytest.approx(30, abs=0.5)
            assert half.closed_at == pytest.approx(30, abs=0.5)
            assert seed.counters["seed.late"] == 2

    virtual(main())


def test_a_flood_of_half_open_handshakes_has_a_bound_and_passes() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed(config=replace(CONFIG, max_handshakes=20))
            callers = [await Caller(village, 1000 + number).ring() for number in range(50)]
            for caller in callers:
                caller.link.send(encode(Hello(0, "")))
            await asyncio.sleep(1)
            turned_away = [caller for caller in callers if caller.closed_at]
            assert len(turned_away) == 30
            assert {type(said) for caller in turned_away for said in caller.heard} == {Nope}
            assert {said.code for c in turned_away for said in c.heard if isinstance(said, Nope)} == {NopeCode.BUSY}
            assert seed.counters["seed.busy"] == 30
            with pytest.raises(EntryFailed, match="busy"):
                await village.open_peer()
            await asyncio.sleep(CONFIG.handshake_s)
            await village.open_peer()

    virtual(main())


async def prove_from_new_nodes(village: Village, count: int) -> None:
    """Nodes that come, prove their address to the seed, and never say who they are."""
    host = village.world.host()
    for number in range(count):
        node = DhtNode(Identity.generate(host.rng), host=host, network=NETWORK, no_seat=number % 2 == 0)
        await node.listen(0, "0.0.0.0")
        assert await node.prove_address(seed_contact(village.seed))
        await node.aclose()


def remembered(seed: SeedServer) -> int:
    """How many entries there are in whatever the seed keeps of strangers: nobody outside can see them."""
    kept = [value for name, value in vars(seed).items() if isinstance(value, dict | set) and name != "counters"]
    return sum(map(len, kept))


def test_those_who_prove_an_address_and_go_leave_little_behind() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed(config=replace(CONFIG, max_handshakes=20))
            await prove_from_new_nodes(village, 100)
            assert remembered(seed) <= 2 * 20

    virtual(main())


def test_they_do_not_stand_in_others_way() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed(config=replace(CONFIG, max_handshakes=20))
            await prove_from_new_nodes(village, 60)
            await village.open_peer()
            await village.open_peer()
            await met(*village.peers)

    virtual(main())


# --- the operator's side ---


def test_a_seed_in_use_a_port_in_use(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            seed = await village.open_seed(tmp_path, host=host)
            with pytest.raises(ProfileInUse):
                await village.open_seed(tmp_path)
            with pytest.raises(PortInUse):
                await village.open_seed(host=host, port=seed.address.port)
            with pytest.raises(PortInUse):
                await village.open_seed(host=host, udp_port=seed.node.addresses[0].port)

    virtual(main())


def test_the_url_names_the_key_and_the_place() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed(port=4710)
            assert str(seed.url()) == f"atonce://{seed.url().peer_id}@{host_of(seed)}:4710"
            assert seed.url("seed.example.org").host == "seed.example.org"

    virtual(main())


def test_closing_ends_all_of_it() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            caller = await Caller(village).ring()
            await asyncio.sleep(40)
            await seed.aclose()
            await asyncio.sleep(1)
            assert caller.closed_at is not None
            with pytest.raises(LinkError):
                await Caller(village).ring()
            assert other_tasks() == []

    virtual(main())


def test_as_a_context_manager() -> None:
    async def main() -> None:
        village = Village()
        async with await SeedServer.open(host=village.world.host(), network=NETWORK, listen=ANY4) as seed:
            village.seed = seed
            async with village:
                peer = await village.open_peer()
                assert (await peer.find(peer.id)).record is not None
                assert presence_key(NETWORK, peer.id) == peer.record.key if peer.record else False
        assert other_tasks() == []

    virtual(main())


def test_a_seed_without_a_network_serves_the_default_one() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed(network=None)
            assert seed.network == NetworkConfig()
            assert all(isinstance(server, FamilyServer) for server in seed.node.servers.values())

    virtual(main())
