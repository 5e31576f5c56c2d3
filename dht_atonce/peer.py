"""`Peer`: what an app uses."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar, overload

from dht_atonce.access import Accept, Access, Contacts
from dht_atonce.calls.calls import Calls, Handler
from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.counters import Counts
from dht_atonce.dht.node import DhtNode, FindResult, PublishResult
from dht_atonce.discovery.ladder import Entry
from dht_atonce.durable.feature import Durable
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.endpoints import SeedUrl
from dht_atonce.errors import MessageTooLarge, PeerClosed, PeerIdError, PeerOffline, PeerUnknown, TransferFailed
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.listening import ANYWHERE
from dht_atonce.membership import Listening, Membership, OnEvent
from dht_atonce.messaging.curve import system_host
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import Receipt
from dht_atonce.messaging.service import OnMessage
from dht_atonce.presence.around import AROUND, MAX_TEXT, Neighbour, list_around
from dht_atonce.presence.watching import PresenceWatch, PresenceWatcher
from dht_atonce.profile import Profile
from dht_atonce.records import GONE, PresenceRecord, presence_key
from dht_atonce.rooms.room import Room
from dht_atonce.rooms.rooms import Rooms
from dht_atonce.streams.files import FileEvent, FileServer, OnProgress, pull, push
from dht_atonce.streams.stream import Stream
from dht_atonce.streams.streams import Streams

__all__ = ["Peer"]

H = TypeVar("H", bound=Handler)


class Feature(Protocol):
    """A part of a peer that stands on its node and its messenger."""

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Both are there, and nobody can reach us yet."""

    async def aclose(self) -> None:
        """The peer is about to say goodbye. Called once, also if `start` never was."""


class Peer:
    """One member of a network: found by its `PeerId`, finds others, sends and receives messages.

        async with Peer.open(profile="~/.my-app", seeds=["atonce://…@seed.example:4710"]) as peer:
            await peer.send(friend, b"hello")
            async for message in peer.messages():
                print(message.sender, message.data)

    Built by `open` only.
    """

    def __init__(self, membership: Membership, accept: Accept = None) -> None:
        self.counters = membership.counters
        """What happened, by name: for operators and tests."""
        self._membership = membership
        self._access = Access(Contacts(membership.profile), accept, membership.counters)
        self._calls = Calls(membership.host.rng, membership.counters)
        self._durable = Durable(
            membership.profile,
            membership.host,
            membership.counters,
            membership.emit,
            transient=membership.is_transient,
        )
        self._presence = PresenceWatcher(membership.started)
        self._rooms = Rooms()
        self._streams = Streams(int.from_bytes(membership.incarnation[:6]))
        self._on_message: OnMessage | None = None
        self._features: list[Feature] = [
            self._access,
            self._calls,
            self._presence,
            self._durable,
            self._streams,
            self._rooms,
        ]
        membership.on_started = self._start

    @property
    def entry(self) -> Entry | None:
        """How we came into the network; None before we did."""
        return self._membership.entry

    # --- life ---

    @classmethod
    def open(
        cls,
        profile: Path | str | None = None,
        *,
        seeds: Sequence[SeedUrl | str] = (),
        network: NetworkConfig | str | None = None,
        listen: Sequence[str] = ANYWHERE,
        port: int = 0,
        udp_port: int = 0,
        alone: bool = False,
        keep_trying: bool = False,
        transient: bool = False,
        accept: Accept = None,
        host: Host | None = None,
        on_event: OnEvent | None = None,
        config: MessagingConfig | None = None,
    ) -> "_Opening":
        """Come into a network: `async with Peer.open(…) as peer`, or `peer = await Peer.open(…)`.

        profile: a folder, made if new; None: an identity that is gone with the process.
        seeds: URLs of seeds, asked all at once if no saved contact answers.
        network: a name, or a `NetworkConfig`; None: the last run's, else whatever the seed serves.
        listen: IP addresses to bind, at most one for each family; port (TCP) and udp_port: 0 for any.
        alone: begin a network if there is no other way in.
        keep_trying: come back at once even if nobody answers, and go on trying.
        transient: take part without being found: no seat in the DHT, nothing published, no links accepted.
        accept: who may reach us, as the property `accept`.
        on_event: called with a name and details as things happen.

        Raises `EntryFailed`, `NetworkMismatch`, `ProfileError`, `ProfileInUse`, `PortInUse`, `SeedUrlError`;
        ValueError for an `accept` that is none.
        """
        urls = [seed if isinstance(seed, SeedUrl) else SeedUrl.parse(seed) for seed in seeds]
        if isinstance(network, str):
            network = NetworkConfig(name=network)
        listening = Listening(tuple(listen), port, udp_port)

        async def opened() -> Peer:
            at = host or system_host()
            peer = membership = None
            folder = Profile.open(profile, at)
            try:
                membership = Membership(
                    folder,
                    at,
                    urls,
                    listening,
                    transient=transient,
                    on_event=on_event,
                    config=config,
                    counters=Counts(),
                )
                peer = cls(membership, accept)
                await membership.enter(network, alone, keep_trying)
            except BaseException:
                if peer is not None:
                    await peer.aclose()
                elif membership is not None:
                    await membership.aclose()
                folder.close()
                raise
            return peer

        return _Opening(opened)

    def _start(self, node: DhtNode, messenger: Messenger) -> None:
        if self._on_message is not None:
            messenger.on_message(self._on_message)
        for feature in self._features:
            feature.start(node, messenger)

    async def aclose(self) -> None:
        """Say goodbye and end. Takes at most two seconds; may be called twice."""
        if not self._membership.closed:
            features, self._features = self._features, []
            for feature in features:
                await feature.aclose()
        await self._membership.aclose()

    # --- who and where we are ---

    @property
    def id(self) -> PeerId:
        """Our `PeerId`: what others need to find us."""
        return self._membership.profile.identity.id

    @property
    def network(self) -> NetworkConfig:
        """The network that we are in."""
        return self.node.shared.network

    @property
    def node(self) -> DhtNode:
        """Our node of the DHT: `set` and `get` of small signed values, counters, tables."""
        return self._membership.node

    @property
    def record(self) -> PresenceRecord | None:
        """What we said of ourselves last; None before we published."""
        return self._membership.record

    @property
    def saved_contacts(self) -> int:
        """How many contacts the profile holds for the next start."""
        return len(self._membership.profile.state.contacts)

    # --- who may reach us ---

    @property
    def contacts(self) -> Contacts:
        """Peers whom the user knows; kept in the profile."""
        return self._access.contacts

    @property
    def accept(self) -> Accept:
        """Who may reach us: a function that is given a `PeerId`; a collection of them; "contacts", those who are in
        `contacts` at any time; None, anybody.

        Setting it ends the links of whoever is not accepted any more. Others learn that they are refused and nothing
        else, except what the DHT says to whoever knows our `PeerId`. Whom we write to can answer over that link. Raises
        ValueError for anything else.
        """
        return self._access.accept

    @accept.setter
    def accept(self, accept: Accept) -> None:
        self._access.set(accept)

    # --- others ---

    async def find(self, who: PeerId | str, *, fresh: bool = False) -> FindResult:
        """Look up a peer's presence, and tell how that went. `fresh` waits until the nearest nodes agree.

        Raises `PeerIdError`.
        """
        return await self.node.find(presence_key(self.network, _peer_id(who)), fresh=fresh)

    async def lookup(self, who: PeerId | str, *, fresh: bool = False) -> PresenceRecord:
        """The presence of a peer. Raises `PeerIdError`, `PeerUnknown`; `PeerOffline` if it said goodbye."""
        peer_id = _peer_id(who)
        found = await self.find(peer_id, fresh=fresh)
        if found.local and found.record is not None and found.record.is_goodbye:
            # A goodbye in our own store may be old news: whoever was cut off when the peer came back has missed it.
            found = await self.find(peer_id, fresh=True)
        record = found.record
        if not isinstance(record, PresenceRecord):
            raise PeerUnknown(f"the network knows no peer {peer_id.short}…")
        if record.is_goodbye:
            raise PeerOffline(f"{peer_id.short}… has said goodbye")
        return record

    def watch(self, who: PeerId | str) -> PresenceWatch:
        """Hear when a peer comes, goes, cannot be reached, or says something else of itself.

            async with peer.watch(friend) as watch:
                async for event in watch:
                    print(event.change, event.status)

        A goodbye is heard within a second; a crash of one of the first 64 who are watched within 15 s, since a link to
        them is kept. Of others, and of those who cannot be dialled, what they publish is all that is known: a crash is
        heard of when their record expires. Raises `PeerIdError`; on entry `PeerClosed`, and `QueueFull` beyond 10,000.
        """
        return self._presence.watch(_peer_id(who))

    async def around(self, limit: int | None = None) -> list[Neighbour]:
        """Who wants to be found in this network (`be_found`): all, or a random sample of `limit`."""
        return await list_around(self.node, limit)

    async def be_found(self, text: str = "") -> PublishResult:
        """Be listed by everybody's `around`, with a text of at most 128 B, until `hide`.

        Raises `MessageTooLarge` for a longer text.
        """
        if len(text.encode()) > MAX_TEXT:
            raise MessageTooLarge(f"a text to be found by has at most {MAX_TEXT} bytes")
        return await self.node.announce(AROUND, data=text.encode(), endpoints=self._membership.endpoints()[:4])

    async def hide(self) -> PublishResult:
        """Be listed no more. Whoever knows our `PeerId` can still look us up."""
        return await self.node.withdraw(AROUND)

    @overload
    def post(self, to: PeerId | str, data: bytes, timeout_s: float | None = None) -> Receipt: ...

    @overload
    def post(
        self, to: PeerId | str, data: bytes, *, durable: Literal[True], expires_s: float | None = None
    ) -> DurableReceipt: ...

    def post(
        self,
        to: PeerId | str,
        data: bytes,
        timeout_s: float | None = None,
        *,
        durable: bool = False,
        expires_s: float | None = None,
    ) -> Receipt | DurableReceipt:
        """Queue a message of at most 60,000 B and go on. The receipt tells its state at any time, and can be awaited.

        durable: the message (then of at most 59,900 B) is written to our disk, and sent whenever the peer is there,
        also after a restart, until it is acknowledged or `expires_s` (default 7 days, at most 30) are over. It is
        acknowledged when it is on the receiver's disk. docs/guide/durable.md says what is guaranteed.

        Raises `PeerIdError`, `MessageTooLarge`, `QueueFull`, `PeerClosed`; durable: `NotSupported` if we have no
        profile folder, or a peer that is linked to us takes no durable messages; ValueError for `expires_s`.
        """
        if durable:
            return self._durable.post(_peer_id(to), _bytes(data), expires_s)
        return self._membership.messenger.post(_peer_id(to), _bytes(data), timeout_s)

    def post_many(self, to: Iterable[PeerId | str], data: bytes, timeout_s: float | None = None) -> list[Receipt]:
        """`post` the same message of at most 60,000 B to each of `to`; their receipts, in that order.

        Nobody has to wait for another one. The receipt of whoever has too much waiting is `expired` at once, and raises
        `QueueFull` when it is awaited. What is said so to one peer in one turn of the loop travels together.

        timeout_s: until a message that is not acknowledged has expired, or its outcome is unknown (default 10).

        Raises `PeerIdError`, `MessageTooLarge`, `PeerClosed`: then nothing was queued for anybody.
        """
        return self._membership.messenger.post_many([_peer_id(who) for who in to], _bytes(data), timeout_s)

    @overload
    async def send(self, to: PeerId | str, data: bytes, timeout_s: float | None = None) -> None: ...

    @overload
    async def send(
        self, to: PeerId | str, data: bytes, *, durable: Literal[True], expires_s: float | None = None
    ) -> DurableReceipt: ...

    async def send(
        self,
        to: PeerId | str,
        data: bytes,
        timeout_s: float | None = None,
        *,
        durable: bool = False,
        expires_s: float | None = None,
    ) -> DurableReceipt | None:
        """Deliver a message of at most 60,000 B; returns when it is in the queue of the other side's app.

        durable: as in `post`; returns when the message is on our own disk, from where it goes its way whatever happens
        to us. `await` the receipt that it gives to wait until it is on the receiver's.

        Raises `PeerIdError`, `MessageTooLarge`, `QueueFull`; `PeerUnknown`, `PeerOffline` or `NotAccepted` if nothing
        was sent; `DeliveryUnknown` if it was sent and no acknowledgement came within `timeout_s` (default 10); durable:
        as `post`, and `StoreError` if our disk does not take it.
        """
        if durable:
            return await self._durable.send(_peer_id(to), _bytes(data), expires_s)
        await self._membership.messenger.send(_peer_id(to), _bytes(data), timeout_s)
        return None

    async def done(self, message: DurableMessage) -> None:
        """The app is done with a durable message: it does not come again. The same as `message.done()`.

        Returns when that is on the disk. Raises `StoreError`, `PeerClosed`.
        """
        await message.done()

    async def request(self, to: PeerId | str, data: bytes, *, service: str, timeout_s: float = 10.0) -> bytes:
        """Ask a peer's service, and give its reply; each has at most 60,000 B.

        The request is carried out at most once. If it is not answered in `timeout_s` (at most an hour), or the task
        that waits here is cancelled, it is cancelled at the other side too.

        Raises if nothing was carried out `PeerIdError`, `MessageTooLarge`, `QueueFull`, `PeerUnknown`, `PeerOffline`,
        `NotAccepted`, `NotSupported`, `NoSuchService`, `PeerBusy`; if it was, and failed, `RequestFailed`; if it may
        have been `RequestLost`, `PeerClosed`; `RequestTimeout` says whether. ValueError: a name or time out of bounds.
        """
        return await self._calls.request(_peer_id(to), _bytes(data), timeout_s, service)

    @overload
    def serve(self, service: str) -> Callable[[H], H]: ...
    @overload
    def serve(self, service: str, handler: H) -> H: ...
    def serve(self, service: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Answer requests to `service` (1 to 64 characters), each in a task of its own; also as a decorator.

            @peer.serve("time")
            async def tell(request: Request) -> bytes: ...

        What a handler gives is the reply, at most 60,000 B. It is cancelled when nobody waits for the reply any more.
        `ReplyError(code, text)` reaches whoever asked; of any other exception it learns only that there was one, and
        the loop's exception handler is told here. May be called before the peer is in a network. Raises ValueError if
        the name is served already.
        """

        def put(given: H) -> H:
            self._calls.serve(service, given)
            return given

        return put if handler is None else put(handler)

    def stop_serving(self, service: str) -> None:
        """Carry out no more requests to `service`; those that run go on."""
        self._calls.stop_serving(service)

    def join(self, topic: str, *, name: str = "", last: int = 0, guest: bool = False) -> Room:
        """Take part in a room, where everybody hears what anybody says: `async with peer.join("room") as room:`.

        topic: the room's name, 1 to 64 characters; to know it is all that it takes to come in.
        name: what the others see beside our `PeerId`, at most 64 B.
        last: so many of the latest shouts are heard first, at most 256; as many as a member has kept.
        guest: only to say something: nobody is told that we came, and we hear nothing. A transient peer is always one.

        Raises `PeerClosed`; ValueError for what is out of its bounds, for a room that we are in, and beyond 64 rooms.
        """
        return self._rooms.join(topic, name=name, last=last, guest=guest)

    async def set_status(self, status: str) -> PublishResult:
        """Say how we are (`online`, `away`, `busy` or a word of the app's, at most 32 B) in a new presence record.

        Raises ValueError for a status that is too long, or that says goodbye (`aclose` does).
        """
        if status == GONE:
            raise ValueError("who says goodbye closes: use aclose()")
        return await self._membership.set_status(status)

    def messages(self) -> AsyncIterator[Message]:
        """Messages from others, as they come; ends when this peer is closed. The sender is verified.

        Durable ones are `DurableMessage`s: they have an id, and come again after a restart until `done` was called.
        """
        if self._membership.closed:
            raise PeerClosed("this peer is closed")
        inbox = self._membership.inbox
        if inbox is not None and self._membership.started.is_set():
            return self._durable.read(inbox)
        return self._read()

    def on_message(self, callback: OnMessage | None) -> None:
        """Have `callback` called with each message in the moment in which it comes, instead of having it wait for
        `messages()`: the quickest way to an answer. None: messages wait for `messages()` again.

        It must not block, and everybody else waits while it runs; `post` may be called in it. A message counts as
        delivered when it returns; what it raises goes to the loop's exception handler, and the message counts as
        delivered all the same. What came before it was set still waits for `messages()`, and so do durable messages,
        always. May be called before the peer is in a network. Raises `PeerClosed`.
        """
        if self._membership.closed:
            raise PeerClosed("this peer is closed")
        self._on_message = callback
        if self._membership.started.is_set():
            self._membership.messenger.on_message(callback)

    async def _read(self) -> AsyncIterator[Message]:
        await self._membership.started.wait()  # who keeps trying may not know its network yet
        inbox = self._membership.inbox
        if inbox is not None:
            async for message in self._durable.read(inbox):
                yield message

    async def open_stream(self, to: PeerId | str, name: str, timeout_s: float | None = None) -> Stream:
        """A new stream of bytes to `to`, once the other side has heard of it; its app need not have taken it yet.

        name: what it is for, 1 to 128 B. timeout_s: until the other side has heard of it (default 10).

        Raises `PeerIdError`; `PeerUnknown`, `PeerOffline` or `NotAccepted` if nobody was reached, `DeliveryUnknown` if
        nobody answered; `NotSupported` if the other side takes no streams, `StreamReset` if it takes no more of them;
        `QueueFull` if we have too many; `PeerClosed`; ValueError for a name that is empty or too long, or our own id.
        """
        return await self._streams.open(_peer_id(to), name, timeout_s)

    def streams(self, name: str | None = None) -> AsyncIterator[Stream]:
        """Streams that others open, as they come: those of one name, or all for whose name nobody asks. Ends when this
        peer is closed. A stream that nobody takes within half a minute is refused.
        """
        return self._streams.incoming(name)

    # --- files ---

    async def push_file(self, path: Path | str, to: PeerId | str, on_progress: OnProgress | None = None) -> int:
        """Give a file to `to`, if it takes files from us. Returns its size when it is whole on the other side's disk.

        on_progress: called with bytes that are on their way and bytes in all. What breaks is gone on with by calling
        this again: the other side keeps what came, and proves it by its digest.

        Raises `TransferFailed`, and what `open_stream` and `Stream.write` raise.
        """
        offload, nothing = self._membership.host.offload, lambda done, size: None
        return await push(self._streams, offload, Path(path), _peer_id(to), on_progress or nothing)

    async def pull_file(
        self, name: str, peer: PeerId | str, folder: Path | str, on_progress: OnProgress | None = None
    ) -> Path:
        """Get the file `name` out of what `peer` serves into `folder`; nothing is overwritten. Gives where it is.

        What came of a transfer that broke stays in `folder` as `.NAME.part`, and calling this again goes on with it.

        Raises as `push_file`.
        """
        offload, nothing = self._membership.host.offload, lambda done, size: None
        return await pull(self._streams, offload, name, _peer_id(peer), Path(folder), on_progress or nothing)

    def serve_files(
        self,
        *,
        receive: Path | str | None = None,
        serve: Path | str | None = None,
        accept: Collection[PeerId | str] | None = None,
        max_bytes: int = 1 << 30,
        on_event: Callable[[FileEvent], None] | None = None,
    ) -> None:
        """Until we are closed, take files that others push into the folder `receive`, and give those that lie in the
        folder `serve` to whoever pulls them: no subfolders, no links, and no names with a leading dot.

        accept: with whom; None: with everybody who can reach us. max_bytes: of a file that is taken.
        on_event: told what became of each file.

        Raises `PeerIdError`; `TransferFailed` for what is no folder.
        """
        folders = [Path(folder) if folder is not None else None for folder in (receive, serve)]
        for folder in folders:
            if folder is not None and not folder.is_dir():
                raise TransferFailed(f"{folder} is no folder")
        server = FileServer(
            self._streams,
            self._membership.host.offload,
            receive=folders[0],
            serve=folders[1],
            accept=[_peer_id(who) for who in accept] if accept is not None else None,
            max_bytes=max_bytes,
            on_event=on_event or (lambda event: None),
        )
        server.begin()
        self._features.insert(0, server)


class _Opening:
    """What `Peer.open` gives: awaitable, and an asynchronous context manager."""

    def __init__(self, opener: Callable[[], Any]) -> None:
        self._opener = opener
        self._peer: Peer | None = None

    def __await__(self) -> Any:
        return self._opener().__await__()

    async def __aenter__(self) -> Peer:
        peer: Peer = await self._opener()
        self._peer = peer
        return peer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._peer is not None:
            await self._peer.aclose()


def _peer_id(who: PeerId | str) -> PeerId:
    if isinstance(who, PeerId):
        return who
    if isinstance(who, str):
        return PeerId.parse(who)
    raise PeerIdError("a PeerId or its 56 characters are wanted")


def _bytes(data: bytes) -> bytes:
    """What an app wants to say. Anything else would be found out by the other side only, which ends the link for it."""
    if type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a message is bytes, not {type(data).__name__}; text.encode() makes them of text")
