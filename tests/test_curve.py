"""Links over CURVE: conversations between two real nets on the loopback, and strangers who disturb them."""

import asyncio
import ctypes
import os
import random
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import zmq

from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError, LinkRefused, MessageTooLarge, PortInUse
from dht_atonce.identity import Identity
from dht_atonce.links import Link, LinkPort
from dht_atonce.messaging.curve import CurveNet, system_host
from dht_atonce.messaging.curve_link import Shared
from dht_atonce.messaging.curve_listener import Listener, _InboundLink, first_routing_id
from dht_atonce.messaging.pump import Socket
from dht_atonce.messaging.zap import Admission

RNG = random.Random(9)
SERVER, CLIENT, STRANGER = (Identity.generate(RNG) for _ in range(3))
LOCAL = Address("127.0.0.1", 0)
OPEN = b"\x01"
WAIT_S = 5.0
QUICK = LinkConfig(handshake_s=0.2)


class Watched(Counter[str]):
    """Counters that one can wait for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        super().__init__()

    def __setitem__(self, name: str, value: int) -> None:
        super().__setitem__(name, value)
        self._changed.set()

    async def reach(self, name: str, value: int = 1) -> None:
        async with asyncio.timeout(WAIT_S):
            while self[name] < value:
                self._changed.clear()
                await self._changed.wait()


class End:
    """One end of a link, in use."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link.start(self._frames.put_nowait, self._closed.set_result)

    async def next(self) -> bytes:
        return await asyncio.wait_for(self._frames.get(), WAIT_S)

    async def closed(self) -> str:
        return await asyncio.wait_for(asyncio.shield(self._closed), WAIT_S)

    def is_idle(self) -> bool:
        return self._frames.empty() and not self._closed.done()


class Door:
    """A net that listens and starts each link at once."""

    def __init__(self, net: CurveNet, counters: Watched, bind: Address = LOCAL) -> None:
        self.net = net
        self.counters = counters
        self._came: asyncio.Queue[End] = asyncio.Queue()
        self.port: LinkPort = net.listen(bind, lambda link: self._came.put_nowait(End(link)))
        self.address = self.port.address

    async def next(self) -> End:
        return await asyncio.wait_for(self._came.get(), WAIT_S)

    def is_quiet(self) -> bool:
        return self._came.empty()


NewNet = Callable[..., CurveNet]
NewDoor = Callable[..., Door]


@pytest.fixture
async def new_net() -> AsyncIterator[NewNet]:
    nets: list[CurveNet] = []

    def make(identity: Identity = CLIENT, config: LinkConfig | None = None, **more: Any) -> CurveNet:
        nets.append(CurveNet(identity, config, rng=random.Random(len(nets)), **more))
        return nets[-1]

    yield make
    for net in nets:
        await net.aclose()


@pytest.fixture
def new_door(new_net: NewNet) -> NewDoor:
    def make(config: LinkConfig | None = None, bind: Address = LOCAL) -> Door:
        counters = Watched()
        return Door(new_net(SERVER, config, counters=counters), counters, bind)

    return make


async def until(holds: Callable[[], bool]) -> None:
    """For what has no event of its own: ask once in each turn of the loop."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def converse(net: CurveNet, door: Door) -> tuple[End, End]:
    """Dial and speak once in both directions: the honest link. Gives the dialler's end and the door's."""
    here = End(await net.dial(door.address, SERVER.id.curve_key, WAIT_S))
    there = await door.next()
    assert here.link.send(b"question")
    assert await there.next() == b"question"
    assert there.link.send(b"answer")
    assert await here.next() == b"answer"
    return here, there


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# --- two honest nets ---


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_both_ends_know_each_other(ip: str, new_net: NewNet, new_door: NewDoor) -> None:
    if ":" in ip and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    door = new_door(bind=Address(ip, 0))
    assert door.address.ip == ip
    assert door.address.port != 0
    here, there = await converse(new_net(), door)
    assert (here.link.curve_key, there.link.curve_key) == (SERVER.id.curve_key, CLIENT.id.curve_key)
    assert (here.link.outbound, there.link.outbound) == (True, False)
    assert here.link.remote == door.address
    assert there.link.remote is not None
    assert there.link.remote.ip == ip
    assert there.link.remote.port not in (0, door.address.port)
    assert door.counters == {}


async def test_both_directions_keep_the_order(new_net: NewNet, new_door: NewDoor) -> None:
    here, there = await converse(new_net(), new_door())
    sent = [b"%d" % n for n in range(3000)]
    for start in range(0, len(sent), 100):  # a link's queue holds 256
        part = sent[start : start + 100]
        for body in part:
            assert here.link.send(body)
            assert there.link.send(body)
        assert [await there.next() for _ in part] == part
        assert [await here.next() for _ in part] == part


async def test_both_families_share_a_port_number(new_net: NewNet, new_door: NewDoor) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    door = new_door(bind=Address("0.0.0.0", 0))
    port = door.address.port
    other = Door(door.net, door.counters, Address("::", port))
    net = new_net()
    for ip, which in (("127.0.0.1", door), ("::1", other)):
        await net.dial(Address(ip, port), SERVER.id.curve_key, WAIT_S)
        there = await which.next()
        assert there.link.remote is not None
        assert there.link.remote.ip == ip


async def test_the_largest_body_passes_and_a_larger_one_does_not(new_net: NewNet, new_door: NewDoor) -> None:
    here, there = await converse(new_net(), new_door())
    assert here.link.send(bytes(253_952))
    assert await there.next() == bytes(253_952)
    for end in (here, there):
        with pytest.raises(MessageTooLarge, match="253952"):
            end.link.send(bytes(253_953))
        with pytest.raises(ValueError, match="at least one byte"):
            end.link.send(b"")
    assert here.is_idle()
    assert there.is_idle()


async def test_the_dialler_closes(new_net: NewNet, new_door: NewDoor) -> None:
    here, there = await converse(new_net(), new_door())
    here.link.send(b"last words")
    here.link.close()
    assert await there.next() == b"last words"
    assert await there.closed() == "closed by the other side"
    assert there.link.is_closed
    assert not there.link.send(b"too late")
    assert not here.link.send(b"too late")
    here.link.close()
    there.link.close()
    assert here.is_idle()


async def test_the_listener_closes(new_net: NewNet, new_door: NewDoor) -> None:
    here, there = await converse(new_net(), new_door())
    there.link.send(b"last words")
    there.link.close()
    assert await here.next() == b"last words"
    assert await here.closed() == "closed by the other side"
    assert here.link.is_closed
    assert there.is_idle()


async def test_a_port_that_closes_takes_its_links_along(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    here, there = await converse(new_net(), door)
    sent = [bytes([n]) * 60_000 for n in range(50)]
    for body in sent:
        assert there.link.send(body)
    door.port.close()
    door.port.close()
    assert [await here.next() for _ in sent] == sent
    assert await here.closed() == "closed by the other side"
    assert there.link.is_closed
    assert there.is_idle()


async def test_a_net_that_closes_says_goodbye_and_sends_what_waits(new_net: NewNet, new_door: NewDoor) -> None:
    net, door = new_net(), new_door()
    here, there = await converse(net, door)
    sent = [b"%d" % n for n in range(200)]
    for body in sent:
        assert here.link.send(body)
    await net.aclose()
    assert [await there.next() for _ in sent] == sent
    assert await there.closed() == "closed by the other side"


async def test_a_closed_net_does_nothing_more(new_net: NewNet) -> None:
    net = new_net()
    await asyncio.gather(net.aclose(), net.aclose())
    with pytest.raises(LinkError, match="closed"):
        await net.dial(Address("127.0.0.1", 9999), SERVER.id.curve_key, 1)
    with pytest.raises(LinkError, match="closed"):
        net.listen(LOCAL, lambda link: None)


async def test_what_comes_before_start_is_kept(new_net: NewNet) -> None:
    server = new_net(SERVER)

    def speak_and_go(link: Link) -> None:
        link.start(lambda body: None, lambda reason: None)
        for body in (b"1", b"2", b"3"):
            link.send(body)
        link.close()

    port = server.listen(LOCAL, speak_and_go)
    link = await new_net().dial(port.address, SERVER.id.curve_key, WAIT_S)
    await until(lambda: link.is_closed)
    end = End(link)
    assert [await end.next() for _ in range(3)] == [b"1", b"2", b"3"]
    assert await end.closed() == "closed by the other side"
    with pytest.raises(RuntimeError, match="once"):
        end.link.start(lambda body: None, lambda reason: None)


async def test_a_link_that_nobody_starts_is_bounded(new_net: NewNet) -> None:
    counters = Watched()
    inbound: list[Link] = []
    port = new_net(SERVER, counters=counters).listen(LOCAL, inbound.append)
    here = End(await new_net().dial(port.address, SERVER.id.curve_key, WAIT_S))
    for _ in range(100):
        here.link.send(b"x")
    await counters.reach("link.early_overflow")
    assert inbound[0].is_closed


async def test_a_callback_that_fails_harms_nobody_else(new_net: NewNet) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    ends: list[End] = []

    def on_link(link: Link) -> None:
        ends.append(End(link))
        raise ValueError("on_link")

    port = new_net(SERVER).listen(LOCAL, on_link)
    link = await new_net().dial(port.address, SERVER.id.curve_key, WAIT_S)
    done = asyncio.Event()

    def on_frame(body: bytes) -> None:
        if body == b"last":
            done.set()
        raise ValueError(body.decode())

    link.start(on_frame, lambda reason: None)
    for body in (b"1", b"2", b"last"):
        ends[0].link.send(body)
    await asyncio.wait_for(done.wait(), WAIT_S)
    await asyncio.sleep(0)
    assert failures == ["on_link", "1", "2", "last"]


async def test_200_redials_leave_no_deaf_link(new_net: NewNet, new_door: NewDoor) -> None:
    net, door = new_net(), new_door()
    for n in range(200):
        here, there = await converse(net, door)
        closer, other = (here, there) if n % 2 else (there, here)
        closer.link.close()
        await other.closed()
    assert door.is_quiet()


async def test_nothing_is_left_of_closed_nets(new_net: NewNet, new_door: NewDoor) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))

    tasks, before = asyncio.all_tasks(), open_files()
    for _ in range(3):
        net, door = new_net(), new_door()
        for _ in range(10):
            here, _ = await converse(net, door)
        here.link.close()
        await door.net.aclose()
        await net.aclose()
    assert asyncio.all_tasks() == tasks
    # The default executor's thread and its descriptors come with the first aclose and stay.
    assert open_files() <= before + 2


# --- dials that come to nothing ---


async def test_another_key_is_refused_at_once(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    async with asyncio.timeout(2):
        with pytest.raises(LinkRefused, match="key"):
            await new_net().dial(door.address, STRANGER.id.curve_key, 60)
    assert door.is_quiet()
    await door.counters.reach("link.never_opened")
    await converse(new_net(), door)


async def test_a_key_that_is_none_is_refused_at_once(new_net: NewNet, new_door: NewDoor) -> None:
    net, door = new_net(), new_door()
    async with asyncio.timeout(2):
        with pytest.raises(LinkRefused):
            await net.dial(door.address, bytes(32), 60)


async def test_nobody_there_is_known_at_once(new_net: NewNet) -> None:
    with socket.socket() as unused:
        unused.bind(LOCAL)
        async with asyncio.timeout(2):
            with pytest.raises(LinkError, match="nobody listens") as raised:
                await new_net().dial(Address(*unused.getsockname()), SERVER.id.curve_key, 60)
    assert not isinstance(raised.value, LinkRefused)


async def test_a_server_of_another_kind_refuses(new_net: NewNet) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, *LOCAL) as server:
        address = Address(*server.sockets[0].getsockname())
        with pytest.raises(LinkRefused):
            await new_net().dial(address, SERVER.id.curve_key, WAIT_S)


async def test_silence_is_a_timeout(new_net: NewNet) -> None:
    net = new_net(config=QUICK)
    with socket.socket() as silent:
        silent.bind(LOCAL)
        silent.listen()
        with pytest.raises(LinkError, match=r"0\.4 s") as raised:
            await net.dial(Address(*silent.getsockname()), SERVER.id.curve_key, 0.4)
        assert not isinstance(raised.value, LinkRefused)
        dial = asyncio.create_task(net.dial(Address(*silent.getsockname()), SERVER.id.curve_key, 60))
        await asyncio.sleep(0)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        dial = asyncio.create_task(net.dial(Address(*silent.getsockname()), SERVER.id.curve_key, 60))
        await asyncio.sleep(0)
        await net.aclose()
        with pytest.raises(LinkError, match="closed"):
            await dial


@pytest.mark.parametrize("address", [Address("127.0.0.1", 0), Address("nowhere", 1), Address("127.0.0.1", 70000)])
async def test_an_address_that_is_none_is_an_error(address: Address, new_net: NewNet) -> None:
    with pytest.raises(LinkError):
        await new_net().dial(address, SERVER.id.curve_key, 1)


async def test_a_key_of_another_length_is_an_error(new_net: NewNet, new_door: NewDoor) -> None:
    with pytest.raises(LinkError, match="cannot be dialled"):
        await new_net().dial(new_door().address, bytes(31), 1)


async def test_too_many_dials_are_an_error_and_harm_nothing(new_net: NewNet, new_door: NewDoor) -> None:
    net, door = new_net(config=LinkConfig(max_links=1)), new_door()
    ends = []
    with pytest.raises(LinkError, match=r"no socket left|Too many open files"):  # noqa: PT012
        for _ in range(100):
            ends.append(await converse(net, door))
    assert len(ends) >= 10
    for here, there in ends:
        here.link.close()
        await there.closed()
    async with asyncio.timeout(WAIT_S):
        while True:
            with suppress(LinkError):
                await converse(net, door)
                break
            await asyncio.sleep(0)


async def test_a_port_in_use(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    with pytest.raises(PortInUse, match=f"TCP {door.address} is in use; choose another port, or 0 for any"):
        new_net().listen(door.address, lambda link: None)
    with pytest.raises(PortInUse, match="no address of this machine"):
        new_net().listen(Address("203.0.113.1", 0), lambda link: None)
    with pytest.raises(PortInUse, match="cannot be bound"):
        new_net().listen(Address("127.0.0.1", 70000), lambda link: None)


async def test_who_is_full_refuses_until_there_is_room(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door(LinkConfig(max_links=1))
    net = new_net()
    here, there = await converse(net, door)
    with pytest.raises(LinkRefused, match="full"):
        await net.dial(door.address, SERVER.id.curve_key, WAIT_S)
    assert door.counters["link.refused_full"] == 1
    here.link.close()
    await there.closed()
    async with asyncio.timeout(WAIT_S):
        while True:
            with suppress(LinkRefused):
                await converse(net, door)
                break


# --- connections that end without a word ---


class Wire:
    """Carries TCP between a dialler and a door, until it is cut or freezes."""

    def __init__(self, to: Address) -> None:
        self._to = to
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.address: Address

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, *LOCAL)
        self.address = Address(*self._server.sockets[0].getsockname())
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        self._writers += [writer, there_writer]
        for source, to in ((reader, there_writer), (there_reader, writer)):
            self._tasks.append(asyncio.create_task(self._carry(source, to)))

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._flowing.wait()
                to.write(data)
                await to.drain()
            to.close()

    def freeze(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close()
        await self._server.wait_closed()


async def converse_over(wire: Wire, net: CurveNet, door: Door) -> tuple[End, End]:
    here = End(await net.dial(wire.address, SERVER.id.curve_key, WAIT_S))
    return here, await door.next()


async def test_both_ends_notice_a_cut(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    async with Wire(door.address) as wire:
        here, there = await converse_over(wire, new_net(), door)
        wire.cut()
        assert await here.closed() == "the connection is lost"
        assert await there.closed() == "the connection is lost"
    assert not here.link.send(b"too late")
    assert not there.link.send(b"too late")
    await converse(new_net(), door)


async def test_both_ends_notice_silence(new_net: NewNet, new_door: NewDoor) -> None:
    impatient = LinkConfig(heartbeat_s=0.05, timeout_s=0.3)
    door = new_door(impatient)
    async with Wire(door.address) as wire:
        here, there = await converse_over(wire, new_net(config=impatient), door)
        wire.freeze()
        assert await here.closed() == "the connection is lost"
        assert await there.closed() == "the connection is lost"


async def test_a_full_queue_says_so_and_other_links_go_on(new_net: NewNet, new_door: NewDoor) -> None:
    small = LinkConfig(high_water_mark=10)
    net, door = new_net(config=small), new_door(small)
    async with Wire(door.address) as wire:
        here, there = await converse_over(wire, net, door)
        wire.freeze()
        await until(lambda: not here.link.send(bytes(60_000)))
        await until(lambda: not there.link.send(bytes(60_000)))
        assert not here.link.is_closed
        assert not there.link.is_closed
        await converse(net, door)


# --- strangers ---


class Raw:
    """A dialler that does as it likes, over a CURVE connection of its own."""

    def __init__(self, to: Address, routing_id: bytes = b"", *, curve: bool = True) -> None:
        self._context: zmq.Context[Socket] = zmq.Context()
        self.sock = self._context.socket(zmq.DEALER)
        self.sock.set(zmq.RCVTIMEO, 5000)
        self.sock.set(zmq.SNDTIMEO, 5000)
        self.sock.set(zmq.LINGER, 0)
        self.sock.set(zmq.RECONNECT_IVL, -1)
        if routing_id:
            self.sock.set(zmq.ROUTING_ID, routing_id)
        if curve:
            self.sock.set(zmq.CURVE_SERVERKEY, SERVER.id.curve_key)
            self.sock.set(zmq.CURVE_PUBLICKEY, STRANGER.id.curve_key)
            self.sock.set(zmq.CURVE_SECRETKEY, STRANGER.curve_secret)
        self._monitor = self.sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitor.set(zmq.RCVTIMEO, 5000)
        self.sock.connect(f"tcp://{to}")

    async def receive(self) -> list[bytes]:
        return await asyncio.to_thread(self.sock.recv_multipart)

    async def open(self) -> bytes:
        """Open a link as docs/wire.md says; gives its token."""
        self.sock.send(OPEN)
        (opened,) = await self.receive()
        assert len(opened) == 9
        assert opened[8:] == OPEN
        return opened[:8]

    async def hung_up(self) -> None:
        """Wait until the other side has ended the connection."""
        await asyncio.to_thread(self._monitor.recv_multipart)

    def vanish(self) -> None:
        if not self.sock.closed:
            self.sock.disable_monitor()
        self._context.destroy(linger=0)


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(*args: Any, **kwargs: Any) -> Raw:
        made.append(Raw(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.vanish()


NewRaw = Callable[..., Raw]


async def test_the_specification_is_enough_to_talk_to_us(raw: NewRaw, new_door: NewDoor) -> None:
    door = new_door()
    stranger = raw(door.address)
    token = await stranger.open()
    there = await door.next()
    assert there.link.curve_key == STRANGER.id.curve_key
    stranger.sock.send(token + b"question")
    assert await there.next() == b"question"
    there.link.send(b"answer")
    assert await stranger.receive() == [token + b"answer"]
    there.link.close()
    assert await stranger.receive() == [token]


async def test_a_dialler_that_vanishes_is_noticed(raw: NewRaw, new_door: NewDoor) -> None:
    door = new_door()
    stranger = raw(door.address)
    token = await stranger.open()
    there = await door.next()
    stranger.sock.send(token + b"last words")
    assert await there.next() == b"last words"
    stranger.vanish()
    assert await there.closed() == "the connection is lost"


@pytest.mark.parametrize(
    ("message", "counter"),
    [
        ([b"\x02"], "link.not_open"),
        ([b""], "link.not_open"),
        ([bytes(8) + b"body"], "link.not_open"),
        ([OPEN, b""], "link.multipart"),
        ([OPEN, b"", b"x", b"y"], "link.multipart"),
    ],
)
async def test_what_is_not_open_opens_nothing(
    message: list[bytes], counter: str, raw: NewRaw, new_net: NewNet, new_door: NewDoor
) -> None:
    door = new_door()
    stranger = raw(door.address)
    stranger.sock.send_multipart(message)
    await door.counters.reach(counter)
    if counter == "link.not_open":
        await stranger.hung_up()
    assert door.is_quiet()
    await converse(new_net(), door)


async def test_garbage_over_an_open_link_is_dropped(raw: NewRaw, new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    here, honest = await converse(new_net(), door)
    stranger = raw(door.address)
    token = await stranger.open()
    there = await door.next()
    for message in (
        [OPEN],  # a second one
        [b""],
        [token[:7]],
        [bytes(20)],
        [token + b"one", token + b"two"],
        [token, b"", b""],
        [token + bytes(253_953)],
        [token + b"the end"],
    ):
        stranger.sock.send_multipart(message)
    assert await there.next() == b"the end"
    assert door.counters == {"link.bad_token": 4, "link.multipart": 2, "link.too_large": 1}
    assert there.is_idle()
    assert honest.is_idle()
    here.link.send(b"still here")
    assert await honest.next() == b"still here"


async def test_a_message_beyond_all_bounds_ends_the_connection(raw: NewRaw, new_door: NewDoor) -> None:
    door = new_door()
    stranger = raw(door.address)
    token = await stranger.open()
    there = await door.next()
    stranger.sock.send(token + bytes(270_000))
    assert await there.closed() == "the connection is lost"


@pytest.mark.parametrize("routing_id", [b"me", b"\x00abcd", b"\x00", bytes(5), b"\x00" + bytes(200)])
async def test_whoever_sets_a_routing_id_is_cut(
    routing_id: bytes, raw: NewRaw, new_net: NewNet, new_door: NewDoor
) -> None:
    door = new_door()
    stranger = raw(door.address, routing_id)
    stranger.sock.send(OPEN)
    await door.counters.reach("link.routing_id_set")
    await stranger.hung_up()
    assert door.is_quiet()
    await converse(new_net(), door)


async def test_claiming_the_routing_ids_that_are_next_kills_nobody(
    raw: NewRaw, new_net: NewNet, new_door: NewDoor
) -> None:
    """libzmq aborts the process if the id that it gives next is taken, and it counts from rand() without a seed."""
    libc = ctypes.CDLL(None)
    context: zmq.Context[Socket] = zmq.Context()
    unhidden = []
    for _ in range(2):
        libc.srand(1)
        with context.socket(zmq.ROUTER) as router:
            unhidden.append(first_routing_id(router))
    context.term()
    assert unhidden[0] == unhidden[1]  # the control: what happens without us

    libc.srand(1)
    twin = new_door().port
    libc.srand(1)
    door = new_door()
    assert isinstance(twin, Listener)
    for n in range(10):
        claimed = twin.first_id + 1 + n & 0xFFFFFFFF
        raw(door.address, b"\x00" + claimed.to_bytes(4, "big")).sock.send(OPEN)
    await door.counters.reach("link.routing_id_set", 10)
    net = new_net()
    for _ in range(20):
        await converse(net, door)


async def test_the_count_of_routing_ids_wraps_around(
    monkeypatch: pytest.MonkeyPatch, new_net: NewNet, new_door: NewDoor
) -> None:
    door = new_door()
    net = new_net()
    assert await converse(net, door)
    # The real count begins anywhere; here, three ids before the end. What it is compared with wraps as libzmq's does.
    listener = door.port
    assert isinstance(listener, Listener)
    assert listener.is_given(b"\x00" + (listener.first_id + 1 & 0xFFFFFFFF).to_bytes(4, "big"))
    monkeypatch.setattr(listener, "first_id", 0xFFFFFFFF)
    assert listener.is_given(bytes(5))
    assert not listener.is_given(b"\x00\x00\x00\x00\x01")
    assert not listener.is_given(b"\x00\xff\xff\xff\xff")


async def test_a_closed_link_is_not_opened_again_and_then_cut(raw: NewRaw, new_door: NewDoor) -> None:
    door = new_door()
    stranger = raw(door.address)
    token = await stranger.open()
    there = await door.next()
    there.link.close()
    assert await stranger.receive() == [token]
    for frame in (token + b"more", OPEN):
        stranger.sock.send(frame)
    await door.counters.reach("link.after_close", 2)
    assert there.is_idle()
    assert door.is_quiet()
    await stranger.hung_up()


class LateFrame:
    """A frame that libzmq hands over after its connection ended, and after another one was given its descriptor."""

    more = False
    bytes = b"token+++late"

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def get(self, name: int | str) -> int | str:
        return self.fd if name == zmq.SRCFD else "127.0.0.1"


async def test_late_words_of_a_link_are_not_held_against_who_has_its_descriptor_now(
    new_net: NewNet, new_door: NewDoor
) -> None:
    door = new_door()
    link = await new_net().dial(door.address, SERVER.id.curve_key, WAIT_S)
    their = await door.next()
    assert isinstance(their.link, _InboundLink)
    routing_id = their.link.routing_id
    link.close()
    await their.closed()
    _, writer = await asyncio.open_connection(*door.address)  # somebody who has not said OPEN yet
    listener = door.port
    assert isinstance(listener, Listener)
    async with asyncio.timeout(WAIT_S):
        while not listener._waiting:
            await asyncio.sleep(0)
            listener.refresh()
    (newcomer,) = listener._waiting.values()
    listener._read_stranger(routing_id, LateFrame(newcomer.fd))  # type: ignore[arg-type]
    assert door.counters["link.after_close"] == 1
    assert door.counters["link.cut"] == door.counters["link.not_open"] == 0
    assert newcomer in listener._waiting.values()
    writer.close()


async def test_who_logs_in_and_says_nothing_is_cut(raw: NewRaw, new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door(QUICK)
    await raw(door.address).hung_up()
    assert door.is_quiet()
    await converse(new_net(), door)


async def test_who_does_not_speak_curve_gets_nowhere(raw: NewRaw, new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door()
    raw(door.address, curve=False).sock.send(OPEN)
    await door.counters.reach("link.never_opened")
    assert door.is_quiet()
    await converse(new_net(), door)


async def test_bytes_that_mean_nothing_get_nowhere(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door(QUICK)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    for count, data in enumerate((bytes(range(256)) * 4, b"GET / HTTP/1.1\r\n\r\n" * 9, greeting + bytes(500)), 1):
        reader, writer = await asyncio.open_connection(*door.address)
        writer.write(data)
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), WAIT_S)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await door.counters.reach("link.never_opened", count)
    assert door.is_quiet()
    await converse(new_net(), door)


async def test_who_never_logs_in_is_cut_and_bothers_nobody(new_net: NewNet, new_door: NewDoor) -> None:
    door = new_door(QUICK)
    idle = [await asyncio.open_connection(*door.address) for _ in range(100)]
    await converse(new_net(), door)
    for reader, writer in idle:
        while await asyncio.wait_for(reader.read(1024), WAIT_S):
            pass
        writer.close()
        await writer.wait_closed()
    assert door.counters["link.cut"] == 0  # libzmq's handshake limit did it, and sooner than ours would


async def test_a_flood_of_connections_cuts_the_oldest() -> None:
    counters = Watched()
    context: zmq.Context[Socket] = zmq.Context()
    shared = Shared(context, SERVER, LinkConfig(), counters, random.Random(3))
    links: list[Link] = []
    listener = Listener(shared, LOCAL, links.append, Admission(10, 10), max_connections=3)
    opened = [await asyncio.open_connection(*listener.address) for _ in range(5)]
    await counters.reach("link.refused_flood", 2)
    for reader, _ in opened[:2]:
        while await asyncio.wait_for(reader.read(1024), WAIT_S):
            pass
    for _, writer in opened:
        writer.close()
    listener.close()
    await asyncio.to_thread(context.term)


async def test_a_listener_that_answers_nonsense_opens_nothing(new_net: NewNet) -> None:
    counters = Watched()
    context: zmq.Context[Socket] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.set(zmq.CURVE_SERVER, True)
    router.set(zmq.CURVE_PUBLICKEY, SERVER.id.curve_key)
    router.set(zmq.CURVE_SECRETKEY, SERVER.curve_secret)
    router.set(zmq.RCVTIMEO, 5000)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dial = asyncio.create_task(new_net(counters=counters).dial(Address("127.0.0.1", port), SERVER.id.curve_key, WAIT_S))
    routing_id, opening = await asyncio.to_thread(router.recv_multipart)
    assert opening == OPEN
    for answer in ([b""], [OPEN], [bytes(8) + b"\x02"], [bytes(8) + OPEN, b""], [bytes(10)]):
        router.send_multipart([routing_id, *answer])
    await counters.reach("link.not_opened", 4)
    await counters.reach("link.multipart", 1)
    assert not dial.done()
    router.send_multipart([routing_id, b"tokenxyz" + OPEN])
    end = End(await dial)
    end.link.send(b"body")
    assert await asyncio.to_thread(router.recv_multipart) == [routing_id, b"tokenxyzbody"]
    router.close(0)
    assert await end.closed() == "the connection is lost"
    await asyncio.to_thread(context.term)


# --- the machine ---


async def test_the_real_host_has_real_links() -> None:
    host = system_host()
    counted: Awaitable[None] = host.links(CLIENT).aclose()
    await counted


async def test_the_file_limit_is_raised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4096)]

    def raise_to(_: int, limit: tuple[int, int]) -> None:
        limits.append(limit)

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", raise_to)
    for _ in range(2):
        await CurveNet(CLIENT, rng=RNG).aclose()
    assert limits == [(256, 4096), (4096, 4096)]
