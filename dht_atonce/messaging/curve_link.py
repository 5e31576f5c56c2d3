"""What both ends of a CURVE link share: the sockets' options, and the link above its token (docs/wire.md section 4)."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import cast

import zmq

from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import MessageTooLarge
from dht_atonce.identity import Identity
from dht_atonce.links import LARGE, OnClosed, OnFrame
from dht_atonce.messaging.pump import Pump, Socket

__all__ = ["LINGER_MS", "TOKEN_SIZE", "VERSION", "CurveLink", "Shared", "zmq_endpoint"]

VERSION = b"\x01"
TOKEN_SIZE = 8
LINGER_MS = 500
"""What was queued before a close gets so long to leave."""

_MAX_EARLY = 64  # frames before `start`, which comes in the turn of the hand-over: all but none
_DRAIN_ROUNDS = 100  # batches read in search of an ended link's last frames, if others keep the socket busy


@dataclass(frozen=True, slots=True)
class Shared:
    """What the links of one identity have in common."""

    context: zmq.Context[Socket]
    identity: Identity
    config: LinkConfig
    counters: Counter[str]
    rng: random.Random

    def socket(self, kind: int, family: Family) -> Socket:
        """A socket with all options that listener and dialler share. Raises `zmq.ZMQError` when there are too many."""
        config = self.config
        timeout_ms = int(config.timeout_s * 1000)
        sock: Socket = self.context.socket(kind)
        options: dict[int, int | bytes] = {
            zmq.CURVE_PUBLICKEY: self.identity.id.curve_key,
            zmq.CURVE_SECRETKEY: self.identity.curve_secret,
            zmq.MAXMSGSIZE: config.max_message_bytes,
            zmq.SNDHWM: config.high_water_mark,
            zmq.RCVHWM: config.high_water_mark,
            zmq.HANDSHAKE_IVL: int(config.handshake_s * 1000),
            zmq.HEARTBEAT_IVL: int(config.heartbeat_s * 1000),
            zmq.HEARTBEAT_TIMEOUT: timeout_ms,
            zmq.HEARTBEAT_TTL: timeout_ms,
            zmq.LINGER: 0,  # our own closing gives LINGER_MS; a connection that failed has nothing to wait for
            zmq.IPV6: family is Family.IPV6,
        }
        for option, value in options.items():
            sock.set(option, value)
        return sock


def zmq_endpoint(address: Address) -> str:
    """What bind and connect take."""
    return f"tcp://{address}"


class CurveLink(ABC):
    """A `Link` over one connection; its ends differ in how they write and what they release."""

    def __init__(self, shared: Shared, curve_key: bytes, remote: Address, *, outbound: bool, token: bytes) -> None:
        self.curve_key = curve_key
        self.remote: Address | None = remote
        self.outbound = outbound
        self.is_closed = False
        self._token = token
        self._counters = shared.counters
        self._max_body = shared.config.max_body_bytes
        self._loop = asyncio.get_running_loop()
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None
        self._early: list[bytes] | None = []
        """Frames before `start`; None from the moment at which all of them were handed over."""
        self._reason = ""
        """Why the link ended by itself, if it did."""

    @abstractmethod
    def _write(self, frame: bytes) -> bool:
        """Queue a frame. False: the queue is full, or the other side is gone."""

    @abstractmethod
    def _release(self) -> None:
        """Free what the link holds below. Called once."""

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        if self._on_frame is not None:
            raise RuntimeError("a link is started once")
        self._on_frame, self._on_closed = on_frame, on_closed
        if self._early or self._reason:
            self._loop.call_soon(self._hand_over)  # not within `start`, whose caller may not be ready yet
        else:
            self._early = None

    def _hand_over(self) -> None:
        assert self._on_frame is not None
        assert self._on_closed is not None
        early, self._early = self._early or [], None
        for frame in early:
            if self.is_closed and not self._reason:
                return
            try:
                self._on_frame(frame)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a callback of a link failed", "exception": error})
        if self._reason:
            self._on_closed(self._reason)

    def send(self, *parts: bytes) -> bool:
        token = self._token
        frame = b"".join((token, *parts))
        size = len(frame) - len(token)
        if not 0 < size <= self._max_body:
            if not size:
                raise ValueError("a body has at least one byte")
            raise MessageTooLarge(f"a link carries {self._max_body} bytes at once, this has {size}")
        return not self.is_closed and self._write(frame)

    def close(self) -> None:
        self._reason = ""  # an `on_closed` that waits for its turn does not come any more
        if not self.is_closed:
            self._write(self._token)
            self.is_closed = True
            self._release()

    def receive(self, frame: bytes) -> None:
        """A frame arrived for this link: bytes, or a view of a large one, since copies are what bulk costs."""
        size = len(frame)
        if self.is_closed:
            self._counters["link.after_close"] += 1
        elif frame[:TOKEN_SIZE] != self._token:
            self._counters["link.bad_token"] += 1
        elif size == TOKEN_SIZE:
            self.end("closed by the other side")
        elif size > self._max_body + TOKEN_SIZE:
            self._counters["link.too_large"] += 1
        elif self._early is None:
            assert self._on_frame is not None
            self._on_frame(frame[TOKEN_SIZE:] if size < LARGE else cast("bytes", memoryview(frame)[TOKEN_SIZE:]))
        elif len(self._early) < _MAX_EARLY:
            self._early.append(bytes(frame[TOKEN_SIZE:]))
        else:
            # To leave one out would break the order that a link promises.
            self._counters["link.early_overflow"] += 1
            self.end("too much came before the link was in use")

    def end(self, reason: str) -> None:
        """The link ended without our doing: release it and tell."""
        if self.is_closed:
            return
        self.is_closed = True
        self._reason = reason
        self._release()
        if self._early is None:
            assert self._on_closed is not None
            self._on_closed(reason)

    def end_when_dry(self, pump: Pump, reason: str, rounds: int = _DRAIN_ROUNDS) -> None:
        """The connection is gone: read what it left behind, then `end`. Not from within that pump's reading."""
        if self.is_closed:
            return
        if pump.drain() or not rounds:
            self.end(reason)
        else:
            self._loop.call_soon(self.end_when_dry, pump, reason, rounds - 1)
