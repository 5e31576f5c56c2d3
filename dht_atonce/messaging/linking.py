"""Links between peers: who is found is dialled, both sides say HELLO, and each pair keeps one link.

Whoever dials speaks first, so a listener can refuse without saying who it is. Two links at once arise when both dial in
the same moment: then the one that the lower `PeerId` dialled stays. Otherwise the newer takes the place of the older,
which the other side must have lost.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Protocol

from dht_atonce.config import MessagingConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import (
    AtOnceError,
    LinkError,
    LinkRefused,
    NotAccepted,
    PeerOffline,
    PeerUnknown,
    RecordError,
    WireError,
)
from dht_atonce.identity import PeerId
from dht_atonce.links import Link, LinkNet, LinkPort
from dht_atonce.messaging.frames import Bye, ByeCode, Frame, Hello, read_frame, write_frame
from dht_atonce.messaging.pair import Pair, PeerLink
from dht_atonce.messaging.refusals import Refusals
from dht_atonce.records import PresenceRecord, RecordParser
from dht_atonce.tasks import TaskGroup

__all__ = ["Accept", "Ended", "FindPresence", "Linking", "PairKeeper"]

FindPresence = Callable[[PeerId, bool], Awaitable[PresenceRecord | None]]
"""Looks up a peer's presence; the flag asks for the fresh one."""
Accept = Callable[[PeerId], bool]
"""Whether a peer may reach us."""


class Ended(Enum):
    """How it came that there is no link."""

    BROKEN = "broken"
    """It ended without a word, or after a protocol error."""
    LEFT = "left"
    """The other side said that it goes."""
    CLOSED = "closed"
    """One of the two did not need it any more."""
    REFUSED = "refused"
    """One of the two does not accept the other."""
    UNREACHABLE = "unreachable"
    """It was dialled in vain."""


_ENDED = {
    ByeCode.NOT_ACCEPTED: Ended.REFUSED,
    ByeCode.GOING_AWAY: Ended.CLOSED,
    ByeCode.NOT_NEEDED: Ended.CLOSED,
}
"""By the code with which we say BYE."""


class PairKeeper(Protocol):
    """Who owns the pairs, and is told of their links."""

    def pair(self, peer_id: PeerId) -> Pair:
        """The pair with this peer, made if new."""

    def on_linked(self, pair: Pair, hello: Hello, record: PresenceRecord) -> None:
        """`pair.link` is a new one, which passed HELLO."""

    def on_switched(self, pair: Pair) -> None:
        """`pair.link` has ended, and another one is used from now on."""

    def on_unlinked(self, pair: Pair, ended: Ended) -> None:
        """`pair.link` has ended, and there is no other."""

    def on_unreachable(self, pair: Pair, error: AtOnceError) -> None:
        """No link could be brought about."""

    def on_frame(self, pair: Pair, frame: Frame) -> None:
        """A frame came."""


class Linking:
    """Brings links about and ends them."""

    def __init__(
        self,
        own_id: PeerId,
        keeper: PairKeeper,
        links: LinkNet,
        parser: RecordParser,
        own_record: Callable[[], bytes],
        find: FindPresence,
        config: MessagingConfig,
        counters: Counter[str],
    ) -> None:
        self.accept: Accept = lambda _: True
        self._own_id = own_id
        self._keeper = keeper
        self._links = links
        self._parser = parser
        self._own_record = own_record
        self._find = find
        self._config = config
        self._counters = counters
        self.refusals = Refusals(config)
        self._open: dict[PeerLink, None] = {}
        self._tasks = TaskGroup()
        self._dials = asyncio.Semaphore(config.max_dials)
        self._loop = asyncio.get_running_loop()
        self._closed = False

    # --- life ---

    def listen(self, bind: Address) -> LinkPort:
        """Accept links. Raises `PortInUse`."""
        return self._links.listen(bind, self._on_link)

    async def stop_dialling(self) -> None:
        """Nothing new is begun from now on."""
        self._closed = True
        await self._tasks.aclose()

    async def aclose(self) -> None:
        """Say BYE over all links and end them."""
        await self.stop_dialling()
        for peer_link in list(self._open):
            self._bye(peer_link, ByeCode.GOING_AWAY, "going away")
        await self._links.aclose()

    # --- dialling ---

    def connect_soon(self, pair: Pair) -> None:
        """See to it that there is a link, unless there is or somebody does already."""
        if pair.link is None and pair.dial_task is None and not self._closed:
            pair.dial_task = self._tasks.start(self._connect(pair), f"dial {pair.peer_id.short}")

    def end(self, pair: Pair, code: int, text: str) -> None:
        """Say BYE over the links of the pair, and end them."""
        for peer_link in (pair.spare, pair.link):
            if peer_link is not None:
                self._bye(peer_link, code, text)

    async def _connect(self, pair: Pair) -> None:
        """Bring about a link to the peer, or say why there is none."""
        config = self._config
        error: AtOnceError | None = None
        try:
            for attempt in range(config.redials):
                if attempt:  # its links end as soon as they are open: not at once again
                    await asyncio.sleep(config.redial_s * 2 ** (attempt - 1))
                async with self._dials:
                    error = await self._dial_known(pair)
                if error is not None or pair.link is not None:
                    break
            else:
                error = PeerOffline(f"{pair.peer_id.short}… ends each link at once")
        finally:
            pair.dial_task = None
        if error is not None and pair.link is None and not self._closed:
            self._keeper.on_unreachable(pair, error)

    async def _dial_known(self, pair: Pair) -> AtOnceError | None:
        """Dial where the peer says it is; if the first record found leads nowhere, where the fresh one says."""
        short = pair.peer_id.short
        tried: list[Address] = []
        for fresh in (False, True):
            record = await self._find(pair.peer_id, fresh)
            if pair.link is not None:
                return None  # meanwhile the peer dialled us
            if record is None:
                if not tried:
                    return PeerUnknown(f"the network knows no peer {short}…")
                break
            if record.is_goodbye:
                if fresh:
                    return PeerOffline(f"{short}… has said goodbye")
                continue  # it may be back already
            for endpoint in record.endpoints:
                if endpoint in tried:
                    continue
                tried.append(endpoint)
                try:
                    if await self._dial(pair, endpoint):
                        return None
                except NotAccepted as refusal:
                    return refusal
        if not tried:
            return PeerOffline(f"{short}… has no address at which it can be dialled")
        return PeerOffline(f"{short}… does not answer at {', '.join(map(str, tried))}")

    async def _dial(self, pair: Pair, endpoint: Address) -> bool:
        """Whether it led to a link. Raises `NotAccepted`."""
        for attempt in range(2):
            if attempt:
                # It broke off: the machine stood still for a moment, or the cable did. Not at once again.
                await asyncio.sleep(self._config.redial_s)
            if pair.is_linked():
                return True
            try:
                link = await self._links.dial(endpoint, pair.peer_id.curve_key, self._config.hello_timeout_s)
            except LinkRefused:
                self._counters["messaging.dial_refused"] += 1
                continue
            except LinkError:
                self._counters["messaging.dial_failed"] += 1
                return False
            if pair.is_linked():  # the peer dialled us, and we have not said a word over ours
                link.close()
                return True
            peer_link = self._begin(link, self._loop.create_future())
            self._greet(peer_link, pair)
            assert peer_link.greeted is not None
            try:
                await peer_link.greeted
            except LinkRefused:
                continue
            except LinkError:
                return False
            except asyncio.CancelledError:
                link.close()
                self._forget(peer_link)
                raise
            return peer_link.pair is pair
        return False

    # --- links ---

    def _on_link(self, link: Link) -> None:
        if self._closed:
            link.close()
            return
        peer_link = self._begin(link, None)
        if self.refusals.is_spent(link.curve_key, self._loop.time()):
            self._counters["hello.refused_unread"] += 1
            self._bye(peer_link, ByeCode.NOT_ACCEPTED, "")

    def _begin(self, link: Link, greeted: "asyncio.Future[None] | None") -> PeerLink:
        peer_link = PeerLink(link, greeted)
        self._open[peer_link] = None
        peer_link.timer = self._loop.call_later(self._config.hello_timeout_s, self._on_no_hello, peer_link)
        link.start(partial(self._on_frame, peer_link), lambda _: self._on_closed(peer_link, Ended.BROKEN))
        return peer_link

    def _on_no_hello(self, peer_link: PeerLink) -> None:
        self._counters["messaging.no_hello"] += 1
        if peer_link.greeted is not None and not peer_link.greeted.done():
            peer_link.greeted.set_exception(LinkError("no HELLO came"))
        self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "no HELLO")

    def _greet(self, peer_link: PeerLink, pair: Pair) -> None:
        hello = pair.delivery.hello(self._own_record())
        peer_link.link.send(write_frame(Frame(0, 0, 0, [], [hello])))

    def _bye(self, peer_link: PeerLink, code: int, text: str) -> None:
        # An acknowledgement may be waiting for others; it goes along.
        ack = peer_link.pair.delivery.inflow.ack if peer_link.pair is not None else 0
        peer_link.link.send(write_frame(Frame(0, 0, ack, [], [Bye(code, text)])))
        self._end(peer_link, _ENDED.get(code, Ended.BROKEN))

    def _end(self, peer_link: PeerLink, ended: Ended) -> None:
        peer_link.link.close()
        self._on_closed(peer_link, ended)

    def _forget(self, peer_link: PeerLink) -> bool:
        """Whether it was known."""
        if peer_link not in self._open:
            return False
        del self._open[peer_link]
        if peer_link.timer is not None:
            peer_link.timer.cancel()
        return True

    def _on_closed(self, peer_link: PeerLink, ended: Ended) -> None:
        """The link has ended, whoever ended it."""
        if not self._forget(peer_link):
            return
        greeted, pair = peer_link.greeted, peer_link.pair
        if greeted is not None and not greeted.done():
            greeted.set_exception(LinkRefused("the link ended before HELLO"))
        if pair is None:
            return
        if pair.spare is peer_link:
            pair.spare = None
        elif pair.link is peer_link:
            pair.link, pair.spare = pair.spare, None
            if pair.link is not None:
                if pair.link.timer is not None:
                    pair.link.timer.cancel()  # it was to end as the second of two
                self._keeper.on_switched(pair)
            else:
                self._keeper.on_unlinked(pair, ended)

    # --- frames ---

    def _on_frame(self, peer_link: PeerLink, data: bytes) -> None:
        try:
            frame = read_frame(data)
        except WireError:
            self._counters["messaging.bad_frame"] += 1
            self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "unreadable frame")
            return
        for special in frame.specials:
            if isinstance(special, Bye):
                if peer_link.pair is not None:
                    self._keeper.on_frame(peer_link.pair, frame)
                self._on_bye(peer_link, special)
                return
            if isinstance(special, Hello):
                self._on_hello(peer_link, special)
        pair = peer_link.pair
        if pair is None:
            if peer_link in self._open:
                self._counters["messaging.before_hello"] += 1
                self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "HELLO comes first")
            return
        self._keeper.on_frame(pair, frame)

    def _on_bye(self, peer_link: PeerLink, bye: Bye) -> None:
        greeted = peer_link.greeted
        if bye.code == ByeCode.NOT_ACCEPTED and greeted is not None and not greeted.done():
            greeted.set_exception(NotAccepted("the other side does not accept us"))
        self._end(peer_link, Ended.LEFT if bye.code == ByeCode.GOING_AWAY else _ENDED.get(bye.code, Ended.BROKEN))

    def _on_hello(self, peer_link: PeerLink, hello: Hello) -> None:
        if peer_link.pair is not None or peer_link.link.is_closed:
            return
        try:
            record = self._parser.parse_presence(hello.record, None)
            if record.peer_id.curve_key != peer_link.link.curve_key:
                raise RecordError("not_of_this_link")
        except RecordError as error:
            self._counters[f"hello.{error.reason}"] += 1
            self._bye(peer_link, ByeCode.PROTOCOL_ERROR, f"record: {error.reason}")
            return
        if peer_link.greeted is None and not self.accept(record.peer_id):
            self._counters["hello.not_accepted"] += 1
            self.refusals.on_refused(record.peer_id.curve_key, self._loop.time())
            self._bye(peer_link, ByeCode.NOT_ACCEPTED, "")
            return
        pair = self._keeper.pair(record.peer_id)
        if not self._is_current(pair, record):
            self._counters["hello.old_incarnation"] += 1
            self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "a newer process of yours is here")
            return
        if peer_link.timer is not None:
            peer_link.timer.cancel()
        peer_link.pair = pair
        self._seat(pair, peer_link)
        pair.record = record if pair.record is None or record.seq >= pair.record.seq else pair.record
        if pair.link is peer_link:
            self._keeper.on_linked(pair, hello, record)
        if peer_link.greeted is None:
            self._greet(peer_link, pair)
        elif not peer_link.greeted.done():
            peer_link.greeted.set_result(None)

    def _is_current(self, pair: Pair, record: PresenceRecord) -> bool:
        """Whether this is not an older process than the one we know; if it is a newer one, that one's links end."""
        known = pair.delivery.their_incarnation
        if not known or record.incarnation == known:
            return True
        if pair.record is not None and record.seq < pair.record.seq:
            return False
        for old in (pair.link, pair.spare):
            if old is not None:
                old.link.close()
                self._forget(old)
        pair.link = pair.spare = None
        return True

    def _seat(self, pair: Pair, new: PeerLink) -> None:
        """Choose which link of the pair is used, now that there is a new one."""
        now = self._loop.time()
        new.since = new.used_at = now
        old, extra = pair.link, pair.spare
        pair.link, pair.spare = new, None
        if old is None:
            self._make_room(new)
        elif old.link.outbound == new.link.outbound or now - old.since > self._config.crossed_s:
            self._retire(old)
        elif old.link.outbound == (self._own_id < pair.peer_id):
            pair.link, pair.spare = old, new
        else:
            pair.spare = old
        if extra is not None:
            self._retire(extra)
        if pair.spare is not None:
            # Not at once: the other side may not know of the one that stays.
            pair.spare.timer = self._loop.call_later(self._config.crossed_s, self._end, pair.spare, Ended.CLOSED)

    def _retire(self, peer_link: PeerLink) -> None:
        if self._forget(peer_link):
            peer_link.link.close()

    def _make_room(self, new: PeerLink) -> None:
        """Of too many links, end the one that was least used."""
        if len(self._open) <= self._config.max_links:
            return
        idle = [one for one in self._open if one is not new and one.pair is not None and not one.pair.outflow.queued]
        if idle:
            self._counters["messaging.idle_closed"] += 1
            self._bye(min(idle, key=lambda one: one.used_at), ByeCode.NOT_NEEDED, "others need the room")
