"""The seed's side of a handshake, as a conversation with newcomers of every kind."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_peers import NETWORK, identity, presence

from atonce_seed.handshake import Admit, Handshake, Reject, Reply, SeedFacts
from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.discovery.seed_wire import (
    Authenticate,
    Challenge,
    ChallengeBody,
    Hello,
    Nope,
    NopeCode,
    Ok,
    body_decoder,
    message_decoder,
    sign_authenticate,
    verify_challenge,
)
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import RecordParser, ValueRecord

SEED, CLIENT, OTHER = identity(1), identity(2), identity(3)
CLIENT_NODE, SEED_NODE = NodeKey(bytes([1] * 32)).public, NodeKey(bytes([2] * 32)).public
SEEN_AT = Address("10.0.0.7", 0)
LIFE_S, WALL = 30.0, 1_800_000_000.25


class Desk:
    """A seed's handshake with one client, and what the client would say."""

    def __init__(
        self,
        client: Identity = CLIENT,
        *,
        network: NetworkConfig = NETWORK,
        remote: Address | None = SEEN_AT,
        proved: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        self.client = client
        self.network = network
        self.proved = proved
        facts = SeedFacts(SEED, network, SEED_NODE, (4710, 0), RecordParser(network))
        self.handshake = Handshake(
            facts,
            client.id.curve_key,
            remote,
            rng or random.Random(7),
            lambda key: self.proved and key == CLIENT_NODE,
            100.0,
            LIFE_S,
        )
        self.body = b""

    def says(self, message: Any, now: float = 100.0) -> Reply | Admit | Reject:
        return self.handshake.on_frame(message if isinstance(message, bytes) else encode(message), now, WALL)

    def challenged(self) -> ChallengeBody:
        """HELLO, and what the seed says of itself."""
        reply = self.says(Hello(0, self.network.name))
        assert isinstance(reply, Reply)
        challenge = decode(message_decoder, reply.data)
        assert isinstance(challenge, Challenge)
        assert verify_challenge(SEED.id, self.client.id.curve_key, challenge)
        self.body = challenge.body
        return decode(body_decoder, challenge.body)

    def answer(self, **changes: Any) -> Authenticate:
        """The right answer to the challenge, but for `changes`."""
        parts: dict[str, Any] = {
            "signer": self.client,
            "network_id": self.network.network_id,
            "seed": SEED.id,
            "node_key": CLIENT_NODE,
            "body": self.body,
            "record": presence(self.client, network=self.network).blob,
            **changes,
        }
        signature = sign_authenticate(
            parts["signer"], parts["network_id"], parts["seed"], parts["node_key"], parts["body"]
        )
        return Authenticate(0, parts["node_key"], parts["record"], signature)


def reason(outcome: Reply | Admit | Reject) -> tuple[int, str]:
    """The code and the counter of a refusal, which goes on the wire as NOPE."""
    assert isinstance(outcome, Reject)
    nope = decode(message_decoder, outcome.data)
    assert isinstance(nope, Nope)
    assert 0 < len(nope.reason.encode()) <= 128
    return nope.code, outcome.counter


# --- the good case ---


def test_a_newcomer_proves_itself_and_is_admitted() -> None:
    desk = Desk()
    desk.challenged()
    outcome = desk.says(desk.answer())
    assert isinstance(outcome, Admit)
    assert outcome.record.peer_id == CLIENT.id
    assert outcome.node_key == CLIENT_NODE


def test_the_challenge_tells_of_the_network_the_seed_and_the_client() -> None:
    network = NetworkConfig("chess", authority_key=bytes(32), k=8, local=True, record_life_s=600)
    body = Desk(network=network).challenged()
    assert (body.network, body.authority_key, body.k, body.local, body.record_life_s) == (
        "chess",
        bytes(32),
        8,
        True,
        600,
    )
    assert body.time_ms == 1_800_000_000_250
    assert body.node_key == SEED_NODE
    assert body.udp_ports == (4710, 0)


@pytest.mark.parametrize(
    ("remote", "you"),
    [
        (Address("10.0.0.7", 0), Address("10.0.0.7", 0xFFFF)),  # ZeroMQ does not tell the port
        (Address("10.0.0.7", 5000), Address("10.0.0.7", 5000)),
        (Address("2001:db8::7", 0), Address("2001:db8::7", 0xFFFF)),
        (None, Address("0.0.0.0", 0xFFFF)),
    ],
)
def test_the_challenge_says_where_the_client_is_seen(remote: Address | None, you: Address) -> None:
    assert Desk(remote=remote).challenged().you == pack_address(you)


def test_no_two_challenges_have_one_nonce() -> None:
    rng = random.Random(7)
    nonces = {Desk(rng=rng).challenged().nonce for _ in range(50)}
    assert len(nonces) == 50


@pytest.mark.parametrize("name", ["", NETWORK.name])
def test_who_names_no_network_or_this_one_is_challenged(name: str) -> None:
    assert isinstance(Desk().says(Hello(0, name)), Reply)


def test_what_a_later_minor_version_says_more_is_ignored() -> None:
    desk = Desk()
    assert isinstance(desk.says([1, 9, "", "and more"]), Reply)


def test_a_record_that_lapsed_still_says_who() -> None:
    # The newcomer's clock may be wrong: it learns the time from this very handshake.
    desk = Desk()
    desk.challenged()
    assert isinstance(desk.says(desk.answer(record=presence(CLIENT, expires=1).blob)), Admit)


# --- no ---


def test_another_network_is_refused_by_name() -> None:
    outcome = Desk().says(Hello(0, "elsewhere"))
    assert reason(outcome) == (NopeCode.OTHER_NETWORK, "seed.other_network")
    assert isinstance(outcome, Reject)
    assert b"'test'" in outcome.data


@pytest.mark.parametrize("name", ["x" * 64, "\x00" * 64, "é" * 32, "\U0001f600" * 16, "\x80" * 32], ids=len)
def test_the_refusal_fits_whatever_the_network_s_name_is(name: str) -> None:
    assert reason(Desk(network=NetworkConfig(name, local=True)).says(Hello(0, "elsewhere")))[0] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"signer": OTHER},
        {"network_id": NetworkConfig.local_network("elsewhere").network_id},
        {"seed": OTHER.id},
        {"body": b"another challenge"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_signature_over_anything_else_does_not_hold(changes: dict[str, Any]) -> None:
    desk = Desk()
    desk.challenged()
    assert reason(desk.says(desk.answer(**changes))) == (NopeCode.PROOF_FAILED, "seed.bad_signature")


def test_a_node_key_that_was_not_signed_is_refused() -> None:
    desk = Desk()
    desk.challenged()
    right = desk.answer()
    outcome = desk.says(Authenticate(0, NodeKey(bytes([9] * 32)).public, right.record, right.signature))
    assert reason(outcome) == (NopeCode.PROOF_FAILED, "seed.bad_signature")


def test_an_answer_to_another_challenge_is_refused() -> None:
    # What a client said to the seed once, somebody shows again on a link of his own, with the client's curve key even.
    rng = random.Random(7)
    first, second = Desk(rng=rng), Desk(rng=rng)
    first.challenged()
    answer = first.answer()
    assert isinstance(first.says(answer), Admit)
    second.challenged()
    assert reason(second.says(answer)) == (NopeCode.PROOF_FAILED, "seed.bad_signature")


def test_a_record_of_somebody_else_is_refused() -> None:
    desk = Desk()
    desk.challenged()
    foreign = desk.answer(record=presence(OTHER).blob, signer=OTHER)
    assert reason(desk.says(foreign)) == (NopeCode.PROOF_FAILED, "seed.foreign_record")


def test_a_record_that_is_none_is_refused() -> None:
    value = ValueRecord.sign(
        CLIENT, NETWORK, seq=1, incarnation=bytes(8), expires=int(WALL) + 60, name="motto", value=b"\xc0"
    )
    elsewhere = presence(CLIENT, network=NetworkConfig.local_network("elsewhere"))
    for blob in [b"", b"\x01", value.blob, elsewhere.blob, presence(CLIENT).blob[:-1]]:
        desk = Desk()
        desk.challenged()
        assert reason(desk.says(desk.answer(record=blob))) == (NopeCode.PROOF_FAILED, "seed.bad_record")


def test_an_address_that_was_not_proved_is_refused() -> None:
    desk = Desk(proved=False)
    desk.challenged()
    assert reason(desk.says(desk.answer())) == (NopeCode.ADDRESS_NOT_PROVED, "seed.not_proved")


def test_too_late_is_too_late() -> None:
    desk = Desk()
    desk.challenged()
    answer = desk.answer()
    assert reason(desk.says(answer, now=100.0 + LIFE_S + 0.1)) == (NopeCode.TOO_LATE, "seed.too_late")
    desk = Desk()
    assert reason(desk.says(Hello(0, ""), now=1000.0)) == (NopeCode.TOO_LATE, "seed.too_late")


def test_just_in_time_is_in_time() -> None:
    desk = Desk()
    desk.challenged()
    assert isinstance(desk.says(desk.answer(), now=100.0 + LIFE_S), Admit)


# --- out of turn ---

CHALLENGE, OK, NOPE = Challenge(0, b"", bytes(64)), Ok(0, [], []), Nope(0, 1, "no, you")
OUT_OF_TURN = (NopeCode.NOT_UNDERSTOOD, "seed.out_of_turn")


@pytest.mark.parametrize("message", [CHALLENGE, OK, NOPE, "authenticate"], ids=lambda m: type(m).__name__)
def test_hello_comes_first(message: Any) -> None:
    desk = Desk()
    assert reason(desk.says(desk.answer() if message == "authenticate" else message)) == OUT_OF_TURN
    assert reason(desk.says(Hello(0, ""))) == OUT_OF_TURN  # it had its chance


@pytest.mark.parametrize("message", [CHALLENGE, OK, NOPE, Hello(0, "")], ids=lambda m: type(m).__name__)
def test_the_answer_comes_second(message: Any) -> None:
    desk = Desk()
    desk.challenged()
    assert reason(desk.says(message)) == OUT_OF_TURN
    assert reason(desk.says(desk.answer())) == OUT_OF_TURN


def test_there_is_one_answer_to_a_challenge() -> None:
    desk = Desk()
    desk.challenged()
    wrong = desk.answer(signer=OTHER)
    assert reason(desk.says(wrong)) == (NopeCode.PROOF_FAILED, "seed.bad_signature")
    assert reason(desk.says(desk.answer())) == OUT_OF_TURN


def test_nobody_is_admitted_twice() -> None:
    desk = Desk()
    desk.challenged()
    answer = desk.answer()
    assert isinstance(desk.says(answer), Admit)
    assert reason(desk.says(answer)) == OUT_OF_TURN


# --- garbage ---


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.booleans())
def test_garbage_is_refused_and_raises_nothing(frames: list[bytes], challenged: bool) -> None:
    desk = Desk()
    if challenged:
        desk.challenged()
    for frame in frames:
        assert isinstance(desk.says(frame), Reject | Reply)


@given(st.data())
def test_a_right_answer_with_a_byte_changed_is_refused(data: st.DataObject) -> None:
    desk = Desk()
    desk.challenged()
    raw = bytearray(encode(desk.answer()))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    outcome = desk.says(bytes(raw))
    # But for the minor version, which an old seed does not need to know.
    assert isinstance(outcome, Reject) or at == 2


@pytest.mark.parametrize("frame", [b"", b"\xc1", encode([1]), encode([7, 0]), encode({"hello": 1}), b"\x91" * 5000])
def test_what_cannot_be_read_is_not_understood(frame: bytes) -> None:
    assert reason(Desk().says(frame)) == (NopeCode.NOT_UNDERSTOOD, "seed.not_understood")
