"""Durable messages as a part of a peer: the outbox's and the inbox's side over one file, and what ends with time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

from dht_atonce.codec import read_each
from dht_atonce.config import DurableConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.durable.receiving import Receiving
from dht_atonce.durable.sending import CAPABILITY, Sending
from dht_atonce.durable.store import FILE, Held, Store
from dht_atonce.durable.wire import MAX_DATA, Note, Parcel, Refused, Settled, Stored, pack, unpack
from dht_atonce.durable.writer import Writer
from dht_atonce.errors import MessageTooLarge, NotSupported, PeerClosed, QueueFull, StoreError
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.inbox import Inbox, Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.profile import Profile

__all__ = ["Durable"]

OnEvent = Callable[..., None]

_MAX_SLEEP_S = 3600.0  # between two looks at what is over: the wall clock may be set


class Durable:
    """A `Feature` of `Peer`, and the `Service` of its kind. `emit` tells the app what it should know."""

    def __init__(self, profile: Profile, host: Host, counters: Counter[str], emit: OnEvent, *, transient: bool) -> None:
        self._profile = profile
        self._host = host
        self._counters = counters
        self._emit = emit
        self._transient = transient
        self._own_id = profile.identity.id
        self._writer = Writer(host, profile.disk, self._on_open)
        self._config = DurableConfig()
        self._messenger: Messenger | None = None
        self._now_ms: Callable[[], int] = lambda: int(host.clock.wall() * 1000)
        self._sending: Sending | None = None
        self._receiving: Receiving | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._expires_ms = inf
        self._closed = False

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of `Feature`."""
        self._config = config = messenger.config.durable
        self._messenger = messenger
        self._now_ms = now_ms = lambda: int(node.shared.wall() * 1000)
        rng, counters = self._host.rng, self._counters
        self._sending = Sending(config, self._writer, counters, rng, node, messenger, now_ms)
        self._receiving = Receiving(config, self._writer, counters, self._say, now_ms)
        messenger.when_linked.append(self._sending.on_linked)
        messenger.when_unlinked.append(self._sending.on_unlinked)
        messenger.on_put(self._receiving.arrived.set)
        if self._profile.is_lasting:
            messenger.serve(Kind.DURABLE, self)
            if self._profile.disk.has_database(FILE):
                self._resume()

    async def aclose(self) -> None:
        """Of `Feature`."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        if self._sending is not None:
            await self._sending.aclose()
        await self._writer.aclose(self._config.close_s)
        self._closed = True
        if self._sending is not None:
            self._sending.fail_receipts()
        if self._receiving is not None:
            self._receiving.arrived.set()

    # --- the app's side ---

    def post(self, to: PeerId, data: bytes, expires_s: float | None = None) -> DurableReceipt:
        """As `Peer.post` with `durable`."""
        config = self._config
        if self._closed or self._sending is None or self._receiving is None or self._messenger is None:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        if not self._profile.is_lasting:
            raise NotSupported("durable messages need a profile folder: Peer.open(profile=…)")
        if len(data) > MAX_DATA:
            raise MessageTooLarge(f"a durable message has at most {MAX_DATA} bytes, this has {len(data)}")
        if expires_s is None:
            expires_s = config.expires_s
        if not 0 < expires_s <= config.max_expires_s:
            raise ValueError(f"expires_s is above 0 and at most {config.max_expires_s:.0f}")
        record = self._messenger.record_of(to)
        if record is not None and CAPABILITY not in record.capabilities:
            raise NotSupported(f"{to.short}… takes no durable messages: it is transient, has no profile, or is older")
        receipt = DurableReceipt(self._host.rng.randbytes(16))
        expires_ms = self._now_ms() + int(expires_s * 1000)
        if to == self._own_id:
            if self._transient:
                raise NotSupported("a transient peer takes no durable messages, not even its own")
            self._receiving.add_own(self._own_id, receipt, expires_ms, data)
        else:
            self._sending.post(to, receipt, expires_ms, data)
        self._expire_at(expires_ms)
        return receipt

    async def send(self, to: PeerId, data: bytes, expires_s: float | None = None) -> DurableReceipt:
        """As `Peer.send` with `durable`."""
        receipt = self.post(to, data, expires_s)
        await receipt.kept()
        return receipt

    async def read(self, inbox: Inbox) -> AsyncIterator[Message]:
        """Messages from `inbox` and durable ones, as they come; ends as `inbox.read` does."""
        receiving = self._receiving
        while receiving is not None and not self._closed:
            durable = receiving.take()
            if durable is not None:
                yield durable
            for message in inbox.waiting():
                yield message
                if receiving.has_ready:
                    break  # they take turns
            else:
                if durable is None and not receiving.has_ready:
                    receiving.arrived.clear()
                    await receiving.arrived.wait()
        async for message in inbox.read():
            yield message

    # --- of `Service` ---

    def room(self, sender: PeerId) -> int:
        """As many as can be waiting to be written, beside those that are."""
        return self._receiving.room(sender) if self._receiving is not None else 0

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        """The link's acknowledgement says only that they came: whether they are kept, `Stored` and `Refused` say. A
        slow or failing disk so holds up nothing else that the sender says."""
        sending, receiving = self._sending, self._receiving
        if sending is None or receiving is None or self._writer.is_closed:
            return
        parcels: list[Parcel] = []
        for note in read_each(unpack, messages, self._counters, "durable.bad_note"):
            if isinstance(note, Parcel):
                parcels.append(note)
            elif isinstance(note, Stored):
                sending.on_stored(sender, note)
            elif isinstance(note, Refused):
                sending.on_refused(sender, note)
            elif isinstance(note, Settled):
                receiving.on_settled(sender, note)
        if parcels and not self._transient:
            receiving.on_parcels(sender, parcels)
            self._expire_at(min(parcel.expires_ms for parcel in parcels))

    # --- inside ---

    def _say(self, to: PeerId, note: Note) -> None:
        """To a peer that has a link to us; else the note is about a round that is over."""
        messenger = self._messenger
        if messenger is not None and messenger.record_of(to) is not None and not self._closed:
            try:
                messenger.post(to, pack(note), self._config.stall_s, Kind.DURABLE)
            except (QueueFull, PeerClosed):
                self._counters["durable.not_said"] += 1  # the sender begins another round

    def _on_open(self, store: Store) -> None:
        if store.set_aside is not None:
            self._counters["durable.set_aside"] += 1
            message = f"{FILE} is damaged: it was set aside as {store.set_aside}, and an empty one took its place"
            self._emit("warning", message=message)

    def _resume(self) -> None:
        """Take up what earlier runs left."""
        if not self._writer.is_closed:
            self._writer.submit(lambda store: (store.outbox(), store.inbox(), store.next_expiry()), self._on_resumed)

    def _on_resumed(self, found: tuple[list[Held], tuple[list[Held], int], int | None] | StoreError) -> None:
        if isinstance(found, StoreError):
            self._emit("warning", message=str(found))
            asyncio.get_running_loop().call_later(self._config.retry_max_s, self._resume)
            return
        outbox, (inbox, last), expires_ms = found
        assert self._sending is not None
        assert self._receiving is not None
        self._sending.on_opened(outbox)
        self._receiving.on_opened(inbox, last)
        if expires_ms is not None:
            self._expire_at(expires_ms)

    # --- inside: what is over ---

    def _expire_at(self, expires_ms: int) -> None:
        """Something is over then."""
        if expires_ms < self._expires_ms and not self._closed:
            self._expires_ms = expires_ms
            if self._expiry_timer is not None:
                self._expiry_timer.cancel()
            delay_s = min(_MAX_SLEEP_S, max(0.1, (expires_ms - self._now_ms()) / 1000))
            self._expiry_timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._expiry_timer, self._expires_ms = None, inf
        now_ms = self._now_ms()
        if not self._writer.is_closed:
            self._writer.submit(
                lambda store: (store.expire_outgoing(now_ms), store.expire_arrivals(now_ms), store.next_expiry()),
                self._on_over,
            )

    def _on_over(self, over: Any) -> None:
        if isinstance(over, StoreError):
            self._expire_at(self._now_ms() + int(self._config.retry_max_s * 1000))
            return
        outgoing, arrivals, expires_ms = over
        assert self._sending is not None
        assert self._receiving is not None
        self._sending.on_expired(outgoing)
        self._receiving.on_expired(arrivals)
        if expires_ms is not None:
            self._expire_at(expires_ms)
