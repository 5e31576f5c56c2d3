"""Links over ZeroMQ CURVE: the `LinkNet` of a real machine (docs/wire.md section 4)."""

import asyncio
import random
import resource
from collections import Counter

import zmq

from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError
from dht_atonce.host import Host
from dht_atonce.identity import Identity
from dht_atonce.links import Link, LinkPort, OnLink
from dht_atonce.messaging.curve_dialler import OutboundLink
from dht_atonce.messaging.curve_link import Shared
from dht_atonce.messaging.curve_listener import Listener
from dht_atonce.messaging.zap import Admission, ZapHandler

__all__ = ["CurveNet", "system_host"]

if zmq.zmq_version_info() < (4, 3, 5):
    raise ImportError(f"@Once needs libzmq 4.3.5 or newer, this is {zmq.zmq_version()}; upgrade pyzmq")
if not zmq.has("curve"):
    raise ImportError("@Once needs a libzmq with CURVE, and this one has none; install pyzmq from its wheel")

_FALLBACK_FILES = 10_240  # what macOS allows where it says "unlimited"
_SOCKETS_PER_DIAL = 3  # a DEALER and both ends of its monitor
_SOCKETS_BESIDE = 64  # listeners, their monitors, ZAP, and dials that are under way
_FILES_PER_LINK = 4  # a TCP connection, and for a dial the descriptors of its three sockets


class CurveNet:
    """A `LinkNet`: all links of one identity, in one ZeroMQ context. Belongs to the running loop.

    `counters` counts, under names that begin with "link.", what strangers do that is not done.
    """

    def __init__(
        self,
        identity: Identity,
        config: LinkConfig | None = None,
        counters: Counter[str] | None = None,
        *,
        rng: random.Random,
    ) -> None:
        config = config or LinkConfig()
        files = _raise_file_limit()
        max_links = min(config.max_links, max(files // (2 * _FILES_PER_LINK), 8))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)  # more would reorder the monitors' events
        sockets = _SOCKETS_PER_DIAL * max_links + _SOCKETS_BESIDE
        context.set(zmq.MAX_SOCKETS, min(sockets, context.get(zmq.SOCKET_LIMIT)))
        self._shared = Shared(context, identity, config, Counter() if counters is None else counters, rng)
        self._max_connections = max(files // 4, 64)
        self._admission = Admission(max_links, config.max_links_per_ip)
        self._zap = ZapHandler(context, self._admission, self._refresh, self._shared.counters)
        self._listeners: list[Listener] = []
        self._outbound: dict[OutboundLink, None] = {}
        self._end: asyncio.Future[None] | None = None

    def _refresh(self) -> None:
        for listener in self._listeners:
            listener.refresh()

    def listen(self, bind: Address, on_link: OnLink) -> LinkPort:
        if self._end is not None:
            raise LinkError("these links are closed")
        listener = Listener(self._shared, bind, on_link, self._admission, self._max_connections)
        self._listeners = [*(one for one in self._listeners if not one.is_closed), listener]
        return listener

    async def dial(self, address: Address, curve_key: bytes, timeout_s: float) -> Link:
        if self._end is not None:
            raise LinkError("these links are closed")
        link = OutboundLink(self._shared, address, curve_key, self._forget)
        self._outbound[link] = None
        try:
            async with asyncio.timeout(timeout_s):
                await link.opened
        except TimeoutError:
            link.abort()
            raise LinkError(f"{address} did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            link.abort()
            raise
        return link

    def _forget(self, link: OutboundLink) -> None:
        self._outbound.pop(link, None)

    async def aclose(self) -> None:
        if self._end is None:
            for link in list(self._outbound):
                if link.opened.done():
                    link.close()
                else:
                    link.fail(LinkError("these links are closed"))
            for listener in self._listeners:
                listener.close()
            self._zap.close()
            # Waits for what lingers, so not in the loop's own thread.
            self._end = asyncio.get_running_loop().run_in_executor(None, self._shared.context.term)
        await asyncio.shield(self._end)


def _raise_file_limit() -> int:
    """Let this process have as many descriptors as it may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FALLBACK_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
    return wanted


def system_host() -> Host:
    """The machine that this process runs on."""

    def links(identity: Identity, counters: Counter[str] | None = None) -> CurveNet:
        return CurveNet(identity, counters=counters, rng=host.rng)

    host = Host(links=links)
    return host
