"""Who may log in: the caps by themselves, and the ZAP handler between two real contexts."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkRefused
from dht_atonce.identity import Identity
from dht_atonce.links import Link
from dht_atonce.messaging.curve import CurveNet
from dht_atonce.messaging.curve_link import Shared
from dht_atonce.messaging.curve_listener import Listener
from dht_atonce.messaging.pump import Socket
from dht_atonce.messaging.zap import ZAP_DOMAIN, Admission, ZapHandler

HOME = "203.0.113.1"
OTHER = "203.0.113.2"
RNG = random.Random(27)
SERVER = Identity.generate(RNG)
CLIENT = Identity.generate(RNG)


# --- the caps ---


def log_in(admission: Admission, ip: str) -> str:
    admission.on_accepted(ip)
    return admission.admit(ip)


def test_an_address_has_so_many_links_and_others_are_not_its_business() -> None:
    admission = Admission(max_links=10, max_links_per_ip=2)
    assert [log_in(admission, HOME) for _ in range(3)] == ["", "", "address"]
    assert log_in(admission, OTHER) == ""
    assert admission.logins == 3


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_has_no_cap_of_its_own(ip: str) -> None:
    admission = Admission(max_links=10, max_links_per_ip=2)
    assert [log_in(admission, ip) for _ in range(11)] == [""] * 10 + ["full"]


def test_an_address_that_cannot_be_read_is_not_loopback() -> None:
    admission = Admission(max_links=10, max_links_per_ip=1)
    assert [log_in(admission, "what?") for _ in range(2)] == ["", "address"]


def test_the_end_of_a_login_makes_room() -> None:
    admission = Admission(max_links=1, max_links_per_ip=1)
    assert log_in(admission, HOME) == ""
    assert log_in(admission, OTHER) == "full"
    admission.on_ended(OTHER, logged_in=False)
    admission.on_ended(HOME, logged_in=True)
    assert log_in(admission, OTHER) == ""


def test_a_login_that_never_opened_a_link_makes_room_too() -> None:
    admission = Admission(max_links=1, max_links_per_ip=1)
    assert log_in(admission, HOME) == ""
    admission.on_ended(HOME, logged_in=False)
    assert admission.logins == 0
    assert log_in(admission, HOME) == ""


def test_connections_that_have_not_logged_in_take_no_room() -> None:
    admission = Admission(max_links=2, max_links_per_ip=1)
    for _ in range(5000):
        admission.on_accepted(HOME)
    assert log_in(admission, OTHER) == ""


def test_a_connection_that_is_gone_is_not_counted() -> None:
    admission = Admission(max_links=2, max_links_per_ip=1)
    assert admission.admit(HOME) == "gone"
    admission.on_ended(HOME, logged_in=True)
    assert admission.logins == 0


@given(st.lists(st.tuples(st.sampled_from([HOME, OTHER]), st.integers(0, 3), st.integers(0, 30)), max_size=60))
def test_the_count_is_never_too_low_and_comes_back_to_zero(steps: list[tuple[str, int, int]]) -> None:
    """Against what is really there: connections that are only accepted, logged in, or have a link."""
    admission = Admission(max_links=4, max_links_per_ip=3)
    there: list[list[str]] = []  # [address, state]
    for ip, action, which in steps:
        one = there[which % len(there)] if there else None
        if action == 0:
            there.append([ip, "accepted"])
            admission.on_accepted(ip)
        elif one is None:
            continue
        elif action == 1 and one[1] == "accepted" and not admission.admit(one[0]):
            one[1] = "logged in"
        elif action == 2 and one[1] == "logged in":
            one[1] = "linked"
        elif action == 3:
            there.remove(one)
            admission.on_ended(one[0], one[1] == "linked")
        logins = sum(state != "accepted" for _, state in there)
        assert logins <= admission.logins <= len(there)
        assert logins <= 4
        assert all(sum(one[0] == ip and one[1] != "accepted" for one in there) <= 3 for ip in (HOME, OTHER))
    for ip, state in there:
        admission.on_ended(ip, state == "linked")
    assert admission.logins == 0


# --- the handler ---


class Door:
    """A listener whose ZAP handler can be closed by itself."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.context: zmq.Context[Socket] = zmq.Context()
        self.links: list[Link] = []
        self.refreshed = 0
        admission = Admission(1024, 16)
        shared = Shared(self.context, SERVER, LinkConfig(), self.counters, random.Random(1))
        self.listener = Listener(shared, Address("127.0.0.1", 0), self.links.append, admission, 100)
        self.zap = ZapHandler(self.context, admission, self._refresh, self.counters)

    def _refresh(self) -> None:
        self.refreshed += 1
        self.listener.refresh()

    async def ask(self, *request: bytes) -> list[bytes]:
        """Ask as libzmq does."""
        with self.context.socket(zmq.REQ) as sock:
            sock.set(zmq.LINGER, 0)
            sock.set(zmq.RCVTIMEO, 5000)
            sock.connect("inproc://zeromq.zap.01")
            sock.send_multipart(request)
            return await asyncio.to_thread(sock.recv_multipart)

    async def close(self) -> None:
        self.zap.close()
        self.listener.close()
        await asyncio.to_thread(self.context.term)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    yield door
    await door.close()


@pytest.fixture
async def visitor() -> AsyncIterator[CurveNet]:
    net = CurveNet(CLIENT, rng=random.Random(2))
    yield net
    await net.aclose()


async def test_whoever_holds_a_key_gets_in(door: Door, visitor: CurveNet) -> None:
    await visitor.dial(door.listener.address, SERVER.id.curve_key, 5)
    assert [link.curve_key for link in door.links] == [CLIENT.id.curve_key]
    assert door.refreshed == 1


async def test_without_a_handler_nobody_gets_in(door: Door, visitor: CurveNet) -> None:
    door.zap.close()
    with pytest.raises(LinkRefused):
        await visitor.dial(door.listener.address, SERVER.id.curve_key, 5)
    assert door.links == []


VERSION, DOMAIN = b"1.0", ZAP_DOMAIN.encode()
KEY = CLIENT.id.curve_key


@pytest.mark.parametrize(
    "request_",
    [
        [VERSION, b"7", DOMAIN, b"127.0.0.1", b"", b"NULL"],
        [VERSION, b"7", DOMAIN, b"127.0.0.1", b"", b"PLAIN", b"user", b"password"],
        [VERSION, b"7", DOMAIN, b"127.0.0.1", b"", b"PLAIN", bytes(32)],
        [VERSION, b"7", b"elsewhere", b"127.0.0.1", b"", b"CURVE", KEY],
        [VERSION, b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY[:31]],
        [b"2.0", b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY],
        [VERSION],
    ],
)
async def test_what_is_not_curve_in_our_domain_is_refused(door: Door, request_: list[bytes]) -> None:
    version, request_id, status, _, user_id, metadata = await door.ask(*request_)
    assert (version, request_id, status) == (VERSION, request_[1] if len(request_) > 1 else b"", b"400")
    assert (user_id, metadata) == (b"", b"")
    assert door.counters == {"link.refused_mechanism": 1}
    assert door.refreshed == 0


async def test_a_question_without_a_connection_is_refused(door: Door) -> None:
    answer = await door.ask(VERSION, b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY)
    assert answer[2:4] == [b"400", b"gone"]
    assert door.counters == {"link.refused_gone": 1}


async def test_a_bad_question_does_not_silence_the_handler(door: Door, visitor: CurveNet) -> None:
    await door.ask(b"")
    await visitor.dial(door.listener.address, SERVER.id.curve_key, 5)
    assert len(door.links) == 1
