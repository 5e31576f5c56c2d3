"""Runs a `Lookup` over a protocol: sends what it chooses, tells it what came back."""

import asyncio
from collections.abc import Callable
from functools import partial

from dht_atonce.dht.contact import KEY_SIZE, Contact, unpack_contacts
from dht_atonce.dht.lookup import Lookup
from dht_atonce.dht.peers import pick_diverse
from dht_atonce.dht.protocol import Answer, SealedProtocol
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import FLAG_UNSURE, FindNode, FindValue, Found
from dht_atonce.endpoints import Family
from dht_atonce.errors import RecordError
from dht_atonce.records import AnyRecord, MembershipRecord

__all__ = ["Crawl"]

# Where a contact's bytes have what `endpoints.subnet` gives
_SUBNET = {Family.IPV4: slice(KEY_SIZE, KEY_SIZE + 3), Family.IPV6: slice(KEY_SIZE, KEY_SIZE + 6)}


class Crawl:
    """One running lookup in one family. With `key`, it looks for the record too."""

    def __init__(
        self,
        protocol: SealedProtocol,
        shared: Shared,
        family: Family,
        lookup: Lookup,
        target: bytes,
        *,
        wants_record: bool,
        want: int = 0,
        scout: "Callable[[Lookup], list[Crawl]] | None" = None,
    ) -> None:
        """`scout` is asked once, when the lookup would end without a record: other searches that are to be waited for,
        since they may meet more whom it should ask."""
        self.lookup = lookup
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[AnyRecord | None] = loop.create_future()
        """The first verified record, as soon as it is there; None if the lookup ended without one."""
        self.done: asyncio.Future[None] = loop.create_future()
        """Done when the lookup is over."""
        self.other_contacts: dict[bytes, Contact] = {}
        """Contacts of the other family that replies named, by id."""
        self.strangers: list[Contact] = []
        """Those that answered and have no proof of our address yet."""
        self.on_answered: Callable[[Crawl], None] | None = None
        """Called when somebody has answered, before others are asked."""
        self._protocol = protocol
        self._shared = shared
        self._family = family
        self._target = target
        self._wants_record = wants_record
        self._want = want
        self._scout = scout
        self._scouts: list[Crawl] = []
        self._flags = protocol.flags
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pump()

    def stop(self) -> None:
        """End without an answer; `first` gives what was found, `done` is done."""
        self._finish()

    def _pump(self) -> None:
        if self.done.done():
            return
        now = self._shared.now()
        hedge_s = self._shared.known.hedge_s
        for contact in self.lookup.next(now, hedge_s):
            self._ask(contact)
        if self.lookup.end is not None:
            if not self._waits_for_scouts():
                self._finish()
            return
        deadline = self.lookup.deadline(hedge_s)
        # Deadlines mostly move away: a timer that is too early looks once too often, and is cheaper than a new one.
        if self._timer is None or deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _waits_for_scouts(self) -> bool:
        if self._scout is None:
            return any(not scout.done.done() for scout in self._scouts)
        scout, self._scout = self._scout, None
        self._scouts = scout(self.lookup)
        for crawl in self._scouts:
            crawl.done.add_done_callback(self._on_scouted)
        return bool(self._scouts)

    def _on_scouted(self, _: "asyncio.Future[None]") -> None:
        if self.done.done() or self._waits_for_scouts():
            return
        for crawl in self._scouts:
            self.lookup.widen(crawl.lookup.known())
        self._pump()

    def _ask(self, contact: Contact) -> None:
        head = (0, self._protocol.request_id(), self._flags, self._target, self._want)
        request = FindValue(*head) if self._wants_record else FindNode(*head)
        self._protocol.ask(contact, request, partial(self._on_answer, contact))

    def _on_answer(self, contact: Contact, answer: Answer | None) -> None:
        if self.done.done():
            return
        if answer is None or not isinstance(answer.reply, Found):
            self.lookup.on_failure(contact)
        else:
            if not answer.proved:
                self.strangers.append(contact)
            self._on_found(contact, answer.reply)
            if self.on_answered is not None:
                self.on_answered(self)
        self._pump()

    def _on_found(self, contact: Contact, reply: Found) -> None:
        record: AnyRecord | None = None
        if reply.record:
            try:
                record = self._shared.parser.parse(reply.record, self._shared.wall())
                if record.key != self._target or not self._wants_record or isinstance(record, MembershipRecord):
                    raise RecordError("other_key")
            except RecordError as error:
                self._shared.counters[f"record.{error.reason}"] += 1
                record = None
                if error.reason != "expired":  # that may be a slow clock; all else is a lie, and so may the contacts be
                    self.lookup.on_failure(contact)
                    return
        is_sure = not reply.flags & FLAG_UNSURE
        self._on_contacts(contact, reply.contacts, reply.other, record, is_sure=is_sure)

    def _on_contacts(
        self,
        contact: Contact,
        named: list[bytes],
        named_other: list[bytes],
        record: AnyRecord | None,
        *,
        is_sure: bool = True,
    ) -> None:
        if named_other:
            other = Family.IPV6 if self._family is Family.IPV4 else Family.IPV4
            for found in self._contacts(named_other, other):
                if len(self.other_contacts) < self._shared.network.k:
                    self.other_contacts[found.id] = found
        contacts = self._contacts(named, self._family)
        self.lookup.on_reply(contact, contacts, record, is_sure=is_sure)
        if self.lookup.has_answer and not self.first.done():
            self.first.set_result(self.lookup.record)

    def _contacts(self, raw: list[bytes], family: Family) -> list[Contact]:
        local, subnet = self._shared.network.local, _SUBNET[family]
        contacts = unpack_contacts(raw, family, local=local)
        if len(contacts) < len(raw):
            self._shared.counters["dht.bad_contact"] += len(raw) - len(contacts)
        # Mostly each is in a subnet of its own, which its bytes tell sooner than its address.
        if local or len({data[subnet] for data in raw}) == len(raw):
            return contacts
        return pick_diverse(contacts, self._shared.config)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.first.done():
            self.first.set_result(self.lookup.record)
        if not self.done.done():
            self.done.set_result(None)
