"""Who may reach us: anybody, those whom the app says, or our contacts, which the profile keeps."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dht_atonce.codec import Bytes32, WireStruct, decode, encode
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import ConfigError, PeerIdError, ProfileError, QueueFull, WireError
from dht_atonce.identity import PeerId
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.profile import Profile

__all__ = ["CONTACTS_FILE", "MAX_CONTACTS", "Accept", "Access", "Contacts", "read_contacts"]

CONTACTS_FILE: Final = "contacts"
MAX_CONTACTS: Final = 5_000
_MAX_NAME = 64


class _Saved(WireStruct, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    contacts: Annotated[list[tuple[Bytes32, str]], Meta(max_length=MAX_CONTACTS)]


_DECODER = msgspec.msgpack.Decoder(_Saved)


def read_contacts(data: bytes | None) -> dict[PeerId, str]:
    """What the profile's file says, None if there is none. Raises `ProfileError`."""
    if data is None:
        return {}
    try:
        return {PeerId(key): name for key, name in decode(_DECODER, data).contacts}
    except (WireError, PeerIdError):
        text = f"the profile's file {CONTACTS_FILE!r} is damaged; restore it from a backup, or delete it"
        raise ProfileError(f"{text}: whom it named is no contact any more") from None


class Contacts:
    """Peers whom the user knows, with names for them if wanted; kept in the profile.

    `in`, `len` and iteration work as for a collection of `PeerId`s. Raises `ProfileError` if the file is damaged.
    """

    def __init__(self, profile: Profile) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._profile = profile
        self._names = read_contacts(profile.read(CONTACTS_FILE))
        self._writing = asyncio.Lock()

    def __contains__(self, who: object) -> bool:
        return who in self._names

    def __iter__(self) -> Iterator[PeerId]:
        return iter(list(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def name(self, who: PeerId) -> str:
        """What the user calls a peer; empty: nothing, or it is no contact."""
        return self._names.get(who, "")

    async def add(self, who: PeerId | str, name: str = "") -> None:
        """Know this peer from now on, by this name (at most 64 B); returns when that is on the disk.

        Raises `PeerIdError`, `ConfigError` for a name that is too long, `QueueFull` beyond 5,000 contacts;
        `ProfileError` if it cannot be written, and then it holds until the process ends.
        """
        peer_id = who if isinstance(who, PeerId) else PeerId.parse(who)
        if not name.isprintable() or len(name.encode()) > _MAX_NAME:
            raise ConfigError(f"a contact's name has at most {_MAX_NAME} bytes, and can be printed")
        if peer_id not in self._names and len(self._names) >= MAX_CONTACTS:
            raise QueueFull(f"there are {MAX_CONTACTS} contacts already; remove some")
        self._names[peer_id] = name
        self.on_change()
        await self._save()

    async def remove(self, who: PeerId | str) -> bool:
        """Know this peer no longer, from now on; returns when that is on the disk. False: it was no contact.

        Raises `PeerIdError`; `ProfileError` as `add`.
        """
        peer_id = who if isinstance(who, PeerId) else PeerId.parse(who)
        if self._names.pop(peer_id, None) is None:
            return False
        self.on_change()
        await self._save()
        return True

    async def _save(self) -> None:
        async with self._writing:  # the last one to write has all that was changed before
            saved = _Saved(1, [(peer_id.key, name) for peer_id, name in self._names.items()])
            await self._profile.write(CONTACTS_FILE, encode(saved))

    def list(self) -> dict[PeerId, str]:
        """All contacts and their names, in the order in which they were added."""
        return dict(self._names)


Accept = Callable[[PeerId], bool] | Collection[PeerId] | Contacts | Literal["contacts"] | None
"""Whom to let in: those for whom a function says True; those in a collection, which is copied; the contacts, as they
are at any time; None: anybody."""


class Access:
    """A `Feature` of a peer: has its messenger refuse whoever is not to reach us."""

    def __init__(self, contacts: Contacts, accept: Accept, counters: Counter[str]) -> None:
        self.contacts = contacts
        self._counters = counters
        self._messenger: Messenger | None = None
        self._is_accepted: Callable[[PeerId], bool]
        self.set(accept)
        contacts.on_change = self._apply

    @property
    def accept(self) -> Accept:
        """What was set last."""
        return self._accept

    def set(self, accept: Accept) -> None:
        """As `Peer.accept`. Raises ValueError for what is neither a function nor a collection of `PeerId`s."""
        if accept is None:
            self._is_accepted = lambda _: True
        elif accept is self.contacts or accept == "contacts":
            self._is_accepted = self.contacts.__contains__
        elif callable(accept):
            self._is_accepted = accept
        elif all(isinstance(one, PeerId) for one in accept):  # a text is a collection too, of letters
            self._is_accepted = frozenset(accept).__contains__
        else:
            raise ValueError("accept is a function, a collection of PeerIds, 'contacts', or None for anybody")
        self._accept = accept
        self._apply()

    def accepts(self, peer_id: PeerId) -> bool:
        """Whether a peer may reach us. Nobody is let in by a function that fails."""
        try:
            return bool(self._is_accepted(peer_id))
        except Exception as error:
            self._counters["access.failed"] += 1
            context = {"message": "the function that says who is accepted failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return False

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of `Feature`."""
        self._messenger = messenger
        self._apply()

    async def aclose(self) -> None:
        """Of `Feature`."""
        self._messenger = None

    def _apply(self) -> None:
        if self._messenger is not None:
            self._messenger.set_accept(self.accepts)
