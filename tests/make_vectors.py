"""Writes tests/vectors/*.json: one example of each structure of docs/wire.md, from fixed seeds.

    python tests/make_vectors.py

A vector is a dict of inputs and the bytes that they must become, all of it hex or plain text. Who changes the wire
runs this and sees in the diff what has changed.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
from support import INCARNATION, NOW, identity, node_key, signed_by_hand
from vectors_of_kinds import (
    LATER,
    Vector,
    call_messages,
    durable_notes,
    file_words,
    plain,
    room_messages,
    stream_messages,
)

from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht import wire
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.roster import place_of
from dht_atonce.dht.sealing import (
    MIN_UNPROVED_FIND,
    PacketType,
    Sealer,
    answer_key_request,
    answer_with_cookie,
    key_request,
)
from dht_atonce.discovery import seed_wire
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.identity import node_id
from dht_atonce.messaging import frames
from dht_atonce.records import GONE, MembershipRecord, PresenceRecord, Record, ValueRecord

FOLDER = Path(__file__).parent / "vectors"

ALICE, BOB, SEED = identity(1), identity(2), identity(3)
NODE_A, NODE_B = node_key(1), node_key(2)
NETWORK = NetworkConfig(name="vectors")
CERTIFIED = NetworkConfig(name="vectors", authority_key=identity(4).id.key)
HOME = NetworkConfig.local_network("zu Hause ✓", k=8)

NONCE = bytes(range(24))
COOKIE = bytes(range(0xC0, 0xD0))
REQUEST_ID = bytes.fromhex("0123456789abcdef")
TARGET = bytes(range(20))
IPV4 = Address("192.0.2.7", 4660)
IPV6 = Address("2001:db8::7", 4660)
TIME_MS = NOW * 1000 + 250
EXPIRES = NOW + 3600
SEQ = NOW * 1_000_000


def presence(network: NetworkConfig = NETWORK, **says: Any) -> PresenceRecord:
    return PresenceRecord.sign(ALICE, network, seq=SEQ, incarnation=INCARNATION, expires=EXPIRES, **says)


def value(name: str, data: bytes) -> ValueRecord:
    return ValueRecord.sign(ALICE, NETWORK, seq=SEQ, incarnation=INCARNATION, expires=EXPIRES, name=name, value=data)


def membership(**says: Any) -> MembershipRecord:
    return MembershipRecord.sign(
        ALICE, NETWORK, seq=SEQ, incarnation=INCARNATION, expires=EXPIRES, topic="a room", **says
    )


def names() -> dict[str, list[Vector]]:
    """Section 1."""
    return {
        "peer ids": [
            {
                "secret_seed": who.secret_seed.hex(),
                "key": who.id.key.hex(),
                "curve_key": who.id.curve_key.hex(),
                "text": str(who.id),
            }
            for who in (ALICE, BOB, SEED)
        ],
        "node ids": [
            {
                "secret": node.secret.hex(),
                "public": node.public.hex(),
                "salt": salt.hex(),
                "id": node_id(node.public, salt).hex(),
            }
            for node in (NODE_A, NODE_B)
            for salt in (b"", b"saltsalt")
        ],
        "network ids": [
            {"name": net.name, "authority_key": net.authority_key.hex(), "id": net.network_id.hex()}
            for net in (NETWORK, CERTIFIED, HOME)
        ],
        "addresses": [
            {"ip": address.ip, "port": address.port, "bytes": pack_address(address).hex()} for address in (IPV4, IPV6)
        ],
        "contacts": [
            {
                "key": NODE_A.public.hex(),
                "ip": address.ip,
                "port": address.port,
                "bytes": pack_contact(Contact(NODE_A.public, address)).hex(),
            }
            for address in (IPV4, IPV6)
        ],
    }


def records() -> dict[str, list[Vector]]:
    """Section 2."""
    online = presence(endpoints=(Address("1.1.1.1", 4000), Address("2606:4700::1111", 4001)), capabilities=("relay",))
    gone = presence(status=GONE)
    member = membership(endpoints=(Address("1.1.1.1", 4000),), data=b"flute")
    of_others = [
        {"title": "a newer major version", "record": (b"\x02" + online.blob[1:]).hex(), "reason": "unknown_major"},
        {"title": "an unknown kind", "record": (b"\x01\x04" + online.blob[2:]).hex(), "reason": "unknown_kind"},
        {"title": "of another network", "record": presence(CERTIFIED).blob.hex(), "reason": "bad_signature"},
        {
            "title": "one byte of the payload changed",
            "record": (online.blob[:-1] + bytes([online.blob[-1] ^ 1])).hex(),
            "reason": "bad_signature",
        },
        {"title": "a field is missing", "record": _by_hand(1, _fields(online)[:-1]).hex(), "reason": "malformed"},
        {
            "title": "a membership with more than 128 B of data",
            "record": _by_hand(3, [*_fields(member)[:-1], bytes(129)]).hex(),
            "reason": "malformed",
        },
    ]
    later = [
        {
            "title": f"a later minor version of {title}",
            "record": _by_hand(kind, [1, *_fields(record)[1:], *LATER]).hex(),
            "same_as": record.blob.hex(),
        }
        for title, kind, record in (
            ("a presence", 1, online),
            ("a value", 2, value("name", b"")),
            ("a membership", 3, member),
        )
    ]
    return {
        "presence": [_presence("online", online), _presence("not to be dialled", presence(status="away"))],
        "goodbye": [_presence("goodbye", gone)],
        "value": [
            {
                "title": title,
                "secret_seed": ALICE.secret_seed.hex(),
                "network": NETWORK.name,
                "seq": record.seq,
                "incarnation": record.incarnation.hex(),
                "expires": record.expires,
                "name": record.name,
                "value": record.value.hex(),
                "record": record.blob.hex(),
                "key": record.key.hex(),
            }
            for title, record in (("an int", value("answer", encode(42))), ("a name in UTF-8", value("größe", b"")))
        ],
        "membership": [
            {
                "title": title,
                "secret_seed": ALICE.secret_seed.hex(),
                "network": NETWORK.name,
                "seq": record.seq,
                "incarnation": record.incarnation.hex(),
                "expires": record.expires,
                "topic": record.topic,
                "status": record.status,
                "endpoints": [[endpoint.ip, endpoint.port] for endpoint in record.endpoints],
                "data": record.data.hex(),
                "record": record.blob.hex(),
                "key": record.key.hex(),
            }
            for title, record in (("a member", member), ("a member that has left", membership(status=GONE)))
        ],
        "places": [
            {"seed": seed.hex(), "identity": who.id.key.hex(), "place": place_of(seed, who.id.key)}
            for seed in (bytes(8), bytes(range(8)))
            for who in (ALICE, BOB)
        ],
        "accepted": later,
        "refused": of_others,
    }


def _by_hand(kind: int, fields: list[object]) -> bytes:
    return signed_by_hand(ALICE, kind, encode(fields), NETWORK)


def _fields(record: Record) -> list[object]:
    """The payload of a record, as msgpack reads it."""
    fields: list[object] = msgspec.msgpack.decode(record.blob[66:])
    return fields


def _presence(title: str, record: PresenceRecord) -> Vector:
    return {
        "title": title,
        "secret_seed": ALICE.secret_seed.hex(),
        "network": NETWORK.name,
        "seq": record.seq,
        "incarnation": record.incarnation.hex(),
        "expires": record.expires,
        "status": record.status,
        "endpoints": [[endpoint.ip, endpoint.port] for endpoint in record.endpoints],
        "capabilities": list(record.capabilities),
        "record": record.blob.hex(),
        "key": record.key.hex(),
    }


def bodies() -> dict[str, list[Vector]]:
    """What stands in the box: section 3."""
    record, member, gone = presence().blob, membership().blob, membership(status=GONE).blob
    contact4 = pack_contact(Contact(NODE_A.public, IPV4))
    contact6 = pack_contact(Contact(NODE_A.public, IPV6))
    you4, you6 = pack_address(IPV4), pack_address(IPV6)
    requests: list[wire.Request] = [
        wire.Ping(0, REQUEST_ID, 0),
        wire.Ping(0, REQUEST_ID, wire.FLAG_NO_SEAT),
        wire.FindNode(0, REQUEST_ID, 0, TARGET, 2),
        wire.FindValue(0, REQUEST_ID, 0, TARGET, 0),
        wire.Store(0, REQUEST_ID, 0, record),
        wire.Watch(0, REQUEST_ID, 0, 300, [wire.pack_watch(presence().key, presence()), wire.pack_watch(TARGET, None)]),
        wire.Watch(0, REQUEST_ID, wire.FLAG_NO_SEAT, 0, [wire.pack_watch(TARGET, None)]),
        wire.Notify(0, REQUEST_ID, 0, presence().key, record),
        wire.Notify(0, REQUEST_ID, 0, TARGET, b""),
        wire.FindMembers(0, REQUEST_ID, 0, TARGET, 0, bytes(range(8)), 0),
        wire.FindMembers(0, REQUEST_ID, 0, TARGET, 2, bytes(range(8)), 2**63 + 1),
    ]
    replies: list[wire.Reply] = [
        wire.Pong(0, REQUEST_ID, 0, COOKIE, you4, TIME_MS),
        wire.Pong(0, REQUEST_ID, wire.FLAG_NO_SEAT, b"", you6, TIME_MS),
        wire.Found(0, REQUEST_ID, 0, COOKIE, you4, TIME_MS, [contact4, contact4], [contact6], b""),
        wire.Found(0, REQUEST_ID, 0, COOKIE, you6, TIME_MS, [], [], record),
        wire.Stored(0, REQUEST_ID, 0, b"", you4, TIME_MS, wire.StoreOutcome.STORED, b""),
        wire.Stored(0, REQUEST_ID, 0, b"", you4, TIME_MS, wire.StoreOutcome.NEWER_HELD, record),
        wire.NeedCookie(0, REQUEST_ID, 0, COOKIE, you4, TIME_MS),
        wire.Refused(0, REQUEST_ID, wire.FLAG_NO_SEAT, b"", you4, TIME_MS, wire.Refusal.NOT_HERE),
        wire.Watching(0, REQUEST_ID, 0, b"", you4, TIME_MS, 300, bytes([wire.WATCHED, 0]), [record]),
        wire.Watching(0, REQUEST_ID, 0, COOKIE, you6, TIME_MS, 300, bytes([wire.WATCHED | wire.NEARER]), []),
        wire.Noted(0, REQUEST_ID, 0, COOKIE, you4, TIME_MS, wire.NoteOutcome.NOTED),
        wire.Noted(0, REQUEST_ID, 0, b"", you4, TIME_MS, wire.NoteOutcome.NOT_WATCHED),
        wire.Members(0, REQUEST_ID, 0, COOKIE, you4, TIME_MS, [contact4], [contact6], 2, 0, [member, gone]),
        wire.Members(0, REQUEST_ID, 0, b"", you6, TIME_MS, [], [], 1000, 2**63 + 1, [member]),
    ]
    return {
        "requests": [_body(request) for request in requests],
        "replies": [_body(reply) for reply in replies],
        "later requests": [_later(request) for request in requests],
        "later replies": [_later(reply) for reply in replies],
        "refused requests": [
            {"title": title, "body": encode(fields).hex()}
            for title, fields in (
                ("an operation that is not known", [99, 0, REQUEST_ID, 0]),
                ("a watch that is too short", [5, 0, REQUEST_ID, 0, 300, [bytes(31)]]),
                ("more than 32 watches", [5, 0, REQUEST_ID, 0, 300, [bytes(32)] * 33]),
                ("a lease beyond 16 bits", [5, 0, REQUEST_ID, 0, 1 << 16, []]),
                ("a key that is no id", [6, 0, REQUEST_ID, 0, TARGET[:19], b""]),
                ("a short request id", [1, 0, REQUEST_ID[:7], 0]),
                ("a target that is no id", [2, 0, REQUEST_ID, 0, TARGET[:19], 0]),
                ("a seed that is too short", [7, 0, REQUEST_ID, 0, TARGET, 0, bytes(7), 0]),
                ("a record beyond 512 B", [4, 0, REQUEST_ID, 0, bytes(513)]),
                ("a field is missing", [2, 0, REQUEST_ID, 0, TARGET]),
            )
        ],
    }


def _body(message: wire.Request | wire.Reply) -> Vector:
    return {"type": type(message).__name__, "fields": plain(message), "body": encode(message).hex()}


def _later(message: wire.Request | wire.Reply) -> Vector:
    tag, _, *rest = msgspec.msgpack.decode(encode(message))
    return {
        "type": type(message).__name__,
        "body": encode([tag, 1, *rest, *LATER]).hex(),
        "same_as": encode(message).hex(),
    }


def datagrams() -> dict[str, list[Vector]]:
    """Section 3."""
    alice = Sealer(NODE_A, NETWORK.network_id, 1)
    bob = Sealer(NODE_B, NETWORK.network_id, 1)
    find = encode(wire.FindNode(0, REQUEST_ID, 0, TARGET, 0))
    store = encode(wire.Store(0, REQUEST_ID, 0, presence().blob))
    pong = encode(wire.Pong(0, REQUEST_ID, 0, COOKIE, pack_address(IPV4), TIME_MS))

    def vector(title: str, body: bytes, cookie: bytes = b"", min_size: int = 0) -> Vector:
        return {
            "title": title,
            "type": "REQUEST",
            "sender_secret": NODE_A.secret.hex(),
            "recipient_secret": NODE_B.secret.hex(),
            "network_id": NETWORK.network_id.hex(),
            "nonce": NONCE.hex(),
            "cookie": cookie.hex(),
            "min_size": min_size,
            "body": body.hex(),
            "datagram": alice.seal(PacketType.REQUEST, NODE_B.public, body, NONCE, cookie, min_size).hex(),
        }

    reply: Vector = {
        **vector("a reply", pong),
        "type": "REPLY",
        "sender_secret": NODE_B.secret.hex(),
        "recipient_secret": NODE_A.secret.hex(),
        "datagram": bob.seal(PacketType.REPLY, NODE_A.public, pong, NONCE).hex(),
    }
    asked = key_request(NONCE, NETWORK.network_id)
    plain = bytes.fromhex(vector("", find)["datagram"])
    with_cookie = bytes.fromhex(vector("", store, COOKIE)["datagram"])
    return {
        "sealed": [
            vector("a FIND without a cookie, padded", find, min_size=MIN_UNPROVED_FIND),
            vector("a STORE with a cookie", store, COOKIE),
            vector("an empty body", b""),
            reply,
        ],
        "refused": [
            {"title": "a newer major version", "datagram": (b"\x02" + plain[1:]).hex(), "counter": "dht.unknown_major"},
            {"title": "a reply with a cookie", "datagram": (b"\x01\x82" + with_cookie[2:]).hex()},
            {"title": "an unknown type", "datagram": (b"\x01\x07" + plain[2:]).hex()},
            {"title": "the type changed", "datagram": (b"\x01\x02" + plain[2:]).hex(), "counter": "dht.unasked"},
            {"title": "one bit of the tag", "datagram": (plain[:58] + bytes([plain[58] ^ 1]) + plain[59:]).hex()},
            {"title": "cut", "datagram": plain[:-1].hex()},
        ],
        "key": [
            {
                "network_id": NETWORK.network_id.hex(),
                "nonce": NONCE.hex(),
                "node_key": NODE_B.public.hex(),
                "request": asked.hex(),
                "reply": answer_key_request(asked, NETWORK.network_id, NODE_B.public).hex(),
            }
        ],
        "cookie": [
            {
                "request": plain.hex(),
                "nonce": NONCE.hex(),
                "cookie": COOKIE.hex(),
                "answer": answer_with_cookie(plain, COOKIE).hex(),
            }
        ],
    }


def seed_messages() -> dict[str, list[Vector]]:
    """Section 5."""
    contacts4 = [pack_contact(Contact(NODE_A.public, IPV4))]
    contacts6 = [pack_contact(Contact(NODE_A.public, IPV6))]
    body = encode(
        seed_wire.ChallengeBody(
            0,
            bytes(range(32)),
            NETWORK.name,
            b"",
            20,
            False,
            7200,
            TIME_MS,
            pack_address(IPV4),
            NODE_B.public,
            (4000, 4001),
        )
    )
    challenge = seed_wire.Challenge(0, body, seed_wire.sign_challenge(SEED, ALICE.id.curve_key, body))
    signature = seed_wire.sign_authenticate(ALICE, NETWORK.network_id, SEED.id, NODE_A.public, body)
    messages: list[seed_wire.SeedMessage] = [
        seed_wire.Hello(0, ""),
        seed_wire.Hello(0, NETWORK.name),
        challenge,
        seed_wire.Authenticate(0, NODE_A.public, presence().blob, signature),
        seed_wire.Ok(0, contacts4, contacts6),
        seed_wire.Ok(0, [], []),
        seed_wire.Nope(0, seed_wire.NopeCode.OTHER_NETWORK, "this seed serves another network"),
    ]
    return {
        "challenge body": [{"fields": plain(_challenge_body(body)), "body": body.hex()}],
        "signatures": [
            {
                "title": "challenge",
                "signer_secret_seed": SEED.secret_seed.hex(),
                "client_curve_key": ALICE.id.curve_key.hex(),
                "challenge_body": body.hex(),
                "signature": challenge.signature.hex(),
            },
            {
                "title": "authenticate",
                "signer_secret_seed": ALICE.secret_seed.hex(),
                "client_curve_key": ALICE.id.curve_key.hex(),
                "network_id": NETWORK.network_id.hex(),
                "seed": str(SEED.id),
                "node_key": NODE_A.public.hex(),
                "challenge_body": body.hex(),
                "signature": signature.hex(),
            },
        ],
        "messages": [
            {"type": type(message).__name__, "fields": plain(message), "message": encode(message).hex()}
            for message in messages
        ],
        "later messages": [
            {**_later(message), "message": _later(message)["body"]}  # type: ignore[arg-type]
            for message in messages
        ],
    }


def _challenge_body(body: bytes) -> seed_wire.ChallengeBody:
    return seed_wire.body_decoder.decode(body)


def link_frames() -> dict[str, list[Vector]]:
    """Section 6."""
    hello = frames.Hello(0, presence().blob, b"", 1, 1)
    hello_again = frames.Hello(0, presence().blob, INCARNATION, 5, 2**64 - 1)
    bye = frames.Bye(frames.ByeCode.GOING_AWAY, "see you")
    held = frames.Held([(44, 256), (556, 3)])
    window = frames.Window(1065)
    later_specials = [[99, "what?"], [2, 2, "see you", *LATER]]
    examples = [
        ("hello", frames.Frame(0, 0, 0, [], [hello])),
        ("hello of somebody who remembers", frames.Frame(0, 0, 0, [], [hello_again])),
        ("two messages and an acknowledgement", frames.Frame(0, 7, 41, [b"first", b""], [])),
        ("of another kind, with one withdrawn", frames.Frame(1, 7, 41, [b"first", None, b"third"], [], True)),
        ("an acknowledgement", frames.Frame(0, 0, 2**64 - 1, [], [])),
        ("what is held behind gaps, and for what there is room", frames.Frame(0, 0, 41, [], [held, window])),
        ("goodbye", frames.Frame(0, 0, 41, [], [bye])),
    ]
    return {
        "frames": [
            {
                "title": title,
                "kind": frame.kind,
                "seq0": frame.seq0,
                "ack": frame.ack,
                "messages": [None if message is None else message.hex() for message in frame.messages],
                "specials": [{"type": type(special).__name__, **plain(special)} for special in frame.specials],
                "unhurried": frame.unhurried,
                "frame": frames.write_frame(frame).hex(),
            }
            for title, frame in examples
        ],
        "later frames": [
            {
                "title": "an appended field, an unknown special, and a known one with an appended field",
                "frame": encode([0, 7, 41, [b"first"], later_specials, False, *LATER]).hex(),
                "same_as": frames.write_frame(frames.Frame(0, 7, 41, [b"first"], [bye])).hex(),
            }
        ],
    }


FILES = {
    "names": names,
    "records": records,
    "bodies": bodies,
    "datagrams": datagrams,
    "seed": seed_messages,
    "frames": link_frames,
    "durable": durable_notes,
    "calls": call_messages,
    "streams": stream_messages,
    "files": file_words,
    "rooms": room_messages,
}


def text_of(name: str) -> str:
    """What the file of this name must hold."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
