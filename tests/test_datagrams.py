"""Real UDP behind the datagram seam, on 127.0.0.1 and ::1."""

import asyncio
import ctypes
import errno
import socket
import sys
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dht_atonce import datagrams
from dht_atonce.bulk import bulk_reader
from dht_atonce.datagrams import MAX_DATAGRAM, DatagramSocket, OnDatagram, UdpNet, sift_crowds
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.errors import PortInUse

LOOPBACKS = ["127.0.0.1", "::1"]
OpenSocket = Callable[[str, OnDatagram], DatagramSocket]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=LOOPBACKS)
def loopback(request: pytest.FixtureRequest) -> str:
    ip: str = request.param
    if ":" in ip and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    return ip


class Inbox:
    """Where datagrams go; `next` waits for one."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def __call__(self, data: bytes, source: Address) -> None:
        self._came.put_nowait((data, source))

    async def next(self) -> tuple[bytes, Address]:
        return await asyncio.wait_for(self._came.get(), 5)

    def is_empty(self) -> bool:
        return self._came.empty()


@pytest.fixture
async def sockets() -> AsyncIterator[OpenSocket]:
    opened: list[DatagramSocket] = []

    def open_socket(ip: str, on_datagram: OnDatagram) -> DatagramSocket:
        opened.append(UdpNet().open(Address(ip, 0), on_datagram))
        return opened[-1]

    yield open_socket
    for one in opened:
        one.close()


async def test_a_datagram_and_its_answer(loopback: str, sockets: OpenSocket) -> None:
    to_alice, to_bob = Inbox(), Inbox()
    alice, bob = sockets(loopback, to_alice), sockets(loopback, to_bob)

    alice.send(b"hello", bob.address)
    data, source = await to_bob.next()
    assert (data, source) == (b"hello", alice.address)

    bob.send(b"hello yourself", source)
    assert await to_alice.next() == (b"hello yourself", bob.address)


async def test_an_address_says_where_it_is(loopback: str, sockets: OpenSocket) -> None:
    bound = sockets(loopback, Inbox()).address
    assert isinstance(bound, Address)
    assert bound.ip == loopback
    assert bound.port >= 1024
    assert bound.family is (Family.IPV6 if ":" in loopback else Family.IPV4)


async def test_many_datagrams_at_once_all_arrive_in_order(loopback: str, sockets: OpenSocket) -> None:
    # More than are handled per wake-up of the loop.
    came = Inbox()
    alice, bob = sockets(loopback, Inbox()), sockets(loopback, came)
    for number in range(200):
        alice.send(number.to_bytes(2, "big"), bob.address)
    assert [int.from_bytes((await came.next())[0], "big") for _ in range(200)] == list(range(200))


async def test_others_have_their_turn_in_a_flood(sockets: OpenSocket) -> None:
    # All is in the socket's buffer before the loop looks at it; a timer that is due still comes in between.
    came: list[bytes] = []
    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", lambda data, _: came.append(data))
    for _ in range(600):
        alice.send(b"flood", bob.address)
    seen_at_turn: list[int] = []
    while len(came) < 600:
        await asyncio.sleep(0)
        seen_at_turn.append(len(came))
    assert any(0 < seen < 600 for seen in seen_at_turn)


class Sifter:
    """Remembers what it is shown, and chooses every other one, the last first."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.places: set[bytes] = set()
        self.sizes: list[int] = []

    def __call__(self, heads: list[bytes], places: list[bytes], sizes: list[int]) -> list[int]:
        self.heads += heads
        self.places |= set(places)
        self.sizes += sizes
        return list(range(len(heads)))[::-2]


needs_bulk = pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg is Linux's")


@needs_bulk
async def test_of_a_crowd_only_what_was_chosen_is_read(
    loopback: str, sockets: OpenSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dht_atonce.datagrams._DRAIN_S", 60.0)  # a busy machine may take its time between two of them
    came = Inbox()
    alice, bob = sockets(loopback, Inbox()), sockets(loopback, came)
    sifter = Sifter()
    sift_crowds(bob, sifter)
    for number in range(16 + 64 + 10):
        alice.send(number.to_bytes(1, "big") * (100 + number), bob.address)
    # The first few are no crowd; then batches of 64.
    numbers = [*range(16), *range(79, 16, -2), *range(89, 80, -2)]
    for number in numbers:
        assert await came.next() == (bytes((number,)) * (100 + number), alice.address)
    assert sifter.heads == [bytes((number,)) * 34 for number in range(16, 90)]
    assert sifter.sizes == list(range(116, 190))
    assert sifter.places == {pack_address(alice.address)}
    # All of it was read: what is sent now comes next.
    alice.send(b"next", bob.address)
    assert await came.next() == (b"next", alice.address)


@needs_bulk
async def test_sizes_of_a_crowd_are_those_that_a_single_one_would_have(sockets: OpenSocket) -> None:
    came = Inbox()
    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", came)
    sift_crowds(bob, lambda heads, _, sizes: range(len(heads)))
    for size in [*([1] * 16), 0, 33, MAX_DATAGRAM, MAX_DATAGRAM + 1, 4000, 5]:
        alice.send(bytes(size), bob.address)
    for size in [*([1] * 16), 0, 33, MAX_DATAGRAM, MAX_DATAGRAM + 1, 2048, 5]:
        assert (await came.next())[0] == bytes(size)


async def test_without_the_system_call_a_crowd_is_read_one_by_one(
    sockets: OpenSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "bulk_reader", lambda sock: None)
    came = Inbox()
    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", came)
    sift_crowds(bob, lambda *_: pytest.fail("there is nothing to choose from"))
    for number in range(200):
        alice.send(number.to_bytes(2, "big"), bob.address)
    assert [int.from_bytes((await came.next())[0], "big") for _ in range(200)] == list(range(200))


@needs_bulk
async def test_nothing_of_a_crowd_comes_after_close(sockets: OpenSocket) -> None:
    came: list[bytes] = []
    closed = asyncio.Event()

    def take(data: bytes, _: Address) -> None:
        came.append(data)
        if len(came) == 20:
            bob.close()
            closed.set()

    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", take)
    sift_crowds(bob, lambda heads, *_: range(len(heads)))
    for _ in range(100):
        alice.send(b"crowd", bob.address)
    await asyncio.wait_for(closed.wait(), 5)
    to_alice = Inbox()
    echo = sockets("127.0.0.1", to_alice)
    alice.send(b"last", echo.address)
    await to_alice.next()
    assert len(came) == 20


@needs_bulk
async def test_a_callback_that_fails_loses_nothing_else_of_a_crowd(sockets: OpenSocket) -> None:
    came, problems = Inbox(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))

    def take(data: bytes, source: Address) -> None:
        if data == b"20":
            raise ArithmeticError(data)
        came(data, source)

    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", take)
    sift_crowds(bob, lambda heads, *_: range(len(heads)))
    for number in range(60):
        alice.send(b"%d" % number, bob.address)
    numbers = [int((await came.next())[0]) for _ in range(59)]
    assert numbers == [number for number in range(60) if number != 20]
    assert [repr(problem) for problem in problems] == ["ArithmeticError(b'20')"]


@needs_bulk
@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_where_the_kernel_refuses_the_call_there_is_no_reader(refusal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(refusal)
        return -1

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert bulk_reader(sock) is not None
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(recvmmsg=refuse))
        assert bulk_reader(sock) is None


@needs_bulk
def test_a_batch_of_nothing_is_none_and_a_closed_socket_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        reader = bulk_reader(sock)
        assert reader is not None
        assert not reader.read()
        assert reader.sizes == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.read()


async def test_the_largest_datagram_arrives_and_a_larger_one_shows(loopback: str, sockets: OpenSocket) -> None:
    came = Inbox()
    bob = sockets(loopback, came)
    alice = sockets(loopback, Inbox())
    alice.send(bytes(MAX_DATAGRAM + 1), bob.address)
    alice.send(bytes(4000), bob.address)
    alice.send(bytes(MAX_DATAGRAM), bob.address)
    alice.send(b"last", bob.address)
    # Cut short, but not so short that it would pass for one of ours.
    assert [len((await came.next())[0]) for _ in range(2)] == [MAX_DATAGRAM + 1, 2048]
    assert (await came.next())[0] == bytes(MAX_DATAGRAM)
    assert (await came.next())[0] == b"last"


async def test_an_empty_datagram_is_a_datagram(loopback: str, sockets: OpenSocket) -> None:
    came = Inbox()
    alice, bob = sockets(loopback, Inbox()), sockets(loopback, came)
    alice.send(b"", bob.address)
    assert await came.next() == (b"", alice.address)


async def test_sending_never_raises_for_what_the_network_does(sockets: OpenSocket) -> None:
    came = Inbox()
    alice, bob = sockets("127.0.0.1", Inbox()), sockets("127.0.0.1", came)
    gone = sockets("127.0.0.1", Inbox())
    gone.close()
    alice.send(b"nobody there", gone.address)
    alice.send(b"another family", Address("::1", bob.address.port))
    alice.send(b"no such port", Address("127.0.0.1", 70_000))
    alice.send(b"no such port", Address("127.0.0.1", -1))
    alice.send(b"not for us", Address("255.255.255.255", 4000))
    alice.send(bytes(70_000), bob.address)
    alice.send(b"still there", bob.address)
    assert (await came.next())[0] == b"still there"


async def test_nothing_comes_after_close(loopback: str, sockets: OpenSocket) -> None:
    # Both datagrams wait in the socket when the first is handled.
    came: list[bytes] = []
    done = asyncio.Event()

    def take_one(data: bytes, _: Address) -> None:
        came.append(data)
        bob.close()
        done.set()

    alice, bob = sockets(loopback, Inbox()), sockets(loopback, take_one)
    alice.send(b"one", bob.address)
    alice.send(b"two", bob.address)
    await asyncio.wait_for(done.wait(), 5)
    # A datagram of our own has gone round: whatever was to come has come.
    to_alice = Inbox()
    echo = sockets(loopback, to_alice)
    alice.send(b"three", echo.address)
    await to_alice.next()
    assert came == [b"one"]


async def test_a_closed_socket_sends_nothing_and_closes_twice(loopback: str, sockets: OpenSocket) -> None:
    came = Inbox()
    alice, bob = sockets(loopback, Inbox()), sockets(loopback, came)
    alice.close()
    alice.close()
    alice.send(b"from beyond", bob.address)
    sockets(loopback, Inbox()).send(b"last", bob.address)
    assert (await came.next())[0] == b"last"


async def test_a_port_in_use_is_said(loopback: str, sockets: OpenSocket) -> None:
    bound = sockets(loopback, Inbox()).address
    with pytest.raises(PortInUse) as caught:
        UdpNet().open(bound, Inbox())
    assert str(caught.value) == f"UDP {bound} is in use; choose another port, or 0 for any"


async def test_a_port_is_free_again_after_close(loopback: str, sockets: OpenSocket) -> None:
    first = sockets(loopback, Inbox())
    first.close()
    again = UdpNet().open(first.address, Inbox())
    assert again.address == first.address
    again.close()


async def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(PortInUse, match="no address of this machine"):
        UdpNet().open(Address("192.0.2.1", 0), Inbox())


async def test_both_families_can_have_one_port(sockets: OpenSocket) -> None:
    # An IPv6 socket that also took IPv4 would leave no room for the other (and show IPv4 peers as ::ffff:…).
    if not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    came4, came6 = Inbox(), Inbox()
    four = sockets("0.0.0.0", came4)
    six = UdpNet().open(Address("::", four.address.port), came6)
    try:
        sockets("127.0.0.1", Inbox()).send(b"four", Address("127.0.0.1", four.address.port))
        sockets("::1", Inbox()).send(b"six", Address("::1", six.address.port))
        data4, source4 = await came4.next()
        data6, source6 = await came6.next()
    finally:
        six.close()
    assert (data4, source4.ip) == (b"four", "127.0.0.1")
    assert (data6, source6.ip) == (b"six", "::1")
    assert came4.is_empty()
    assert came6.is_empty()
