"""Files from peer to peer: pushed to whoever takes them, pulled from whoever gives them. docs/wire.md, "Files".

    puller     WANT(name)            (a pull only)
    sender     OFFER(name, size, digest)
    receiver   TAKE(how much it has, digest of that)    or NO
    sender     FROM(offset), the bytes, end of stream
    receiver   DONE                                     or NO

A transfer that broke is gone on with by making it again: what is there is proved by its digest, never believed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, Bytes32, WireStruct, decode, encode
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import AtOnceError, StreamReset, TransferFailed, WireError
from dht_atonce.host import Offload
from dht_atonce.identity import PeerId
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.streams.folder import MAX_FILE_NAME, Part, Source, checked_name
from dht_atonce.streams.stream import Stream
from dht_atonce.streams.streams import Streams
from dht_atonce.tasks import TaskGroup

__all__ = ["FileEvent", "FileServer", "OnProgress", "pull", "push"]

PUSH: Final = "atonce.push"
PULL: Final = "atonce.pull"
MAX_SIZE: Final = 1 << 50
_WRITE_BYTES: Final = 1 << 20
"""Written to the disk at once: each write is a hop to a thread."""
_MAX_TALK: Final = 2048
_FIRST_S: Final = 60.0
"""For what a stream begins with."""
_TALK_S: Final = 600.0
"""For each further word of the other side: it may hash what it has of the file first."""
_STALLED_S: Final = 120.0
"""Without a byte for so long, a transfer is over: it would hold the place of another."""
_LAST_WORD_S: Final = 10.0
"""For whoever reads no more to hear how it ended."""
_MAX_AT_ONCE: Final = 32
_MAX_PER_PEER: Final = 4

Size = Annotated[int, Meta(ge=0, le=MAX_SIZE)]
Name = Annotated[str, Meta(max_length=MAX_FILE_NAME)]
OnProgress = Callable[[int, int], None]
"""Told of bytes that are there, or on their way, and of how many there will be."""


class Want(WireStruct, tag=1, frozen=True):
    """Send me this file."""

    minor: U8
    name: Name


class Offer(WireStruct, tag=2, frozen=True):
    """This is the file."""

    minor: U8
    name: Name
    size: Size
    digest: Bytes32
    """BLAKE2b-256 of all of it."""


class Take(WireStruct, tag=3, frozen=True):
    """I have so much of it already."""

    have: Size
    digest: Bytes32
    """BLAKE2b-256 of that."""


class From(WireStruct, tag=4, frozen=True):
    """The bytes from `offset` on follow, to the end of the stream: `have` if its digest is right, else 0."""

    offset: Size


class Done(WireStruct, tag=5, frozen=True):
    """It is on the disk, whole, under its name."""


class No(WireStruct, tag=6, frozen=True):
    """It comes to nothing."""

    text: Annotated[str, Meta(max_length=256)]


Talk = Want | Offer | Take | From | Done | No
T = TypeVar("T", bound=Talk)
R = TypeVar("R")

TALK: "msgspec.msgpack.Decoder[Talk]" = msgspec.msgpack.Decoder(Talk)


@dataclass(frozen=True, slots=True)
class FileEvent:
    """What came of a file that another peer pushed or pulled."""

    peer: PeerId
    name: str
    size: int
    pushed: bool
    """To us; False: pulled from us."""
    error: str
    """Empty: it is there, whole."""


class _Stoppable(Protocol):
    stopped: bool


async def aside(offload: Offload, call: Callable[[], R], of: _Stoppable) -> R:
    """Have `call` done where it blocks nobody. Whoever is cancelled waits for its end: it uses what is closed next."""
    running = asyncio.ensure_future(offload.run(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        of.stopped = True
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise


async def say(stream: Stream, message: Talk) -> None:
    data = encode(message)
    await stream.write(len(data).to_bytes(2) + data)


async def hear(stream: Stream, kind: type[T], timeout_s: float = _TALK_S) -> T:
    """The next word, which must be of this kind. Raises `TransferFailed`."""
    try:
        async with asyncio.timeout(timeout_s):
            size = int.from_bytes(await stream.readexactly(2))
            if size > _MAX_TALK:
                raise WireError("too long")
            message = decode(TALK, await stream.readexactly(size))
    except (WireError, asyncio.IncompleteReadError):
        raise TransferFailed("the other side does not say what it should") from None
    except TimeoutError:
        raise TransferFailed(f"the other side said nothing for {timeout_s:g} s") from None
    if isinstance(message, No):
        raise TransferFailed(f"the other side says: {message.text}")
    if not isinstance(message, kind):
        raise TransferFailed("the other side does not say what it should")
    return message


async def in_time(step: Awaitable[R]) -> R:
    """A piece that is read or written."""
    try:
        async with asyncio.timeout(_STALLED_S):
            return await step
    except TimeoutError:
        raise TransferFailed(f"nothing moved for {_STALLED_S:g} s") from None


# --- the two halves of each transfer ---


async def send_file(stream: Stream, source: Source, digest: bytes, offload: Offload, progress: OnProgress) -> None:
    """OFFER, the bytes, and the other side's DONE."""
    await say(stream, Offer(0, source.name, source.size, digest))
    take = await hear(stream, Take)
    offset = 0
    if 0 < take.have <= source.size:
        proof = await aside(offload, lambda: source.digest(take.have), source)
        offset = take.have if proof == take.digest else 0
    await say(stream, From(offset))
    progress(offset, source.size)
    try:
        while offset < source.size:
            block = await aside(offload, partial(source.read, offset), source)
            if not block:
                raise TransferFailed(f"{source.name} became shorter while it was read")
            await in_time(stream.write(block))
            offset += len(block)
            progress(offset, source.size)
        await stream.write_eof()
    except StreamReset:
        await hear(stream, Done)  # it may have said why
        raise
    await hear(stream, Done)
    await stream.read(1)  # the end: who closes before would break off what still says that it is done


async def receive_file(stream: Stream, folder: Path, offer: Offer, offload: Offload, progress: OnProgress) -> Path:
    """TAKE, the bytes, and our DONE. Gives where the file is."""
    part = Part(folder, checked_name(offer.name), offer.size, offer.digest)
    try:
        have, digest = await aside(offload, part.open, part)
        await say(stream, Take(have, digest))
        offset = (await hear(stream, From)).offset
        part.start_at(offset)
        progress(part.have, part.size)
        pieces: list[bytes] = []
        waiting, at_end = 0, False
        while not at_end:
            piece = await in_time(stream.read(_WRITE_BYTES))
            at_end = not piece
            pieces.append(piece)
            waiting += len(piece)
            if waiting >= _WRITE_BYTES or (at_end and waiting):
                data, pieces, waiting = b"".join(pieces), [], 0
                await aside(offload, partial(part.write, data), part)
                progress(part.have, part.size)
        await aside(offload, part.finish, part)
    finally:
        part.close()
    await say(stream, Done())
    return part.path


async def push(
    streams: Streams, offload: Offload, path: Path, to: PeerId, progress: OnProgress = lambda done, size: None
) -> int:
    """As `Peer.push_file`."""
    source = await offload.run(lambda: Source(path, follow=True))
    try:
        checked_name(source.name)
        digest = await aside(offload, lambda: source.digest(source.size), source)
        await over_stream(streams, to, PUSH, lambda stream: send_file(stream, source, digest, offload, progress))
        return source.size
    finally:
        source.close()


async def pull(
    streams: Streams,
    offload: Offload,
    name: str,
    peer: PeerId,
    folder: Path,
    progress: OnProgress = lambda done, size: None,
) -> Path:
    """As `Peer.pull_file`."""
    checked_name(name)
    if not await offload.run(folder.is_dir):
        raise TransferFailed(f"{folder} is no folder")

    async def ask(stream: Stream) -> Path:
        await say(stream, Want(0, name))
        offer = await hear(stream, Offer)
        if offer.name != name:
            raise TransferFailed("the other side offers another file")
        try:
            return await receive_file(stream, folder, offer, offload, progress)
        except TransferFailed as error:
            await say(stream, No(str(error)[:256]))
            raise

    return await over_stream(streams, peer, PULL, ask)


async def over_stream(streams: Streams, peer: PeerId, name: str, talk: Callable[[Stream], Awaitable[R]]) -> R:
    """Open a stream and `talk` over it. A stream that was reset is a transfer that failed."""
    try:
        async with await streams.open(peer, name) as stream:
            return await talk(stream)
    except StreamReset as error:
        raise TransferFailed(f"{peer.short}… broke it off: {error}") from None


class FileServer:
    """Takes files into one folder, and gives files out of one; nothing outside of them, and nothing is overwritten."""

    def __init__(
        self,
        streams: Streams,
        offload: Offload,
        *,
        receive: Path | None,
        serve: Path | None,
        accept: Collection[PeerId] | None,
        max_bytes: int,
        on_event: Callable[[FileEvent], None],
    ) -> None:
        self._streams = streams
        self._offload = offload
        self._receive = receive
        self._serve = serve
        self._accept = accept
        self._max_bytes = max_bytes
        self._on_event = on_event
        self._busy: dict[PeerId, int] = {}
        self._tasks = TaskGroup()

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of a peer's features: streams are all that it needs."""

    def begin(self) -> None:
        """Take and give from now on."""
        if self._receive is not None:
            self._tasks.start(self._all(PUSH), "files that are pushed")
        if self._serve is not None:
            self._tasks.start(self._all(PULL), "files that are pulled")

    async def aclose(self) -> None:
        """Break off what is under way; parts stay."""
        await self._tasks.aclose()

    async def _all(self, name: str) -> None:
        async for stream in self._streams.incoming(name):
            self._tasks.start(self._one(stream), f"{name} {stream.peer.short}")

    async def _one(self, stream: Stream) -> None:
        peer, event = stream.peer, None
        self._busy[peer] = self._busy.get(peer, 0) + 1
        try:
            try:
                self._check(peer)
                event = await (self._take(stream) if stream.name == PUSH else self._give(stream))
            except TransferFailed as error:
                event = FileEvent(peer, "", 0, stream.name == PUSH, str(error))
                async with asyncio.timeout(_LAST_WORD_S):
                    await say(stream, No(str(error)[:256]))
            async with asyncio.timeout(_LAST_WORD_S):
                await stream.aclose()
        except (AtOnceError, TimeoutError) as error:
            event = event or FileEvent(peer, "", 0, stream.name == PUSH, str(error))
        finally:
            stream.abort()
            self._busy[peer] -= 1
            if not self._busy[peer]:
                del self._busy[peer]
        self._on_event(event)

    def _check(self, peer: PeerId) -> None:
        if self._accept is not None and peer not in self._accept:
            raise TransferFailed("you are not among those from whom files are taken, or to whom they are given")
        if self._busy[peer] > _MAX_PER_PEER or sum(self._busy.values()) > _MAX_AT_ONCE:
            raise TransferFailed("too many files are under way; try again later")

    async def _take(self, stream: Stream) -> FileEvent:
        assert self._receive is not None
        offer = await hear(stream, Offer, _FIRST_S)
        if offer.size > self._max_bytes:
            raise TransferFailed(f"a file may have {self._max_bytes} bytes here, and this has {offer.size}")
        path = await receive_file(stream, self._receive, offer, self._offload, lambda done, size: None)
        return FileEvent(stream.peer, path.name, offer.size, True, "")

    async def _give(self, stream: Stream) -> FileEvent:
        assert self._serve is not None
        path = self._serve / checked_name((await hear(stream, Want, _FIRST_S)).name)
        source = await self._offload.run(lambda: Source(path, follow=False))
        try:
            digest = await aside(self._offload, lambda: source.digest(source.size), source)
            await send_file(stream, source, digest, self._offload, lambda done, size: None)
        finally:
            source.close()
        return FileEvent(stream.peer, source.name, source.size, False, "")
