"""The topics of a node: signs memberships of ours, and runs a `MemberList` to gather the members."""

import asyncio
from functools import partial
from typing import Any

from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.own import Signer
from dht_atonce.dht.protocol import Answer
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.stretches import Ask
from dht_atonce.dht.topics import MemberList
from dht_atonce.dht.wire import FindMembers, Members
from dht_atonce.endpoints import Address
from dht_atonce.errors import RecordError
from dht_atonce.identity import Identity
from dht_atonce.records import MembershipRecord

__all__ = ["gather", "membership_signer"]


async def gather(
    shared: Shared, servers: list[tuple[FamilyServer, int]], key: bytes, limit: int | None
) -> list[MembershipRecord]:
    """The members of the topic with this key, or with `limit` a random sample of them. `servers` says through which
    families, and what is wanted of another."""
    members = MemberList(key, shared.parser, shared.config, shared.host.rng, now=shared.now(), limit=limit)
    roster, wall = shared.store.roster(key), shared.wall()
    if roster is not None:
        members.on_own([record for record in roster.records() if roster.until(record) > wall])
    await _Gathering(shared, members).run(servers)
    return members.members()


def membership_signer(
    identity: Identity,
    network: NetworkConfig,
    incarnation: bytes,
    topic: str,
    status: str,
    endpoints: tuple[Address, ...] = (),
    data: bytes = b"",
) -> Signer:
    """What signs a membership of ours again and again, each time with another seq and expiry."""

    def sign(seq: int, expires: int) -> MembershipRecord:
        return MembershipRecord.sign(
            identity,
            network,
            seq=seq,
            incarnation=incarnation,
            expires=expires,
            topic=topic,
            status=status,
            endpoints=endpoints,
            data=data,
        )

    return sign


class _Gathering:
    """One search for the members of a topic, in all families in which we listen."""

    __slots__ = ("_done", "_members", "_shared", "_where")

    def __init__(self, shared: Shared, members: MemberList) -> None:
        self._shared = shared
        self._members = members
        # The server through which each contact is asked
        self._where: dict[Contact, FamilyServer] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, servers: list[tuple[FamilyServer, int]]) -> None:
        """Look up the holders in each of the families, with what is wanted of another, and go through their pages."""
        crawls = [
            (
                server,
                server.crawl(
                    self._members.key,
                    wants_record=True,
                    eager=True,
                    want=want,
                    make=partial(_MemberCrawl, self._members),
                ),
            )
            for server, want in servers
        ]
        try:
            for server, crawl in crawls:
                await crawl.done
                holders = crawl.lookup.closest(self._shared.network.k, server.region)
                self._where.update((contact, server) for contact in holders)
        finally:
            for _, crawl in crawls:
                crawl.stop()
        self._members.settle(list(self._where))
        self._pump()
        await self._done

    def _pump(self) -> None:
        if self._done.done():
            return
        self._ask(self._members.next(self._shared.now()))
        if not self._members.is_asking:
            self._done.set_result(None)

    def _ask(self, asks: list[Ask]) -> None:
        for ask in asks:
            protocol = self._where[ask.contact].protocol
            request = FindMembers(0, protocol.request_id(), protocol.flags, self._members.key, 0, ask.seed, ask.start)
            protocol.ask(ask.contact, request, partial(self._on_answer, ask))

    def _on_answer(self, ask: Ask, answer: Answer | None) -> None:
        if self._done.done():
            return
        _, following = _on_page(self._shared, self._members, ask, answer)
        if following:
            self._ask(following)
        else:
            self._pump()


class _MemberCrawl(Crawl):
    """A lookup that asks each node on its way for its first page of members."""

    def __init__(self, members: MemberList, *args: Any, **kwargs: Any) -> None:
        self._members = members
        super().__init__(*args, **kwargs)

    def _ask(self, contact: Contact) -> None:
        ask = self._members.first(contact)
        request = FindMembers(
            0, self._protocol.request_id(), self._flags, self._target, self._want, ask.seed, ask.start
        )
        self._protocol.ask(contact, request, partial(self._on_first, ask))

    def _on_first(self, ask: Ask, answer: Answer | None) -> None:
        if self.done.done():
            return
        contact = ask.contact
        page, _ = _on_page(self._shared, self._members, ask, answer)
        if page is None or answer is None:
            self.lookup.on_failure(contact)
        else:
            if not answer.proved:
                self.strangers.append(contact)
            self._on_contacts(contact, page.contacts, page.other, None)
        self._pump()


def _on_page(shared: Shared, members: MemberList, ask: Ask, answer: Answer | None) -> tuple[Members | None, list[Ask]]:
    """The page in an answer, taken in, and what is asked next; None if there is none, or none that can be believed."""
    if answer is None or not isinstance(answer.reply, Members):
        members.on_failure(ask)
        return None, []
    try:
        return answer.reply, members.on_page(ask, answer.reply, shared.wall())
    except RecordError as error:
        shared.counters[f"record.{error.reason}"] += 1
        return None, []
