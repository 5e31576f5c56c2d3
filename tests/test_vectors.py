"""The vectors of docs/wire.md: what this code makes and reads, byte for byte.

Each structure is checked three times: the code makes the stored bytes from the stored inputs, it reads them back, and
so does what stands in docs/wire.md, written out here with other people's primitives.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import make_vectors
import msgspec
import nacl.bindings as sodium
import nacl.public
import nacl.secret
import nacl.signing
import pytest
import vectors_of_kinds
from support import NOW, Stranger, start_node, virtual

from atonce_sim.world import World
from dht_atonce.calls import wire as calls
from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht import wire
from dht_atonce.dht.contact import Contact, pack_contact, unpack_contact
from dht_atonce.dht.roster import place_of
from dht_atonce.dht.sealing import (
    Opened,
    PacketType,
    Sealer,
    answer_key_request,
    answer_with_cookie,
    key_request,
    read_cookie_answer,
    read_key_reply,
)
from dht_atonce.discovery import seed_wire
from dht_atonce.durable import wire as durable
from dht_atonce.endpoints import Address, pack_address, unpack_address
from dht_atonce.errors import RecordError, WireError
from dht_atonce.identity import Identity, NodeKey, PeerId, node_id
from dht_atonce.messaging import frames
from dht_atonce.records import (
    MembershipRecord,
    PresenceRecord,
    RecordParser,
    ValueRecord,
    presence_key,
    topic_key,
    value_key,
)
from dht_atonce.rooms import wire as rooms
from dht_atonce.streams import files
from dht_atonce.streams import wire as streams

FILES = {name: json.loads((make_vectors.FOLDER / f"{name}.json").read_text("utf-8")) for name in make_vectors.FILES}

pack = msgspec.msgpack.encode
unhex = bytes.fromhex


def vectors(file: str, *groups: str) -> pytest.MarkDecorator:
    """Parametrize with all vectors of some groups of a file."""
    found = [vector for group in groups for vector in FILES[file][group]]
    names = [
        vector.get("title") or vector.get("type") or vector.get("text") or str(n) for n, vector in enumerate(found)
    ]
    return pytest.mark.parametrize("vector", found, ids=names)


def blake2b(size: int, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def plain(fields: Any) -> Any:
    """A structure as `make_vectors` notes it: bytes in hex."""
    if isinstance(fields, bytes):
        return fields.hex()
    if isinstance(fields, list | tuple):
        return [plain(field) for field in fields]
    return fields


@pytest.mark.parametrize("name", FILES)
def test_the_script_writes_what_is_stored(name: str) -> None:
    assert make_vectors.text_of(name) == (make_vectors.FOLDER / f"{name}.json").read_text("utf-8")


# --- 1. Names ---


@vectors("names", "peer ids")
def test_peer_ids(vector: dict[str, str]) -> None:
    who = Identity(unhex(vector["secret_seed"]))
    assert who.id.key.hex() == vector["key"]
    assert who.id.curve_key.hex() == vector["curve_key"]
    assert str(who.id) == vector["text"]
    assert PeerId.parse(vector["text"]) == who.id

    assert bytes(nacl.signing.SigningKey(unhex(vector["secret_seed"])).verify_key).hex() == vector["key"]
    key = unhex(vector["key"])
    checksum = blake2b(2, b"atonce peer id" + key + b"\x01")
    assert base64.b32encode(key + checksum + b"\x01").decode().lower() == vector["text"]
    assert bytes(nacl.signing.VerifyKey(key).to_curve25519_public_key()).hex() == vector["curve_key"]


@vectors("names", "node ids")
def test_node_ids(vector: dict[str, str]) -> None:
    node, salt = NodeKey(unhex(vector["secret"])), unhex(vector["salt"])
    assert node.public.hex() == vector["public"]
    assert node_id(node.public, salt).hex() == vector["id"]
    assert bytes(nacl.public.PrivateKey(unhex(vector["secret"])).public_key).hex() == vector["public"]
    assert blake2b(20, unhex(vector["public"]) + salt).hex() == vector["id"]


@vectors("names", "network ids")
def test_network_ids(vector: dict[str, str]) -> None:
    name, authority = vector["name"], unhex(vector["authority_key"])
    assert NetworkConfig(name=name, authority_key=authority).network_id.hex() == vector["id"]
    assert blake2b(16, bytes([len(name.encode())]) + name.encode() + authority).hex() == vector["id"]


@vectors("names", "addresses")
def test_addresses(vector: dict[str, Any]) -> None:
    address = Address(vector["ip"], vector["port"])
    assert pack_address(address).hex() == vector["bytes"]
    assert unpack_address(unhex(vector["bytes"])) == address


@vectors("names", "contacts")
def test_contacts(vector: dict[str, Any]) -> None:
    contact = Contact(unhex(vector["key"]), Address(vector["ip"], vector["port"]))
    assert pack_contact(contact).hex() == vector["bytes"]
    assert unpack_contact(unhex(vector["bytes"]), contact.address.family, local=True) == contact
    assert vector["bytes"] == vector["key"] + pack_address(contact.address).hex()


# --- 2. Records ---


def signed(vector: dict[str, Any], kind: int, fields: list[Any]) -> bytes:
    """A record, made from docs/wire.md and the libraries alone."""
    key = nacl.signing.SigningKey(unhex(vector["secret_seed"]))
    payload = pack([0, bytes(key.verify_key), vector["seq"], unhex(vector["incarnation"]), vector["expires"], *fields])
    network_id = NetworkConfig(name=vector["network"]).network_id
    signature = key.sign(b"atonce record v1" + bytes([kind]) + network_id + payload).signature
    return bytes([1, kind]) + signature + payload


@vectors("records", "presence", "goodbye")
def test_presence_records(vector: dict[str, Any]) -> None:
    network, who = NetworkConfig(name=vector["network"]), Identity(unhex(vector["secret_seed"]))
    record = PresenceRecord.sign(
        who,
        network,
        seq=vector["seq"],
        incarnation=unhex(vector["incarnation"]),
        expires=vector["expires"],
        status=vector["status"],
        endpoints=tuple(Address(ip, port) for ip, port in vector["endpoints"]),
        capabilities=tuple(vector["capabilities"]),
    )
    assert record.blob.hex() == vector["record"]
    assert record.key.hex() == vector["key"]
    assert presence_key(network, who.id) == record.key
    assert RecordParser(network).parse(unhex(vector["record"]), NOW) == record
    assert record.is_goodbye == (vector["title"] == "goodbye")

    packed = [pack_address(Address(ip, port)) for ip, port in vector["endpoints"]]
    assert signed(vector, 1, [vector["status"], packed, vector["capabilities"]]).hex() == vector["record"]
    assert blake2b(20, network.network_id + b"\x01" + who.id.key).hex() == vector["key"]


@vectors("records", "value")
def test_value_records(vector: dict[str, Any]) -> None:
    network, who = NetworkConfig(name=vector["network"]), Identity(unhex(vector["secret_seed"]))
    record = ValueRecord.sign(
        who,
        network,
        seq=vector["seq"],
        incarnation=unhex(vector["incarnation"]),
        expires=vector["expires"],
        name=vector["name"],
        value=unhex(vector["value"]),
    )
    assert record.blob.hex() == vector["record"]
    assert record.key.hex() == vector["key"]
    assert value_key(network, who.id, vector["name"]) == record.key
    assert RecordParser(network).parse(unhex(vector["record"]), NOW) == record

    assert signed(vector, 2, [vector["name"], unhex(vector["value"])]).hex() == vector["record"]
    assert blake2b(20, network.network_id + b"\x02" + who.id.key + vector["name"].encode()).hex() == vector["key"]


@vectors("records", "membership")
def test_membership_records(vector: dict[str, Any]) -> None:
    network, who = NetworkConfig(name=vector["network"]), Identity(unhex(vector["secret_seed"]))
    record = MembershipRecord.sign(
        who,
        network,
        seq=vector["seq"],
        incarnation=unhex(vector["incarnation"]),
        expires=vector["expires"],
        topic=vector["topic"],
        status=vector["status"],
        endpoints=tuple(Address(ip, port) for ip, port in vector["endpoints"]),
        data=unhex(vector["data"]),
    )
    assert record.blob.hex() == vector["record"]
    assert record.key.hex() == vector["key"]
    assert topic_key(network, vector["topic"]) == record.key
    assert RecordParser(network).parse(unhex(vector["record"]), NOW) == record
    assert record.is_goodbye == (vector["title"] == "a member that has left")

    packed = [pack_address(Address(ip, port)) for ip, port in vector["endpoints"]]
    fields = [vector["topic"], vector["status"], packed, unhex(vector["data"])]
    assert signed(vector, 3, fields).hex() == vector["record"]
    assert blake2b(20, network.network_id + b"\x03" + vector["topic"].encode()).hex() == vector["key"]


@vectors("records", "places")
def test_places_of_members(vector: dict[str, Any]) -> None:
    seed, who = unhex(vector["seed"]), unhex(vector["identity"])
    assert place_of(seed, who) == vector["place"] == int.from_bytes(blake2b(8, seed + who), "big")


@vectors("records", "accepted")
def test_a_later_minor_version_of_a_record_is_accepted_and_kept(vector: dict[str, str]) -> None:
    parser = RecordParser(make_vectors.NETWORK)
    later, known = parser.parse(unhex(vector["record"]), NOW), parser.parse(unhex(vector["same_as"]), NOW)
    assert later.blob.hex() == vector["record"]
    assert (later.key, later.seq, later.expires, type(later)) == (known.key, known.seq, known.expires, type(known))


@vectors("records", "refused")
def test_refused_records(vector: dict[str, str]) -> None:
    with pytest.raises(RecordError) as caught:
        RecordParser(make_vectors.NETWORK).parse(unhex(vector["record"]), NOW)
    assert caught.value.reason == vector["reason"]


# --- 3. Datagrams ---

OPS = {"Ping": 1, "FindNode": 2, "FindValue": 3, "Store": 4, "Watch": 5, "Notify": 6, "FindMembers": 7}
ANSWERS = {
    "Pong": 1,
    "Found": 2,
    "Stored": 3,
    "NeedCookie": 4,
    "Refused": 5,
    "Watching": 6,
    "Noted": 7,
    "Members": 8,
}


def test_watches_are_packed_as_written() -> None:
    record = make_vectors.presence()
    packed = record.key + make_vectors.SEQ.to_bytes(8, "big") + blake2b(32, record.blob[66:])[:4]
    assert wire.pack_watch(record.key, record) == packed
    assert wire.unpack_watch(packed) == (record.key, make_vectors.SEQ, packed[28:])
    assert wire.pack_watch(record.key, None) == record.key + bytes(12)


@vectors("bodies", "requests", "replies")
def test_bodies(vector: dict[str, Any]) -> None:
    decoder: Any = wire.request_decoder if vector["type"] in OPS else wire.reply_decoder
    read = decode(decoder, unhex(vector["body"]))
    assert type(read).__name__ == vector["type"]
    assert {name: plain(getattr(read, name)) for name in read.__struct_fields__} == vector["fields"]
    assert encode(read).hex() == vector["body"]

    tag = (OPS | ANSWERS)[vector["type"]]
    assert plain(msgspec.msgpack.decode(unhex(vector["body"]))) == [tag, *vector["fields"].values()]


@vectors("bodies", "later requests", "later replies")
def test_a_later_minor_version_of_a_body_is_understood(vector: dict[str, str]) -> None:
    decoder: Any = wire.request_decoder if vector["type"] in OPS else wire.reply_decoder
    later, known = decode(decoder, unhex(vector["body"])), decode(decoder, unhex(vector["same_as"]))
    assert later.minor == 1
    assert msgspec.structs.replace(later, minor=0) == known


@vectors("bodies", "refused requests")
def test_refused_bodies(vector: dict[str, str]) -> None:
    with pytest.raises(WireError):
        decode(wire.request_decoder, unhex(vector["body"]))


@vectors("datagrams", "sealed")
def test_sealed_datagrams(vector: dict[str, Any]) -> None:
    sender, recipient = NodeKey(unhex(vector["sender_secret"])), NodeKey(unhex(vector["recipient_secret"]))
    network_id, nonce, cookie = (unhex(vector[name]) for name in ("network_id", "nonce", "cookie"))
    body, sealed, kind = unhex(vector["body"]), unhex(vector["datagram"]), PacketType[vector["type"]]
    sealer = Sealer(sender, network_id, 1)
    assert sealer.seal(kind, recipient.public, body, nonce, cookie, vector["min_size"]) == sealed
    assert Sealer(recipient, network_id, 1).open(sealed) == Opened(kind, sender.public, cookie, body)
    assert vector["min_size"] <= len(sealed) <= 1232

    # The recipient's side, from docs/wire.md alone.
    start = 74 if cookie else 58
    assert sealed[:2] == bytes([1, kind | (0x80 if cookie else 0)])
    assert sealed[34:58] == nonce
    assert sealed[58:start] == cookie
    pair = sodium.crypto_box_beforenm(sealed[2:34], unhex(vector["recipient_secret"]))
    key = blake2b(32, pair + sender.public + recipient.public + network_id)
    content = nacl.secret.SecretBox(key).decrypt(sealed[start:], nonce)
    assert content[0] == kind
    assert content[3 : 3 + int.from_bytes(content[1:3], "big")] == body
    assert not any(content[3 + len(body) :])


@vectors("datagrams", "refused")
def test_refused_datagrams(vector: dict[str, str]) -> None:
    data = unhex(vector["datagram"])
    if data[0] == 1:  # the major version is the protocol's to look at
        with pytest.raises(WireError):
            Sealer(make_vectors.NODE_B, make_vectors.NETWORK.network_id, 1).open(data)


@virtual
async def test_a_node_drops_the_refused_datagrams_and_counts_them() -> None:
    # The node of the vectors, so that the same bytes would be answered if they were not spoilt.
    world = World()
    home = NetworkConfig(name=make_vectors.NETWORK.name, local=True)
    node = await start_node(world, home, node_key=make_vectors.NODE_B)
    stranger = Stranger(world)
    for vector in FILES["datagrams"]["refused"]:
        before = node.counters.copy()
        stranger.send(unhex(vector["datagram"]), node.addresses[0])
        await asyncio.sleep(1)
        counted = node.counters - before
        assert counted[vector.get("counter", "dht.unreadable")] == 1, vector["title"]
        assert not stranger.heard
    stranger.send(unhex(FILES["datagrams"]["sealed"][0]["datagram"]), node.addresses[0])
    await asyncio.sleep(1)
    assert len(stranger.heard) == 1
    await node.aclose()


@vectors("datagrams", "key")
def test_key_requests(vector: dict[str, str]) -> None:
    network_id, nonce, node_key = (unhex(vector[name]) for name in ("network_id", "nonce", "node_key"))
    request, reply = unhex(vector["request"]), unhex(vector["reply"])
    assert key_request(nonce, network_id) == request
    assert answer_key_request(request, network_id, node_key) == reply
    assert read_key_reply(reply) == (nonce, node_key)
    assert request == b"\x01\x03" + nonce + network_id + bytes(96 - 42)
    assert reply == b"\x01\x04" + nonce + node_key


@vectors("datagrams", "cookie")
def test_cookie_answers(vector: dict[str, str]) -> None:
    request, nonce, cookie, answer = (unhex(vector[name]) for name in ("request", "nonce", "cookie", "answer"))
    assert answer_with_cookie(request, cookie) == answer == b"\x01\x05" + nonce + cookie
    assert read_cookie_answer(answer) == (nonce, cookie)
    assert len(answer) == 42 < len(request)


# --- 5. The seed handshake ---

SEED_TAGS = {"Hello": 1, "Challenge": 2, "Authenticate": 3, "Ok": 4, "Nope": 5}


@vectors("seed", "messages")
def test_seed_messages(vector: dict[str, Any]) -> None:
    read = decode(seed_wire.message_decoder, unhex(vector["message"]))
    assert type(read).__name__ == vector["type"]
    assert {name: plain(getattr(read, name)) for name in read.__struct_fields__} == vector["fields"]
    assert encode(read).hex() == vector["message"]
    raw = plain(msgspec.msgpack.decode(unhex(vector["message"])))
    assert raw == [SEED_TAGS[vector["type"]], *vector["fields"].values()]


@vectors("seed", "later messages")
def test_a_later_minor_version_of_a_seed_message_is_understood(vector: dict[str, str]) -> None:
    later, known = (decode(seed_wire.message_decoder, unhex(vector[name])) for name in ("message", "same_as"))
    assert msgspec.structs.replace(later, minor=0) == known


@vectors("seed", "challenge body")
def test_the_challenge_body(vector: dict[str, Any]) -> None:
    read = decode(seed_wire.body_decoder, unhex(vector["body"]))
    assert {name: plain(getattr(read, name)) for name in read.__struct_fields__} == vector["fields"]
    assert encode(read).hex() == vector["body"]
    assert plain(msgspec.msgpack.decode(unhex(vector["body"]))) == list(vector["fields"].values())


@vectors("seed", "signatures")
def test_signatures_of_the_seed_handshake(vector: dict[str, str]) -> None:
    signer = Identity(unhex(vector["signer_secret_seed"]))
    curve_key, body, signature = (unhex(vector[name]) for name in ("client_curve_key", "challenge_body", "signature"))
    if vector["title"] == "challenge":
        assert seed_wire.sign_challenge(signer, curve_key, body) == signature
        challenge = seed_wire.Challenge(0, body, signature)
        assert seed_wire.verify_challenge(signer.id, curve_key, challenge)
        assert not seed_wire.verify_challenge(signer.id, bytes(32), challenge)
        message = b"atonce challenge v1" + curve_key + body
    else:
        network_id, node_key, seed = (
            unhex(vector["network_id"]),
            unhex(vector["node_key"]),
            PeerId.parse(vector["seed"]),
        )
        assert seed_wire.sign_authenticate(signer, network_id, seed, node_key, body) == signature
        answer = seed_wire.Authenticate(0, node_key, b"", signature)
        assert seed_wire.verify_authenticate(signer.id, network_id, seed, answer, body)
        assert not seed_wire.verify_authenticate(signer.id, network_id, seed, answer, body + b"\0")
        message = b"atonce authenticate v1" + network_id + seed.key + curve_key + node_key + blake2b(32, body)
    assert nacl.signing.SigningKey(unhex(vector["signer_secret_seed"])).sign(message).signature == signature


# --- 6. Messages ---

SPECIALS: dict[str, Any] = {
    "Hello": frames.Hello,
    "Bye": frames.Bye,
    "Held": frames.Held,
    "Window": frames.Window,
}


@vectors("frames", "frames")
def test_frames(vector: dict[str, Any]) -> None:
    messages = [None if message is None else unhex(message) for message in vector["messages"]]
    specials = []
    for special in vector["specials"]:
        fields = {name: value for name, value in special.items() if name != "type"}
        for name in {"record", "yours"} & set(fields):
            fields[name] = unhex(fields[name])
        if "ranges" in fields:
            fields["ranges"] = [(first, count) for first, count in fields["ranges"]]
        specials.append(SPECIALS[special["type"]](**fields))
    head = vector["kind"], vector["seq0"], vector["ack"]
    frame = frames.Frame(*head, messages, specials, vector["unhurried"])
    assert frames.write_frame(frame).hex() == vector["frame"]
    assert frames.read_frame(unhex(vector["frame"])) == frame

    tags = {"Hello": 1, "Bye": 2, "Held": 3, "Window": 4}
    by_hand = [[tags[s["type"]], *(value for name, value in s.items() if name != "type")] for s in vector["specials"]]
    raw = plain(msgspec.msgpack.decode(unhex(vector["frame"])))
    assert raw == [vector["kind"], vector["seq0"], vector["ack"], vector["messages"], by_hand, vector["unhurried"]]


@vectors("frames", "later frames")
def test_a_later_minor_version_of_a_frame_is_understood(vector: dict[str, str]) -> None:
    assert frames.read_frame(unhex(vector["frame"])) == frames.read_frame(unhex(vector["same_as"]))


# --- Durable messages ---


@vectors("durable", "notes")
def test_durable_notes(vector: dict[str, Any]) -> None:
    fields = {name: value for name, value in vector.items() if name not in ("title", "type", "note")}
    for name in {"round", "id", "data"} & set(fields):
        fields[name] = unhex(fields[name])
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (durable.Parcel, durable.Stored, durable.Refused)}
    kinds["Settled"] = durable.Settled
    note = kinds[vector["type"]](**fields)
    assert durable.pack(note).hex() == vector["note"]
    assert durable.unpack(unhex(vector["note"])) == note

    tags = {"Parcel": 1, "Stored": 2, "Refused": 3, "Settled": 4}
    assert msgspec.msgpack.decode(unhex(vector["note"])) == [tags[vector["type"]], *fields.values()]


@vectors("durable", "later notes")
def test_a_later_minor_version_of_a_durable_note_is_understood(vector: dict[str, str]) -> None:
    assert durable.unpack(unhex(vector["note"])) == durable.unpack(unhex(vector["same_as"]))


# --- Requests, streams, files and rooms ---

TAGS: dict[str, dict[str, int]] = {
    "calls": {"Call": 1, "Reply": 2, "Failed": 3, "Cancel": 4},
    "streams": {"Open": 1, "Data": 2, "Credit": 3, "End": 4, "Reset": 5},
    "files": {"Want": 1, "Offer": 2, "Take": 3, "From": 4, "Done": 5, "No": 6},
    "rooms": {
        "Join": 0,
        "ForwardJoin": 1,
        "Neighbour": 2,
        "NeighbourReply": 3,
        "Disconnect": 4,
        "Shuffle": 5,
        "ShuffleReply": 6,
        "Welcome": 7,
        "Say": 8,
        "Have": 9,
        "Want": 10,
        "Prune": 11,
        "Digest": 12,
        "AskRoster": 13,
        "Past": 14,
        "Whisper": 15,
    },
}
"""As docs/wire.md gives them."""


def read_word(data: bytes) -> Any:
    return decode(files.TALK, data)


READERS: dict[str, Callable[[bytes], Any]] = {
    "calls": calls.read,
    "streams": streams.read_message,
    "files": read_word,
    "rooms": rooms.read_message,
}


def of_kinds(group: str) -> pytest.MarkDecorator:
    """Parametrize with a group of vectors of all kinds: the name of the file, and a vector."""
    found = [(name, vector) for name in READERS for vector in FILES[name].get(group, [])]
    return pytest.mark.parametrize(("name", "vector"), found, ids=[f"{name}: {one['title']}" for name, one in found])


def check_message(name: str, vector: dict[str, Any], message: bytes) -> Any:
    """The code reads it as what the vector says, and so does msgpack alone."""
    read = READERS[name](message)
    assert type(read).__name__ == vector["type"]
    assert vectors_of_kinds.plain(read) == vector["fields"]
    raw = plain(msgspec.msgpack.decode(message))
    assert raw == [TAGS[name][vector["type"]], *vector["fields"].values()]
    return read


@of_kinds("messages")
def test_messages_of_kinds(name: str, vector: dict[str, Any]) -> None:
    message = unhex(vector["message"])
    read = check_message(name, vector, message)
    if isinstance(read, streams.Data) and b"\xc6" in message:
        assert streams.write_data(read.mine, read.number, [read.data], len(read.data)) == message
        assert message == encode(read).replace(b"\xc4\x05hello", b"\xc6\0\0\0\x05hello")
    else:
        assert encode(read) == message


def test_there_is_a_vector_of_each_type_of_message() -> None:
    for name, tags in TAGS.items():
        group = "words" if name == "files" else "messages"
        assert {vector["type"] for vector in FILES[name][group]} == set(tags)


@of_kinds("later messages")
def test_a_later_minor_version_of_a_message_is_understood(name: str, vector: dict[str, str]) -> None:
    assert READERS[name](unhex(vector["message"])) == READERS[name](unhex(vector["same_as"]))


@of_kinds("later words")
def test_a_later_minor_version_of_a_word_is_understood(name: str, vector: dict[str, str]) -> None:
    assert READERS[name](unhex(vector["message"])) == READERS[name](unhex(vector["same_as"]))


@of_kinds("refused messages")
def test_refused_messages_of_kinds(name: str, vector: dict[str, str]) -> None:
    with pytest.raises(WireError):
        READERS[name](unhex(vector["message"]))


@of_kinds("words")
def test_words_about_files(name: str, vector: dict[str, Any]) -> None:
    word = unhex(vector["word"])
    assert int.from_bytes(word[:2], "big") == len(word) - 2
    assert encode(check_message(name, vector, word[2:])) == word[2:]


@vectors("rooms", "statements")
def test_statements_in_rooms(vector: dict[str, Any]) -> None:
    who, network = Identity(unhex(vector["secret_seed"])), NetworkConfig(name=vector["network"])
    room, data, signature = (unhex(vector[name]) for name in ("room", "data", "signature"))
    session, stream, seq = vector["session"], vector["stream"], vector["seq"]
    signed = rooms.signed_bytes(network.network_id, room, who.id.key, session, stream, seq, data)
    assert who.sign(signed) == signature
    assert topic_key(network, vector["topic"]) == room
    assert who.id.key.hex() == vector["author"]
    if stream in (rooms.Stream.HERE, rooms.Stream.GONE):
        says = (vector["said"], vector["name"])
        assert rooms.here_of(data) == says
        assert rooms.here_data(*says) == vector["said"].to_bytes(8, "big") + vector["name"].encode() == data
    elif stream == rooms.Stream.SUSPECT:
        about, *numbers = unhex(vector["about"]), vector["its_session"], vector["its_seq"]
        assert rooms.suspect_of(data) == (about, *numbers)
        assert rooms.suspect_data(about, *numbers) == about + b"".join(n.to_bytes(8, "big") for n in numbers) == data

    network_id = blake2b(16, bytes([len(vector["network"])]) + vector["network"].encode())
    when = session.to_bytes(8, "big") + bytes([stream]) + seq.to_bytes(8, "big")
    by_hand = b"atonce room 1" + network_id + room + unhex(vector["author"]) + when + data
    assert nacl.signing.SigningKey(unhex(vector["secret_seed"])).sign(by_hand).signature == signature


@vectors("rooms", "sums")
def test_sums_over_the_members_of_a_room(vector: dict[str, Any]) -> None:
    total = 0
    for author, session, seq in vector["members"]:
        total ^= int.from_bytes(blake2b(8, unhex(author) + session.to_bytes(8, "big") + seq.to_bytes(8, "big")), "big")
    assert total == vector["sum"]
