"""The newcomer's side of the seed handshake, against seeds of every kind."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support_peers import NETWORK, FakeSeed, Village, host_of, identity, now, presence, until, virtual

from atonce_sim.world import EPOCH, World
from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.discovery.seed_client import SeedSession
from dht_atonce.discovery.seed_wire import Authenticate, Hello, Nope, NopeCode, Ok, SeedMessage, verify_authenticate
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import EntryFailed, LinkRefused, NetworkMismatch
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.links import Link

CLIENT, SEED, OTHER = 1, 2, 3
NODE_KEY = NodeKey(bytes(range(32)))
Script = Callable[[FakeSeed, SeedMessage], None]


class Client:
    """A newcomer with a host of its own."""

    def __init__(self, world: World) -> None:
        self.host = world.host()
        self.identity: Identity = identity(CLIENT)
        self.links = self.host.links(self.identity)

    async def open(self, url: SeedUrl, network: NetworkConfig | None = None, timeout_s: float = 5.0) -> SeedSession:
        return await SeedSession.open(url, self.host, self.links, self.identity, network, timeout_s)


class Names:
    """A resolver that knows these names."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names

    async def resolve(self, name: str) -> list[str]:
        return self.names.get(name.partition(".")[0], [])


def silent(seed: FakeSeed, message: SeedMessage) -> None:
    """Say nothing."""


def challenging(**changes: Any) -> Script:
    """Answer HELLO with a challenge, right but for `changes`."""

    def script(seed: FakeSeed, message: SeedMessage) -> None:
        if isinstance(message, Hello):
            seed.challenge(**changes)

    return script


def answering(ok: SeedMessage | bytes) -> Script:
    """Answer AUTHENTICATE with `ok`."""

    def script(seed: FakeSeed, message: SeedMessage) -> None:
        if isinstance(message, Hello):
            seed.challenge()
        else:
            seed.say(ok)

    return script


def hears(
    script: Script, network: NetworkConfig | None = None, *, ip: str | None = None, serves: NetworkConfig = NETWORK
) -> tuple[SeedSession, FakeSeed]:
    """What a client makes of a seed that answers so."""

    async def main() -> tuple[SeedSession, FakeSeed]:
        world = World(1)
        seed = FakeSeed(world, SEED, script, ip=ip, network=serves)
        client = Client(world)
        try:
            async with await client.open(seed.url, network) as session:
                return session, seed
        finally:
            await asyncio.sleep(1)
            assert seed.closed == 1 or seed.link.is_closed  # however it ended, nobody is left on the line

    return virtual(main())


# --- a good seed ---


def test_a_seed_tells_of_its_network_of_us_and_of_itself() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            client = Client(village.world)
            async with await client.open(seed.url()) as session:
                says = session.says
                assert says.network == NETWORK
                assert says.you.ip == client.host.ip
                assert says.node == Contact(seed.node.shared.node_key.public, seed.node.addresses[0])
                assert says.time_s == pytest.approx(EPOCH + now(), abs=0.1)
                assert says.node is not None
                assert says.node.ip == host_of(seed)

    virtual(main())


def test_our_signature_is_over_the_challenge_and_our_node_key() -> None:
    async def main() -> None:
        world = World(1)
        seed, client = FakeSeed(world, SEED, answering(Ok(0, [], []))), Client(world)
        record = presence(client.identity).blob
        async with await client.open(seed.url) as session:
            assert await session.authenticate(NODE_KEY, record) == []
        hello, answer = seed.heard
        assert hello == Hello(0, "")
        assert isinstance(answer, Authenticate)
        assert (answer.node_key, answer.record) == (NODE_KEY.public, record)
        assert verify_authenticate(client.identity.id, NETWORK.network_id, seed.identity.id, answer, seed.body)

    virtual(main())


def test_we_name_the_network_that_we_want() -> None:
    _, seed = hears(challenging(), NETWORK)
    assert seed.heard == [Hello(0, NETWORK.name)]


def test_contacts_that_are_none_are_left_out() -> None:
    good4, good6 = (
        Contact(bytes([1] * 32), Address("10.0.0.9", 5000)),
        Contact(bytes([2] * 32), Address("fd00::9", 5000)),
    )
    bad4 = [
        pack_contact(Contact(bytes([3] * 32), Address("10.0.0.9", 80))),
        pack_contact(Contact(bytes([4] * 32), Address("224.0.0.1", 5000))),
        pack_contact(good4) + bytes(8),  # a salt, and this is no certified network
        pack_contact(good6),
    ]

    async def main() -> None:
        world = World(1)
        reply = Ok(0, [*bad4, pack_contact(good4)], [pack_contact(good6), pack_contact(good4)])
        seed, client = FakeSeed(world, SEED, answering(reply)), Client(world)
        async with await client.open(seed.url) as session:
            assert await session.authenticate(NODE_KEY, presence(client.identity).blob) == [good4, good6]

    virtual(main())


def test_the_seed_s_node_is_where_the_seed_is() -> None:
    session, seed = hears(challenging(udp_ports=(6000, 7000)))
    assert session.says.node == Contact(NodeKey(bytes([7] * 32)).public, Address(seed.host.ip, 6000))


def test_over_ipv6_the_seed_s_node_is_at_its_ipv6_port() -> None:
    session, _ = hears(challenging(udp_ports=(6000, 7000)), ip="fd00::5")
    assert session.says.node == Contact(NodeKey(bytes([7] * 32)).public, Address("fd00::5", 7000))


@pytest.mark.parametrize(
    ("ips", "ports", "other"),
    [
        (["10.0.5.5", "fd00::5"], (6000, 7000), Address("fd00::5", 7000)),
        (["10.9.9.9", "10.0.5.5", "fd00::5", "fd00::6"], (6000, 7000), Address("fd00::5", 7000)),
        (["10.0.5.5", "fd00::5"], (6000, 0), None),  # it does not listen there
        (["10.0.5.5"], (6000, 7000), None),  # and where would that be?
        (["127.0.0.1"], (6000, 7000), Address("::1", 7000)),
    ],
)
def test_the_seed_s_name_tells_where_its_node_is_in_the_other_family(
    ips: list[str], ports: tuple[int, int], other: Address | None
) -> None:
    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, SEED, challenging(udp_ports=ports), ip=next(ip for ip in ips if ip != "10.9.9.9"))
        client = Client(world)
        client.host.resolver = Names(seed=ips)
        async with await client.open(SeedUrl(seed.identity.id, "seed.example.org", seed.url.port)) as session:
            assert session.says.node == Contact(NodeKey(bytes([7] * 32)).public, Address(seed.host.ip, 6000))
            found = session.says.other_node
            assert (found and found.address) == other
            assert found is None or found.key == NodeKey(bytes([7] * 32)).public

    virtual(main())


def test_a_seed_without_a_node_in_our_family_has_none_for_us() -> None:
    session, _ = hears(challenging(udp_ports=(0, 7000)))
    assert session.says.node is None


def test_what_a_later_minor_version_says_more_is_ignored() -> None:
    session, _ = hears(challenging(minor=9, zz_more="and more"))
    assert session.says.network == NETWORK


def test_whatever_time_it_tells_it_is_a_number() -> None:
    session, _ = hears(challenging(time_ms=2**64 - 1))
    assert session.says.time_s > 0


# --- `local` ---

LOCAL, PUBLIC = NetworkConfig.local_network("test"), NetworkConfig.internet("test")


@pytest.mark.parametrize(
    ("ip", "claims", "believed"),
    [
        ("10.0.0.1", True, True),
        ("192.168.1.1", True, True),
        ("127.0.0.1", True, True),
        ("5.6.7.8", True, False),
        ("2600::1", True, False),
        ("10.0.0.1", False, False),
        ("5.6.7.8", False, False),
    ],
)
def test_only_a_seed_nearby_may_declare_a_network_local(ip: str, claims: bool, believed: bool) -> None:
    session, _ = hears(challenging(local=claims), ip=ip)
    assert session.says.network.local is believed


def test_a_public_seed_that_claims_local_cannot_name_private_contacts() -> None:
    private = pack_contact(Contact(bytes([1] * 32), Address("192.168.1.1", 5000)))
    public = Contact(bytes([2] * 32), Address("9.9.9.9", 5000))

    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, SEED, answering(Ok(0, [private, pack_contact(public)], [])), ip="5.6.7.8")
        client = Client(world)
        async with await client.open(seed.url) as session:
            assert await session.authenticate(NODE_KEY, presence(client.identity).blob) == [public]

    virtual(main())


# --- a seed of another network ---


def test_a_seed_that_serves_another_network_is_left() -> None:
    with pytest.raises(NetworkMismatch, match="'chess', not 'test'"):
        hears(challenging(network="chess"), NETWORK)


def test_a_network_of_the_same_name_under_another_authority_is_another_network() -> None:
    with pytest.raises(NetworkMismatch):
        hears(challenging(authority_key=bytes(32)), NETWORK)


def test_the_k_and_the_life_of_our_network_are_the_seed_s_to_say() -> None:
    session, _ = hears(challenging(k=8, record_life_s=600), NETWORK)
    assert (session.says.network.k, session.says.network.record_life_s) == (8, 600)


def test_a_seed_that_says_it_serves_another_network_is_a_mismatch() -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed()
            with pytest.raises(NetworkMismatch, match="'test'"):
                await Client(village.world).open(seed.url(), NetworkConfig.local_network("chess"))

    virtual(main())


# --- no seed there ---


def test_nobody_listens() -> None:
    async def main() -> None:
        world = World(1)
        url = SeedUrl(identity(SEED).id, "10.9.9.9", 4710)
        with pytest.raises(EntryFailed, match="does not answer"):
            await Client(world).open(url)

    virtual(main())


def test_the_seed_holds_another_key() -> None:
    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, SEED, silent)
        with pytest.raises(EntryFailed, match=r"holds another key.*check the URL"):
            await Client(world).open(SeedUrl(identity(OTHER).id, seed.url.host, seed.url.port))

    virtual(main())


def test_a_handshake_that_breaks_off_once_is_begun_again() -> None:
    async def main() -> None:
        world = World(1)
        client, seed = Client(world), FakeSeed(world, SEED, challenging())
        dial, dials = client.links.dial, []

        async def breaks_off(address: Address, curve_key: bytes, timeout_s: float) -> Link:
            dials.append(address)
            if len(dials) == 1:
                raise LinkRefused("broken off")
            return await dial(address, curve_key, timeout_s)

        client.links.dial = breaks_off
        async with await client.open(seed.url):
            assert len(dials) == 2

    virtual(main())


def test_the_name_is_not_known() -> None:
    async def main() -> None:
        client = Client(World(1))
        client.host.resolver = Names()
        with pytest.raises(EntryFailed, match=r"the name seed\.example\.org is not known"):
            await client.open(SeedUrl(identity(SEED).id, "seed.example.org", 4710))

    virtual(main())


def test_all_addresses_of_a_name_are_tried() -> None:
    async def main() -> None:
        world = World(1)
        client, seed = Client(world), FakeSeed(world, SEED, challenging(), ip="10.0.5.5")
        client.host.resolver = Names(seed=["10.9.9.9", "10.0.5.5"])
        async with await client.open(SeedUrl(seed.identity.id, "seed.example.org", seed.url.port)) as session:
            assert session.says.node is not None
            assert session.says.node.ip == "10.0.5.5"

    virtual(main())


def test_of_several_answers_the_one_that_helps_is_told() -> None:
    async def main() -> None:
        world = World(1)
        client, seed = Client(world), FakeSeed(world, SEED, silent, ip="10.0.5.5")
        url = SeedUrl(identity(OTHER).id, "seed.example.org", seed.url.port)
        for ips in (["10.9.9.9", "10.0.5.5"], ["10.0.5.5", "10.9.9.9"]):
            client.host.resolver = Names(seed=ips)
            with pytest.raises(EntryFailed, match="another key"):
                await client.open(url)

    virtual(main())


# --- a seed that behaves otherwise ---


def test_a_seed_that_cannot_prove_its_identity() -> None:
    for wrong in [challenging(signer=identity(OTHER)), challenging(client=identity(OTHER).id.curve_key)]:
        with pytest.raises(EntryFailed, match="could not prove its identity"):
            hears(wrong)


def test_a_seed_that_says_nothing() -> None:
    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, SEED, silent)
        with pytest.raises(EntryFailed, match="stopped answering"):
            await Client(world).open(seed.url, timeout_s=2.0)
        assert 2.0 <= now() < 2.2

    virtual(main())


def test_a_seed_that_falls_silent_after_its_challenge() -> None:
    async def main() -> None:
        world = World(1)
        seed, client = FakeSeed(world, SEED, challenging()), Client(world)
        async with await client.open(seed.url, timeout_s=2.0) as session:
            with pytest.raises(EntryFailed, match="stopped answering"):
                await session.authenticate(NODE_KEY, presence(client.identity).blob)
        assert now() < 2.3

    virtual(main())


def test_a_seed_that_closes() -> None:
    def close(seed: FakeSeed, _: SeedMessage) -> None:
        seed.link.close()

    with pytest.raises(EntryFailed, match="closed the connection"):
        hears(close)


def test_a_seed_that_says_its_last_words_and_closes() -> None:
    def busy(seed: FakeSeed, _: SeedMessage) -> None:
        seed.say(Nope(0, NopeCode.BUSY, "busy, ask again in a minute"))
        seed.link.close()

    with pytest.raises(EntryFailed, match="said no: busy, ask again in a minute"):
        hears(busy)


@pytest.mark.parametrize("code", [*range(2, 7), 99])
def test_a_no_at_the_end_is_told_with_its_reason(code: int) -> None:
    async def main() -> None:
        world = World(1)
        seed, client = FakeSeed(world, SEED, answering(Nope(0, code, "because"))), Client(world)
        async with await client.open(seed.url) as session:
            with pytest.raises(EntryFailed, match="the seed said no: because"):
                await session.authenticate(NODE_KEY, presence(client.identity).blob)

    virtual(main())


@pytest.mark.parametrize("reply", [Ok(0, [], []), Hello(0, ""), Authenticate(0, bytes(32), b"", bytes(64))])
def test_a_seed_that_answers_out_of_turn(reply: SeedMessage) -> None:
    with pytest.raises(EntryFailed, match="out of turn"):
        hears(lambda seed, _: seed.say(reply))


def test_a_seed_that_challenges_twice() -> None:
    async def main() -> None:
        world = World(1)
        seed, client = FakeSeed(world, SEED, lambda seed, _: seed.challenge()), Client(world)
        async with await client.open(seed.url) as session:
            with pytest.raises(EntryFailed, match="out of turn"):
                await session.authenticate(NODE_KEY, presence(client.identity).blob)

    virtual(main())


@pytest.mark.parametrize("garbage", [b"", b"\xc1", encode([2]), encode([9, 0]), b"\x91" * 5000], ids=len)
def test_a_seed_that_cannot_be_understood(garbage: bytes) -> None:
    with pytest.raises(EntryFailed, match="cannot be read; is it of a newer version"):
        hears(lambda seed, _: seed.say(garbage))


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 0},
        {"k": 65},
        {"network": ""},
        {"network": "é" * 33},
        {"authority_key": bytes(5)},
        {"record_life_s": 59},
        {"record_life_s": 2**32 - 1},
        {"you": bytes(7)},
        {"nonce": bytes(31)},
        {"udp_ports": (1, 2, 3)},
        {"local": "yes"},
        {"node_key": b""},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_challenge_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(EntryFailed, match="challenge cannot be read"):
        hears(challenging(**changes))


def test_a_seed_that_talks_without_end() -> None:
    def chatter(seed: FakeSeed, _: SeedMessage) -> None:
        seed.challenge()
        for _number in range(1000):
            seed.say(Nope(0, 5, "and another thing"))

    session, _ = hears(chatter)
    assert session.says.network == NETWORK


def test_who_is_interrupted_hangs_up() -> None:
    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, SEED, silent)
        task = asyncio.create_task(Client(world).open(seed.url))
        await until(lambda: seed.heard)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1)
        assert task.cancelled()
        assert seed.closed == 1

    virtual(main())
