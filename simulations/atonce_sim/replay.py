"""What one host did, or how one lookup went: a run is done again with the same seed, and its events are written down.

Datagrams are sealed; here they can be read because whoever seals one is heard before it does.
"""

from collections.abc import Callable
from typing import NamedTuple

from atonce_sim.trace import Seen
from dht_atonce.cipher import Cipher, CipherFactory
from dht_atonce.codec import decode
from dht_atonce.dht.wire import (
    FindMembers,
    FindNode,
    FindValue,
    Found,
    Members,
    NeedCookie,
    Noted,
    Notify,
    Ping,
    Pong,
    Refusal,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    StoreOutcome,
    Watch,
    Watching,
    reply_decoder,
    request_decoder,
)
from dht_atonce.errors import WireError

__all__ = ["Line", "Recorder"]

_NONCE = slice(34, 58)  # docs/wire.md section 3
_PREFIX = 3
_REQUEST = 0x01
_MAX_CONTENTS = 100_000  # datagrams under way whose content is remembered
_MAX_LINES = 1_000_000
_SAID = ("sent", "arrived", "lost", "frame")


class Line(NamedTuple):
    """One event, for people."""

    at_s: float
    host: int
    what: str
    """`sent`, `arrived`, `lost`, `frame`, or what a run says: `joined`, `lookup`, …"""
    other: int
    """-1: nobody."""
    words: str


class Recorder:
    """Writes down the events of one host, or of one lookup: exactly one of the two is given."""

    def __init__(self, *, host: int | None = None, lookup: int | None = None) -> None:
        self.lines: list[Line] = []
        self.left_out = 0
        """Events beyond a million."""
        self._watched = host
        """The host whose events are written down; None: not known yet."""
        self._lookup = lookup
        self._key = b""
        self._ids: set[bytes] = set()
        self._contents: dict[bytes, bytes] = {}

    def cipher(self, factory: CipherFactory) -> CipherFactory:
        """The same ciphers, overheard."""
        return lambda own, network_id, max_pairs: _Overheard(factory(own, network_id, max_pairs), self._hear)

    def _hear(self, nonce: bytes, content: bytes) -> None:
        self._contents[nonce] = content
        if len(self._contents) > _MAX_CONTENTS:
            del self._contents[next(iter(self._contents))]

    def on_seen(self, seen: Seen) -> None:
        """Something happened: the trace's listener."""
        if seen.kind not in _SAID:
            self._on_event(seen)
        elif seen.host == self._watched:
            words, message = (
                (f"a frame of {len(seen.data)} B", None) if seen.kind == "frame" else self._describe(seen.data)
            )
            if self._lookup is None or self._concerns_lookup(seen.kind, message):
                self._write(seen, words)

    def _on_event(self, seen: Seen) -> None:
        words = seen.data.decode()
        if self._lookup is None:
            if seen.host == self._watched:
                self._write(seen, words)
        elif seen.kind == "lookup":
            number, word, rest = words.split(" ", 2)
            if int(number) == self._lookup:
                self._write(seen, words)
                # While it lasts we look through the eyes of the host that looks up; its search goes on behind the
                # answer.
                if word == "begins":
                    self._watched, self._key = seen.host, bytes.fromhex(rest)
            elif word == "begins" and seen.host == self._watched and rest == self._key.hex():
                self._key = b""  # what it asks from now on may be the other lookup's

    def _concerns_lookup(self, kind: str, message: Request | Reply | None) -> bool:
        if isinstance(message, FindValue) and kind != "arrived" and message.key == self._key:
            self._ids.add(message.request_id)
        return message is not None and message.request_id in self._ids

    def _write(self, seen: Seen, words: str) -> None:
        if len(self.lines) >= _MAX_LINES:
            self.left_out += 1
            return
        self.lines.append(Line(seen.at_s, seen.host, seen.kind, seen.other, words))

    def _describe(self, data: bytes) -> tuple[str, Request | Reply | None]:
        content = self._contents.get(data[_NONCE])
        size = f"{len(data)} B"
        if content is None:
            return size, None
        body = content[_PREFIX : _PREFIX + int.from_bytes(content[1:_PREFIX], "big")]
        try:
            message: Request | Reply = (
                decode(request_decoder, body) if content[0] == _REQUEST else decode(reply_decoder, body)
            )
        except WireError:
            return size, None
        return f"{_words(message)} ({size})", message


class _Overheard:
    __slots__ = ("_cipher", "_hear")

    def __init__(self, cipher: Cipher, hear: Callable[[bytes, bytes], None]) -> None:
        self._cipher = cipher
        self._hear = hear

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        self._hear(nonce, content)
        return self._cipher.seal(content, nonce, to)

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        return self._cipher.open(box, nonce, sender)


def _words(message: Request | Reply) -> str:
    match message:
        case Ping():
            return "PING"
        case FindNode():
            return f"FIND_NODE {message.target.hex()[:8]}"
        case FindValue():
            return f"FIND_VALUE {message.key.hex()[:8]}"
        case Store():
            return f"STORE {len(message.record)} B"
        case Watch():
            return f"WATCH {len(message.watches)} keys for {message.lease_s} s"
        case Notify():
            return f"NOTIFY {message.key.hex()[:8]} {len(message.record)} B"
        case FindMembers():
            return f"MEMBERS of {message.key.hex()[:8]} from {message.start:016x}"
        case Pong():
            return "PONG"
        case Found():
            record = f", a record of {len(message.record)} B" if message.record else ""
            return f"FOUND {len(message.contacts) + len(message.other)} contacts{record}"
        case Stored():
            known = message.outcome in StoreOutcome.__members__.values()
            return f"STORED {StoreOutcome(message.outcome).name.lower()}" if known else "STORED"
        case Watching():
            return f"WATCHING for {message.lease_s} s, {len(message.records)} records"
        case Noted():
            return "NOTED"
        case Members():
            return f"MEMBERS {len(message.records)} of {message.total}, {len(message.contacts)} contacts"
        case NeedCookie():
            return "NEED_COOKIE"
        case Refused():
            known = message.reason in Refusal.__members__.values()
            return f"REFUSED {Refusal(message.reason).name.lower() if known else message.reason}"
