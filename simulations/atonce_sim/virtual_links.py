"""In-memory links: both ends know the other's key without CURVE; frames arrive in order, after the latency."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from atonce_sim.virtual_datagrams import Ports
from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError, LinkRefused, MessageTooLarge
from dht_atonce.identity import Identity
from dht_atonce.links import Link, LinkPort, OnClosed, OnFrame, OnLink

if TYPE_CHECKING:
    from atonce_sim.world import VirtualHost

__all__ = ["VirtualLink", "VirtualLinks", "VirtualPort"]

_CONFIG = LinkConfig()


class VirtualLinks:
    """The links of one identity on one host."""

    def __init__(self, host: "VirtualHost", identity: Identity) -> None:
        self._host = host
        self._world = host.world
        self._key = identity.id.curve_key
        self._numbers = Ports()
        self._ports: list[VirtualPort] = []
        self._links: dict[VirtualLink, None] = {}

    def listen(self, bind: Address, on_link: OnLink) -> LinkPort:
        # What still runs on a dead machine is given something that looks like a port.
        ports = self._world.ports if not self._host.is_down else {}
        address = self._numbers.take(bind, self._host.ip, ports.__contains__)
        port = ports[address] = VirtualPort(self._host, address, self._key, on_link)
        self._host.bound.add(address)
        self._ports.append(port)
        return port

    async def dial(self, address: Address, curve_key: bytes, timeout_s: float) -> Link:
        world, host = self._world, self._host
        other = world.hosts.get(address.ip)
        if other is None:  # no such address: the nearest router says so
            await asyncio.sleep(world.latency_s * 2)
            raise LinkError(f"nobody listens at {address}")
        rtt_s = world.wires.between(host.number, other.number) * 2
        answers = rtt_s <= timeout_s and _joined(host, other)
        if answers:
            # TCP's round trip. CURVE's own are left out: a run counts what the layers above do.
            await asyncio.sleep(rtt_s)
            timeout_s -= rtt_s
            answers = _joined(host, other)
        if not answers:
            await asyncio.sleep(timeout_s)
            raise LinkError(f"{address} does not answer")
        port = world.ports.get(address)
        if port is None:
            raise LinkError(f"nobody listens at {address}")
        if port.key != curve_key:
            raise LinkRefused(f"{address} holds another key")
        ours = VirtualLink(host, port.key, address, other, outbound=True)
        theirs = VirtualLink(other, self._key, Address(host.ip, 0), host, outbound=False)
        ours.other, theirs.other = theirs, ours
        ours.home, theirs.home = self._links, port.links
        for link in (ours, theirs):
            link.home[link] = None
            world.links[link] = None
        other.runs(port.on_link, theirs)
        return ours

    async def aclose(self) -> None:
        for port in self._ports:
            port.close()
        for link in list(self._links):
            link.close()


def _passes(source: "VirtualHost", to: "VirtualHost") -> bool:
    """Whether anything passes between these two; a machine that runs again is not the one that crashed."""
    return not source.is_away and not to.is_away and source.world.delivers(source.ip, to.ip)


def _joined(one: "VirtualHost", other: "VirtualHost") -> bool:
    """Whether all passes, both ways."""
    return _passes(one, other) and _passes(other, one)


class VirtualPort:
    """Where an identity accepts links."""

    def __init__(self, host: "VirtualHost", address: Address, key: bytes, on_link: OnLink) -> None:
        self.address = address
        self.key = key
        self.on_link = on_link
        self.links: dict[VirtualLink, None] = {}
        self._ports = host.world.ports

    def move(self, ip: str) -> None:
        """Its host has another address; links to the old one are dead."""
        if self._ports.get(self.address) is self:
            del self._ports[self.address]
            self.address = Address(ip, self.address.port)
            self._ports[self.address] = self

    def close(self) -> None:
        if self._ports.get(self.address) is self:
            del self._ports[self.address]
        for link in list(self.links):
            link.close()


class VirtualLink:
    """One end. Where heartbeats of a CURVE link would find out that the other is gone, so does this, `timeout_s`
    later: the world tells when anything was cut (`on_cut`), so that links at rest cost nothing."""

    __slots__ = (
        "_broken",
        "_early",
        "_host",
        "_in_flight",
        "_last_arrival",
        "_loop",
        "_number",
        "_on_closed",
        "_on_frame",
        "_peer_host",
        "_world",
        "curve_key",
        "home",
        "is_closed",
        "is_severed",
        "other",
        "outbound",
        "remote",
    )

    def __init__(
        self, host: "VirtualHost", curve_key: bytes, remote: Address, peer_host: "VirtualHost", *, outbound: bool
    ) -> None:
        self.curve_key = curve_key
        self.remote: Address | None = remote
        self.outbound = outbound
        self.is_closed = False
        self.is_severed = False
        """One of the two hosts has another address by now: nothing passes, ever."""
        self.other: VirtualLink
        self.home: dict[VirtualLink, None]
        """Where this end is listed while it is open: with its port, or with who dialled."""
        self._host = host
        self._peer_host = peer_host
        self._world = host.world
        self._loop = host.world.loop
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None
        self._early: deque[bytes] | None = None
        self._last_arrival = 0.0
        self._number = 0
        self._in_flight = 0
        self._broken = False

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self._on_frame, self._on_closed = on_frame, on_closed
        early, self._early = self._early, None
        while early and not self.is_closed:
            on_frame(early.popleft())

    def send(self, *parts: bytes) -> bool:
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(body) > _CONFIG.max_body_bytes:
            raise MessageTooLarge(f"a frame has at most {_CONFIG.max_body_bytes} bytes, this has {len(body)}")
        if self.is_closed or self._in_flight >= _CONFIG.high_water_mark:
            return False
        self._dispatch(body)
        return True

    def close(self) -> None:
        if not self.is_closed:
            self._leave()
            self._dispatch(None)

    def is_whole(self) -> bool:
        """Whether heartbeats would pass, both ways."""
        return not self.is_severed and not self.other.is_closed and _joined(self._host, self._peer_host)

    def on_cut(self) -> None:
        """What lies between the two may have been cut or mended."""
        if self.is_closed or self._broken or self.is_whole():
            return
        self._broken = True
        self._loop.post(_CONFIG.timeout_s, self._give_up_or_go_on)

    def sever_if_on(self, host: "VirtualHost") -> None:
        """`host` has another address."""
        if host in (self._host, self._peer_host):
            self.is_severed = True

    def _passes(self) -> bool:
        return not self.is_severed and _passes(self._host, self._peer_host)

    def _give_up_or_go_on(self) -> None:
        self._broken = False
        if self._host.is_asleep:
            return  # it finds out when it wakes
        if not self.is_closed and not self.is_whole():
            self._end("the other side is silent")

    def _dispatch(self, body: bytes | None) -> None:
        """Have the other end hear `body`, or the end of the link, unless the two are cut off."""
        host, to, now = self._host, self._peer_host, self._loop._now
        if not self._passes():
            return
        if body is not None:
            host.bytes_sent += len(body)
            self._world.trace.sent(now, host.number, to.number, body, is_frame=True)
            if to.is_seed:
                self._world.on_seed_frame(host, len(body))
        self._number += 1
        delay_s = self._world.wires.frame_delay_s(
            host.number, to.number, len(body) if body is not None else 0, self._number, now
        )
        # What was sent later never arrives earlier; at one moment the loop keeps the order of posting.
        self._last_arrival = max(self._last_arrival, now + delay_s)
        self._in_flight += 1
        self._loop.post(self._last_arrival - now, self._deliver, body)

    def _deliver(self, body: bytes | None) -> None:
        self._in_flight -= 1
        if not self._passes():
            self.other.on_cut()  # it went down with the cable
        elif body is None:
            self.other._end("closed by the other side")
        else:
            self.other._arrive(body)

    def _arrive(self, body: bytes) -> None:
        if self.is_closed:
            return
        if self._on_frame is None:
            if self._early is None:
                self._early = deque()
            self._early.append(body)
        else:
            self._host.runs(self._on_frame, body)

    def _leave(self) -> None:
        self.is_closed = True
        self.home.pop(self, None)
        self._world.links.pop(self, None)
        if not self._passes():
            self.other.on_cut()  # nobody tells it that we closed

    def _end(self, reason: str) -> None:
        if not self.is_closed:
            self._leave()
            if self._on_closed is not None:
                self._host.runs(self._on_closed, reason)
