"""Whose a statement is. No I/O, no clock."""

from collections import Counter
from collections.abc import Callable

from dht_atonce.rooms.wire import Statement, signed_bytes

__all__ = ["Sign", "Signer", "Verify"]

Sign = Callable[[bytes], bytes]
"""Our signature over these bytes."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""Whether (key, signature, bytes) is right."""


class Signer:
    """Signs what we say in one session in one room, and checks what others say there."""

    def __init__(
        self,
        own: bytes,
        room: bytes,
        network_id: bytes,
        session: int,
        sign: Sign,
        verify: Verify,
        counters: Counter[str],
    ) -> None:
        self.own = own
        self.session = session
        self._room = room
        self._network_id = network_id
        self._sign = sign
        self._verify = verify
        self._counters = counters

    def make(self, stream: int, seq: int, data: bytes) -> Statement:
        """Sign a statement."""
        body = signed_bytes(self._network_id, self._room, self.own, self.session, stream, seq, data)
        return Statement(self.own, self.session, stream, seq, data, self._sign(body))

    def is_genuine(self, statement: Statement) -> bool:
        """Whether its author signed it."""
        one = statement
        body = signed_bytes(self._network_id, self._room, one.author, one.session, one.stream, one.seq, one.data)
        if self._verify(one.author, one.signature, body):
            return True
        self._counters["rooms.forged"] += 1
        return False
