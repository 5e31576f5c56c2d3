"""Who is in the room, as one member knows it. No I/O, no clock: `now` is monotonic seconds, `wall` Unix seconds.

    unknown ──HERE──▶ member ──SUSPECT──▶ suspect ──nothing within ten seconds──▶ gone
                        │  ▲                 └──a newer HERE──▶ member
                        │  └── a newer HERE ── gone
                        └── GONE, or too long without HERE ──▶ gone

Each member says of itself that it is here; others can only ask it to say so again, by suspecting it. So whoever accuses
somebody who lives makes it say one more word, and nothing else.
"""

import hashlib
from typing import NamedTuple

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.wire import Statement, here_of

__all__ = ["Change", "Roster"]

_FOR_EVER = float("inf")
_AHEAD_S = 600.0  # nobody signs what is so far in the future; it would outlive its member


class Change(NamedTuple):
    """Somebody came or went."""

    member: bytes
    entered: bool
    word: str
    """Its name, or why it left: `left`, `lost` or `silent`."""


class _Member:
    __slots__ = ("name", "statement", "suspect_until", "suspicion")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        _, self.name = here_of(statement.data)
        self.suspect_until = _FOR_EVER
        self.suspicion: Statement | None = None


def _mark(statement: Statement) -> int:
    said = statement.author + statement.session.to_bytes(8, "big") + statement.seq.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")


class Roster:
    """All members but ourselves."""

    def __init__(self, config: RoomsConfig) -> None:
        self.sum = 0
        """XOR of what stands for each member."""
        self._config = config
        self._members: dict[bytes, _Member] = {}
        # The last statement of those who left, and the last version at which they were lost
        self._gone: dict[bytes, tuple[int, int, Statement | None]] = {}
        self._suspects: dict[bytes, None] = {}
        self._changes: list[Change] = []
        self._look_at = _FOR_EVER

    # --- getters ---

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: bytes) -> bool:
        return member in self._members

    @property
    def deadline(self) -> float:
        """When `on_time` has something to do."""
        return min((self._members[one].suspect_until for one in self._suspects), default=_FOR_EVER)

    def keys(self) -> list[bytes]:
        """All members."""
        return list(self._members)

    def name(self, member: bytes) -> str | None:
        """What a member calls itself; None if it is none."""
        known = self._members.get(member)
        return known.name if known is not None else None

    def statements(self) -> list[Statement]:
        """What each member said last of itself."""
        return [known.statement for known in self._members.values()]

    def has(self, member: bytes, session: int, version: int) -> bool:
        """Whether we know of this member what is at least as new."""
        known = self._members.get(member)
        if known is not None and (known.statement.session, known.statement.seq) >= (session, version):
            return True
        gone = self._gone.get(member)
        return gone is not None and gone[:2] >= (session, version)

    def has_suspicion(self, member: bytes, session: int, version: int) -> bool:
        """Whether to suspect it at this version is no news."""
        known = self._members.get(member)
        if known is None or (known.statement.session, known.statement.seq) > (session, version):
            return True
        return known.suspicion is not None

    def news(self, member: bytes) -> Statement | None:
        """What it said last of itself, or others of it."""
        known = self._members.get(member)
        if known is not None:
            return known.statement
        gone = self._gone.get(member)
        return gone[2] if gone is not None else None

    def suspicion(self, member: bytes) -> Statement | None:
        """Why it is a suspect."""
        known = self._members.get(member)
        return known.suspicion if known is not None else None

    def is_acceptable(self, statement: Statement, wall: float) -> bool:
        """Whether it says something, and is neither too old nor from the future."""
        if not 8 <= len(statement.data) <= 8 + self._config.max_name_bytes:
            return False
        said_s = statement.seq / 1_000_000
        return wall - self._config.here_life_s < said_s < wall + _AHEAD_S

    def mark(self, statement: Statement) -> int:
        """What stands for a member in the sum, 64 bits."""
        return _mark(statement)

    # --- inputs ---

    def on_here(self, statement: Statement) -> bool:
        """A member says that it is here, which `has` did not know. False: there is no room to know it by name."""
        author = statement.author
        known = self._members.get(author)
        if known is None and len(self._members) >= self._config.max_members:
            return False
        self._gone.pop(author, None)
        self._suspects.pop(author, None)
        member = self._members[author] = _Member(statement)
        self.sum ^= _mark(statement)
        if known is not None:
            self.sum ^= _mark(known.statement)
        if known is None or known.name != member.name or known.statement.session != statement.session:
            self._changes.append(Change(author, True, member.name))
        return True

    def on_gone(self, statement: Statement) -> None:
        """A member says that it leaves, which `has` did not know."""
        self._leave(statement.author, "left", statement.session, statement.seq, statement)

    def on_suspect(self, member: bytes, statement: Statement, now: float) -> None:
        """Somebody cannot reach a member, which `has_suspicion` did not know."""
        known = self._members[member]
        known.suspicion = statement
        known.suspect_until = now + self._config.suspect_s
        self._suspects[member] = None

    def on_time(self, now: float) -> None:
        """Suspects that have not answered are lost."""
        for member in list(self._suspects):
            known = self._members[member]
            if known.suspect_until <= now:
                self._leave(member, "lost", known.statement.session, known.statement.seq, None)

    def expire(self, wall: float) -> None:
        """Those who have not said for long that they are here have left."""
        for member, known in list(self._members.items()):
            if known.statement.seq / 1_000_000 < wall - self._config.here_life_s:
                self._leave(member, "silent", known.statement.session, known.statement.seq, None)

    # --- drain ---

    def take_changes(self) -> list[Change]:
        """Who came and went, in order."""
        changes, self._changes = self._changes, []
        return changes

    # --- inside ---

    def _leave(self, member: bytes, why: str, session: int, version: int, statement: Statement | None) -> None:
        known = self._members.pop(member, None)
        self._suspects.pop(member, None)
        self._gone.pop(member, None)
        self._gone[member] = session, version, statement
        if len(self._gone) > self._config.max_gone:
            del self._gone[next(iter(self._gone))]
        if known is not None:
            self.sum ^= _mark(known.statement)
            self._changes.append(Change(member, False, why))
