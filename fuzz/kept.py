"""Records, what a profile keeps, and what people type."""

from atonce_sim.loop import VirtualLoop
from atonce_sim.world import World
from dht_atonce.access import read_contacts
from dht_atonce.codec import encode
from dht_atonce.dht.contact import Contact
from dht_atonce.disk import MemoryDisk
from dht_atonce.endpoints import Address, SeedUrl, parse_address
from dht_atonce.errors import (
    EndpointError,
    PeerIdError,
    ProfileError,
    RecordError,
    SeedUrlError,
)
from dht_atonce.identity import PeerId
from dht_atonce.profile import Profile, State
from dht_atonce.records import RecordParser
from fuzz.seeds import NETWORK, NOW, Target, identity, membership, presence, value, vectors

__all__ = ["contacts", "record", "signed_record", "state", "text"]


def record() -> Target:
    parser = RecordParser(NETWORK)

    def feed(data: bytes) -> None:
        try:
            parser.parse(data, NOW)
        except RecordError:
            return

    return Target(feed, [presence().blob, value().blob, membership().blob, *vectors("records", "record")])


def signed_record() -> Target:
    """What a malicious owner can make: any payload under a signature that holds."""
    parser, who = RecordParser(NETWORK), identity(0)

    def feed(payload: bytes) -> None:
        for kind in (b"\x01", b"\x02", b"\x03"):
            signature = who.sign(b"atonce record v1" + kind + NETWORK.network_id + payload)
            try:
                parser.parse(b"\x01" + kind + signature + payload, NOW)
            except RecordError:
                continue

    blobs = (presence().blob, value().blob, membership().blob, *vectors("records", "record"))
    return Target(feed, [blob[66:] for blob in blobs])


def contacts() -> Target:
    """What the profile keeps of whom the user knows."""

    def feed(data: bytes) -> None:
        try:
            read_contacts(data)
        except ProfileError:
            return

    return Target(feed, [encode((1, [(identity(number).id.key, "Alice") for number in range(2)]))])


def state() -> Target:
    host = World(1).host()
    disk = MemoryDisk()
    disk.files = {"identity.key": bytes(range(32)), "node.key": bytes(range(32))}
    profile = Profile(disk, host)
    contacts = (Contact(bytes(32), Address("10.0.0.1", 4000)), Contact(bytes(32), Address("fd00::1", 4000)))
    profile.state = State(NETWORK, (4000, 4001), 4710, contacts, (b"one life",))
    loop = VirtualLoop()
    loop.run_until_complete(profile.save())
    loop.close()

    def feed(data: bytes) -> None:
        disk.files["state"] = data
        try:
            Profile(disk, host)
        except ProfileError:
            return

    return Target(feed, [disk.files["state"]])


def text() -> Target:
    """What people type or copy: PeerIds, seed URLs, addresses."""

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for read, error in ((PeerId.parse, PeerIdError), (SeedUrl.parse, SeedUrlError), (parse_address, EndpointError)):
            try:
                read(text)
            except error:
                continue

    peer_id = str(identity(0).id)
    texts = [
        peer_id,
        f"atonce://{peer_id}@example.com:4710",
        f"atonce://{peer_id}@[fd00::1]:1",
        "10.0.0.1:1",
        "[::1]:2",
    ]
    return Target(feed, [text.encode() for text in texts])
